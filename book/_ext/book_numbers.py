"""A glued number as a person writes it: −7·10⁻⁵ for -7e-05, also if a numpy scalar was glued."""

from __future__ import annotations

import re

from myst_nb.core import variables
from myst_nb.ext.glue import crossref, roles
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

SCALAR = re.compile(r"^np\.\w+\((.*)\)$")
MINUS = re.compile(r"^-(?=[\d.])")
POWER = re.compile(r"e(?P<sign>[+-])0*(?P<digits>\d+)$")
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_plain_text(text: str, form: str) -> str:
    """Format a glued value as MyST-NB does, but for its minus, power of ten and numpy type."""

    def power(found: re.Match[str]) -> str:
        exponent = found["sign"].strip("+") + found["digits"]
        return "·10" + exponent.translate(RAISED)

    plain = variables.format_plain_text(SCALAR.sub(r"\1", text), form)
    return POWER.sub(power, MINUS.sub("−", plain))


def setup(app: Sphinx) -> ExtensionMetadata:
    for module in (crossref, roles):
        vars(module)["format_plain_text"] = format_plain_text
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
