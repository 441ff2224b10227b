"""Signatures as they are written: NumPy's array types by name, not by what they stand for."""

from __future__ import annotations

import re
from typing import Any

import sphinx.ext.autodoc
import sphinx.util.inspect
from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata, stringify_annotation

ARRAY = re.compile(
    r"~?numpy\.ndarray\[~?(?:\w+\.)?tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[(.*?)\]\]"
)


def stringify_by_name(annotation: Any, /, mode: Any = "fully-qualified-except-typing") -> str:
    text = stringify_annotation(annotation, mode)
    text = text.replace(stringify_annotation(ArrayLike, mode), "~numpy.typing.ArrayLike")
    return ARRAY.sub(r"~numpy.typing.NDArray[\1]", text)


def setup(app: Sphinx) -> ExtensionMetadata:
    for module in (sphinx.ext.autodoc, sphinx.util.inspect):
        vars(module)["stringify_annotation"] = stringify_by_name
    return {"parallel_read_safe": True, "parallel_write_safe": True}
