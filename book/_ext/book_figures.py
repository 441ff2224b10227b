"""Figures for phones: where a page is narrow, it shows each figure's narrow drawing.

The kernel draws both (`kernels/python3/narrow_figures.py`). The other one is for wide screens, for
paper and for the notebooks to download.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from book_notebooks import executed
from book_rebuild import executed_notebook
from book_weight import size_of, tidy_svg
from docutils import nodes
from plain_notebook import joined
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

LOGGER = logging.getLogger(__name__)
SVG = "image/svg+xml"
NARROW = "(max-width: 576px)"  # a phone, as the theme's own styles understand it


def drawings(notebook: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield the name under which MyST-NB keeps each drawing of a page, and its narrow drawing."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if wide := output.get("data", {}).get(SVG):
                lines = os.linesep.join(joined(wide).splitlines())
                name = hashlib.sha256(lines.encode()).hexdigest()
                yield name, output["metadata"].get(SVG, {}).get("narrow")


def offer_narrow_figures(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if app.builder.name != "html" or not doctree or not executed_notebook(app, page).exists():
        return
    for name, narrow in dict(drawings(executed(app, page))).items():
        shown = re.compile(rf'<img [^>]*src="([^"]*/){name}\.svg"[^>]*>')
        if not shown.search(context["body"]):
            continue  # the cell's output is hidden
        if narrow is None:
            LOGGER.warning("a figure has no narrow drawing for phones", location=page)
            continue
        target = Path(app.outdir, app.builder.imagedir, f"{name}-narrow.svg")
        target.parent.mkdir(exist_ok=True)
        target.write_text(drawing := tidy_svg(narrow), encoding="utf-8")
        source = rf'<source media="{NARROW}" srcset="\g<1>{name}-narrow.svg"{size_of(drawing)}>'
        context["body"] = shown.sub(rf"<picture>{source}\g<0></picture>", context["body"])


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("html-page-context", offer_narrow_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
