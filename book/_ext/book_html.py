"""Pages that any reader can use: nothing from the network, roles that screen readers know."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from book_tables import mend_tables
from book_weight import size_of
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator
from sphinx_exercise.nodes import solution_node

# (pattern, replacement) in a page's body
CURES = [
    # A header of nothing is no header.
    (re.compile(r"<th(?: [^>]*)?>(?:<p></p>)?</th>"), "<td></td>"),
    # A fold is named by the words that it shows.
    (re.compile(r'<summary aria-label="[^"]*">'), "<summary>"),
    # A line does not break between a formula and the punctuation at it.
    (
        re.compile(
            r'\(?<span class="math notranslate nohighlight">[^<]*</span>'
            r"(?:[\u202f\u00a0]?[.,;:!?)”’»%])+"
        ),
        r'<span class="unbroken">\g<0></span>',
    ),
    # ARIA has deprecated the first role, and the second asks for list items that are not there.
    (re.compile(r' role="(?:doc-biblioentry|list)"'), ""),
    # A signature of several lines is no list of definitions.
    (re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.S), r"\1"),
    (re.compile(r'<dd>(<em class="sig-param">.*?)</dd>'), r'<span class="sig-parameter">\1</span>'),
    (
        re.compile(
            r'(<details class="solution[^>]*>)\s*<p class="admonition-title">(.*?)</p>', re.S
        ),
        r'\1<summary class="admonition-title">\2</summary>',
    ),
    # One id, given to every proof or exercise of a page.
    (
        re.compile(
            r'(<div class="proof admonition"|<section[^>]*?) '
            r'id="(?:proof|(?:proof|exercise|solution)-content)"'
        ),
        r"\1",
    ),
    (re.compile(r'(<div class="proof admonition"[^>]*>\s*<p>)Proof\.'), r"\1<em>Proof.</em>"),
]
IMAGE = re.compile(r'<img (?![^>]* width=)[^>]*\bsrc="[^"]*?_images/(?P<name>[^"/]+\.svg)"')


def add_repository(app: Sphinx, config: Config) -> None:
    if url := os.environ.get("BOOK_REPOSITORY_URL"):
        config.html_theme_options |= {
            "repository_url": url,
            "use_repository_button": True,
            "use_issues_button": True,
        }


def drop_thebe(app: Sphinx, config: Config) -> None:
    """Silence the extension for live code: its script needs the network and fails on every page."""
    for event, listeners in app.events.listeners.items():
        app.events.listeners[event] = [
            listener for listener in listeners if listener.handler.__module__ != "sphinx_thebe"
        ]
    styles = app.registry.css_files
    styles[:] = [style for style in styles if style[0] != "sphinx-thebe.css"]


def mend_single_page(app: Sphinx, config: Config) -> None:
    """Let the one-page book use what is registered for HTML.

    Visitors registered for "singlehtml" by name hide all of those, and some extensions register
    only their own.
    """
    app.registry.translation_handlers.pop("singlehtml", None)


def fold_solutions(app: Sphinx, config: Config) -> None:
    """Fold solutions as HTML itself does: by keyboard, without a script, found by a page search."""

    def visit(writer: HTML5Translator, node: solution_node) -> None:
        start = writer.starttag({"ids": node["ids"]}, "details", CLASS="solution admonition")
        writer.body.append(start)

    def depart(writer: HTML5Translator, node: solution_node) -> None:
        writer.body.append("</details>\n")

    app.add_node(solution_node, override=True, html=(visit, depart))


def reserve_room(body: str, drawings: dict[str, Path]) -> str:
    """Tell the size of each figure, so that what stands below does not move when it is there."""

    def sized(image: re.Match[str]) -> str:
        drawing = drawings.get(image["name"])
        return image[0] + (size_of(drawing.read_text(encoding="utf-8")) if drawing else "")

    return IMAGE.sub(sized, body)


def lead_to_first_page(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Let the site's own address lead to the book, by a page with a title and no icon to miss."""
    root = app.config.root_doc
    if root != "index":
        context = {"title": app.config.html_title, "first_page": app.builder.get_target_uri(root)}
        yield "index", context, "first-page.html"


def cure_body(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if "body" in context:
        for pattern, replacement in CURES:
            context["body"] = pattern.sub(replacement, context["body"])
        images = {name: Path(app.srcdir, path) for path, name in app.builder.images.items()}
        context["body"] = mend_tables(reserve_room(context["body"], images))


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("config-inited", add_repository)
    app.connect("config-inited", drop_thebe)
    app.connect("config-inited", mend_single_page)
    app.connect("config-inited", fold_solutions)
    app.connect("html-collect-pages", lead_to_first_page)
    app.connect("html-page-context", cure_body)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
