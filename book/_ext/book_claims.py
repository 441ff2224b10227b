"""What kind of claim a sentence makes: ``{claim}`theorem` `` at its start."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

KINDS = {
    "theorem": "it is proved in this book",
    "measured": "cells of this book measure it, and assert it",
    "heuristic": "it is argued, not proved, and then measured",
    "cited": "others have shown it: see the source",
}


def claim(
    role: str, rawtext: str, text: str, line: int, inliner: Inliner, *_: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Mark a sentence with one kind of claim, or with several after commas."""
    kinds = [kind.strip() for kind in text.split(",")]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        message = f"expected one of {', '.join(KINDS)} in {rawtext}, got {', '.join(unknown)}"
        return [], [inliner.reporter.error(message, line=line)]
    title = "; ".join(f"{kind}: {KINDS[kind]}" for kind in kinds)
    mark = f'<span class="claim" title="{title}">{", ".join(kinds)}</span>'
    return [nodes.raw(rawtext, mark, format="html")], []


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_role("claim", claim)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
