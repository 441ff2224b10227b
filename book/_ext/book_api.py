"""The API page: signatures that say what a field is where nothing is given."""

from __future__ import annotations

import dataclasses
import re

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def show_made_defaults(
    app: Sphinx,
    what: str,
    name: str,
    documented: object,
    options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    """Write {} where a dataclass makes a new one for each instance; no parser reads <factory>."""
    if signature is None or not dataclasses.is_dataclass(documented):
        return None
    makers = (field.default_factory for field in dataclasses.fields(documented) if field.init)
    made = (repr(make()) for make in makers if make is not dataclasses.MISSING)
    return re.sub("<factory>", lambda _: next(made), signature), returned


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("autodoc-process-signature", show_made_defaults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
