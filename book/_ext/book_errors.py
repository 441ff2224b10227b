"""Errors that say where: the file, and the line in it.

Most messages of Sphinx and of its extensions do. This module sees to the others: cells that fail or
cannot be read, labels given twice, and a table of contents that does not fit the pages.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from book_names import TEMPLATE
from myst_nb.core import read
from myst_nb.core.execute.base import NotebookClientBase
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.util.logging import getLogger
from sphinx.util.typing import ExtensionMetadata

COLOURS = re.compile(r"\x1b\[[\d;]*m")
# Their own messages name a page without its suffix, and no line.
LOGGERS = [
    "sphinx_exercise",
    "sphinx_exercise.directive",
    "sphinx_proof.directive",
    "sphinx_proof.domain",
]

logger = getLogger(__name__)


class PageError(SphinxError):
    category = "A page cannot be built"


def with_lines(reader: Callable[..., NotebookNode]) -> Callable[..., NotebookNode]:
    """Let the reader of pages know the line of each text, and name that of an unreadable cell."""

    @functools.wraps(reader)
    def read_notebook(text: str, *arguments: Any, path: str, **settings: Any) -> NotebookNode:
        try:
            notebook = reader(text, *arguments, path=path, **settings)
        except read.MystMetadataParsingError as error:
            line = re.search(r"at line (\d+)", str(error))
            raise PageError(f"{path}:{line[1] if line else 1}: {error}") from None
        lines, starts = text.split("\n"), notebook.metadata["source_map"]
        for i, cell in enumerate(notebook.cells):
            if cell.cell_type == "markdown":  # read without its blank lines, taken to have one
                starts[i] -= 1
                while not lines[starts[i] + 1].strip():
                    starts[i] += 1
        return notebook

    return read_notebook


def name_failing_cell(enter: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(enter)
    def enter_client(client: NotebookClientBase) -> Any:
        try:
            return enter(client)
        except Exception as error:
            cause = error.__cause__ or error
            line = client.cell_line(last_cell_begun(client.notebook))
            reason = COLOURS.sub("", f"{type(cause).__name__}: {cause}")
            raise PageError(f"{client.path}:{line}: {reason}") from None

    return enter_client


def last_cell_begun(notebook: NotebookNode) -> int:
    """The cell at which the execution ended; the first one, if it did not begin."""
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    begun = [i for i in code if notebook.cells[i].execution_count]
    return [0, *code[:1], *begun][-1]


def name_page_and_line(record: logging.LogRecord) -> bool:
    """Complete a location that is a page without its suffix: a label is where it stands last."""
    name, _, line = str(record.location).partition(":")
    page = Path(f"{name}.md")
    if page.is_file():
        label = re.search(r"label:? '?([\w-]+)", record.getMessage())
        if label and not line:
            lines = page.read_text(encoding="utf-8").split("\n")
            line = str(max(n for n, text in enumerate(["", *lines]) if label[1] in text or not n))
        record.location = f"{page}:{line}"
    return True


def compare_contents(app: Sphinx, env: BuildEnvironment, *_: object) -> list[str]:
    """Warn of pages that the table of contents does not name, and of names without a page."""
    contents = Path(app.srcdir, app.config.external_toc_path)
    lines = contents.read_text(encoding="utf-8").split("\n")
    listed = {str(page).removesuffix(".md") for page in app.config.external_site_map}
    for page in sorted(listed - env.found_docs):
        name = re.compile(rf"\b{re.escape(page)}(?:\.md)?\s*$")
        at = [number for number, line in enumerate(lines, 1) if name.search(line)]
        where = ":".join(map(str, [contents, *at]))
        logger.warning("there is no page %s.md", page, location=where)
    for path in sorted(Path(app.srcdir, "book").rglob("*.md")):
        page = path.relative_to(app.srcdir).with_suffix("").as_posix()
        if page not in {*listed, TEMPLATE} and "/." not in page:
            logger.warning("this page is not in %s", contents.name, location=f"{path}:1")
    return []


def setup(app: Sphinx) -> ExtensionMetadata:
    read.read_myst_markdown_notebook = with_lines(read.read_myst_markdown_notebook)
    NotebookClientBase.__enter__ = name_failing_cell(NotebookClientBase.__enter__)
    for name in LOGGERS:
        logging.getLogger(f"sphinx.{name}").addFilter(name_page_and_line)
    app.connect("env-get-outdated", compare_contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
