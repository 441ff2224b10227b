"""What search engines and link previews are told about a page."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata

PREVIEW = "_static/preview.png"


def note_address(app: Sphinx, config: Config) -> None:
    """Take the site's public address, which only those know who publish it."""
    if url := os.environ.get("BOOK_SITE_URL"):
        config.html_baseurl = url.rstrip("/") + "/"


def add_tags(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if doctree is None:
        return
    is_root = page == app.config.root_doc
    if is_root:
        context["docstitle"] = ""  # its title is the book's, and once is enough
    described = [node for node in doctree.findall(nodes.meta) if node.get("name") == "description"]
    tags = {
        "og:site_name": app.config.html_title,
        "og:type": "website" if is_root else "article",
        "og:title": app.env.titles[page].astext(),
        "og:description": described[0]["content"] if described else "",
        "twitter:card": "summary",
    }
    if address := app.config.html_baseurl:
        tags |= {
            "og:url": address + app.builder.get_target_uri(page),
            "og:image": address + PREVIEW,
            "og:image:alt": "A bowl, and the steps of gradient descent that jump across it.",
            "twitter:card": "summary_large_image",
        }
    context["metatags"] += "".join(
        f'<meta {"name" if name.startswith("twitter") else "property"}="{name}" '
        f'content="{escape(content)}" />\n'
        for name, content in tags.items()
        if content
    )


def draw_preview(app: Sphinx, exception: Exception | None) -> None:
    """Draw the picture of link previews, which have to be bitmaps at a public address."""
    if exception or not app.config.html_baseurl:
        return
    bowl = np.linspace(-1.15, 1.15, 200)
    steps = (-0.85) ** np.arange(12)  # each goes a little less far up the other side
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="white")
        ax = figure.add_axes((0.54, 0.12, 0.40, 0.76))
        ax.plot(bowl, bowl**2, color="#0072B2", linewidth=7, solid_capstyle="round")
        ax.plot(steps, steps**2, "o-", color="#D55E00", linewidth=3, markersize=13)
        ax.set_axis_off()
        title = app.config.html_title.replace(" ", "\n", 2)
        figure.text(0.07, 0.62, title, fontsize=36, weight="bold", va="center", color="#222832")
        question = "Which loss, and which gradient,\nis your training loop\nreally showing you?"
        figure.text(0.07, 0.26, question, fontsize=25, va="center", color="#222832")
        figure.savefig(Path(app.outdir, PREVIEW), metadata={"Software": None})


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("config-inited", note_address)
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", draw_preview)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
