"""Rebuilds that give what a build from nothing would give.

Sphinx reads, and so executes, a page again when its text changes. A page also depends on the
package it runs, on the files beside it, on the numbers it quotes from other pages, and on the last
build having come to its end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from myst_nb.ext.glue.utils import PendingGlueReference
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata


def sources(book: Path) -> Iterator[Path]:
    """Yield the files a cell can compute with: the package, and what lies beside the pages."""
    package = find_spec("sgd_analysis")
    for root in package.submodule_search_locations or () if package else ():
        yield from sorted(Path(root).rglob("*.py"))
    for path in sorted(book.rglob("*")):
        if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts:
            yield path


def fingerprint(book: Path) -> str:
    digest = hashlib.sha256()
    for path in sources(book):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    for library in ("torch", "numpy", "matplotlib"):
        digest.update(f"{library} {version(library)} ".encode())
    return digest.hexdigest()


def note_sources(app: Sphinx, config: Config) -> None:
    config.book_fingerprint = fingerprint(Path(app.confdir, "book"))


def unfinished(app: Sphinx) -> Path:
    return Path(app.doctreedir, "unfinished")


def begin(app: Sphinx, config: Config) -> None:
    """Start from nothing after a build that was interrupted or had warnings.

    What such a build left behind looks up to date, and its warnings would not be seen again.
    """
    if unfinished(app).exists():
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)
    unfinished(app).parent.mkdir(parents=True, exist_ok=True)
    unfinished(app).touch()


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and not app._warncount:
        unfinished(app).unlink()


def note_quoted_pages(app: Sphinx, doctree: nodes.document) -> None:
    quoted = {node.refdoc for node in doctree.findall(PendingGlueReference)}
    app.env.metadata[app.env.docname]["quoted_pages"] = quoted


def note_pages_read(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    env.pages_read = set(docnames)


def pages_that_quote(app: Sphinx, env: BuildEnvironment) -> Iterable[str]:
    """Name the pages to write again because a page they quote was executed again."""
    return [
        page
        for page in sorted(env.found_docs)
        if env.pages_read.intersection(env.metadata[page].get("quoted_pages", ()))
    ]


def fix_cell_ids(app: Sphinx, doctree: nodes.document) -> None:
    """Number the cells of the executed notebook, whose ids are random otherwise."""
    path = executed_notebook(app, app.env.docname)
    if path.exists():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for number, cell in enumerate(notebook["cells"]):
            cell["id"] = f"cell-{number}"
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


def executed_notebook(app: Sphinx, page: str) -> Path:
    return Path(app.env.mystnb_config.output_folder, f"{page}.ipynb")


def setup(app: Sphinx) -> ExtensionMetadata:
    # The pages' own kernel: figures as SVG, no progress bars.
    os.environ["JUPYTER_PATH"] = str(Path(__file__).parent)
    app.add_config_value("book_fingerprint", "", "env", types=(str,))
    app.connect("config-inited", note_sources)
    app.connect("config-inited", begin)
    app.connect("env-before-read-docs", note_pages_read)
    app.connect("doctree-read", note_quoted_pages)
    app.connect("doctree-read", fix_cell_ids)
    app.connect("env-updated", pages_that_quote)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
