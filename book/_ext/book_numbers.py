"""A glued number as a person writes it, whatever its format says and if it is a numpy scalar, too.

9340 and 12,000: thousands are separated from five digits on. −7·10⁻⁵ for -7e-05. On a French page
12 000 and 0,5. A glued string stays what it is. (That no line ends inside a number is for the style
sheet to say.)
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from french_words import french_number
from myst_nb.core import variables
from myst_nb.ext.glue import crossref, roles
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

SCALAR = re.compile(r"^np\.\w+\((.*)\)$")
STRING = re.compile(r"^(?:np\.str_\()?['\"]")
MINUS = re.compile(r"^-(?=[\d.])")
WHOLE = re.compile(r"\d[\d,_]*")  # the first is what stands before the point
POWER = re.compile(r"[eE](?P<sign>[+-])0*(?P<digits>\d+)$")
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def separated(whole: re.Match[str]) -> str:
    digits = re.sub("[,_]", "", whole[0])
    return f"{int(digits):,}" if len(digits) > 4 else digits


def power(found: re.Match[str]) -> str:
    exponent = found["sign"].strip("+") + found["digits"]
    return "·10" + exponent.translate(RAISED)


def format_plain_text(text: str, form: str, *, french: bool = False) -> str:
    """Format a glued value as MyST-NB does, and what is a number as a person writes it."""
    plain = variables.format_plain_text(SCALAR.sub(r"\1", text), form)
    if STRING.match(text):
        return plain
    number = POWER.sub(power, MINUS.sub("−", WHOLE.sub(separated, plain, count=1)))
    return french_number(number) if french else number


def is_in_french(node: nodes.Node | None) -> bool:
    while isinstance(node, nodes.Element):
        if "language-fr" in node.get("classes", ()):
            return True
        node = node.parent
    return False


def text_of_reference(reference: nodes.Element, output: dict[str, Any]) -> list[nodes.inline]:
    """Stand in for MyST-NB's function of that task, which does not know where it writes."""
    found: list[nodes.inline] = text_in_english(reference, output)
    if is_in_french(reference) and not STRING.match(output["data"]["text/plain"]):
        texts = [french_number(node.astext()) for node in found]
        found = [nodes.inline(text, text, classes=["pasted-text"]) for text in texts]
    return found


text_in_english = crossref.generate_text_nodes


def setup(app: Sphinx) -> ExtensionMetadata:
    for module in (crossref, roles):
        vars(module)["format_plain_text"] = format_plain_text
    vars(crossref)["generate_text_nodes"] = text_of_reference
    return {"version": "3", "parallel_read_safe": True, "parallel_write_safe": True}
