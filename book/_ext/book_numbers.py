"""A glued number as a person writes it, whatever its format says and if it is a numpy scalar, too.

9340 and 12,000: thousands are separated from five digits on. −7·10⁻⁵ for -7e-05. A glued string
stays what it is. (That no line ends inside a number is for the style sheet to say.)
"""

from __future__ import annotations

import re

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


def format_plain_text(text: str, form: str) -> str:
    """Format a glued value as MyST-NB does, and what is a number as a person writes it."""
    plain = variables.format_plain_text(SCALAR.sub(r"\1", text), form)
    if STRING.match(text):
        return plain
    return POWER.sub(power, MINUS.sub("−", WHOLE.sub(separated, plain, count=1)))


def setup(app: Sphinx) -> ExtensionMetadata:
    for module in (crossref, roles):
        vars(module)["format_plain_text"] = format_plain_text
    return {"version": "2", "parallel_read_safe": True, "parallel_write_safe": True}
