"""Figures that answer a touch: ``:::{live} epoch``, where scripts run.

The script of a figure is `_assets/live/NAME.js`, with what is SHARED and what BESIDES
names before it; a page loads what its own figures need. Without scripts it is complete without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

FOLDER = Path(__file__).parents[1] / "_assets/live"
SHARED = ("problem", "plot", "core")
BESIDES = {"threshold": ("runs",), "ticket": ("runs",)}  # what a figure needs before its own script


class live(nodes.General, nodes.Element):
    """A place for a live figure, its title within."""


class LiveDirective(SphinxDirective):
    """The figure NAME, titled by the content; it may stand in for a static figure on a screen."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"instead-of": directives.unchanged, "compact": directives.flag}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if not (FOLDER / f"{name}.js").is_file():
            raise self.error(f"no live figure is called {name}: {FOLDER.name} has no {name}.js")
        figure = live(figure=name, place=self.options.get("instead-of"))
        figure["compact"] = "compact" in self.options
        title = nodes.container(classes=["live-title"])
        self.state.nested_parse(self.content, self.content_offset, title)
        figure += title
        return [figure]


def visit(writer: Any, node: live) -> None:
    # Links lead to a place that is there without scripts and on paper, too.
    places = "".join(f'<span id="{name}"></span>' for name in node["ids"])
    data = {"data-live": node["figure"], "hidden": "hidden"}
    if node["place"]:
        data["data-figure"] = node["place"]
    if node["compact"]:
        data["data-compact"] = "compact"
    writer.body.append(places + writer.starttag({}, "div", CLASS="live", **data))


def depart(writer: Any, node: live) -> None:
    writer.body.append("</div>\n")


def add_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give a page the scripts of its own live figures, and no others."""
    if names := sorted({node["figure"] for node in doctree.findall(live)} if doctree else ()):
        app.add_css_file("live/live.css")
        needed = [script for name in names for script in (*BESIDES.get(name, ()), name)]
        for name in dict.fromkeys((*SHARED, *needed)):
            app.add_js_file(f"live/{name}.js")


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_node(live, html=(visit, depart))
    app.add_directive("live", LiveDirective)
    app.connect("html-page-context", add_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
