"""Executes pages side by side, and no cell twice that would give the same again.

Sphinx reads, and so executes, one page after the other, and some extensions cannot do otherwise.
Here kernels run ahead of it; what it reads from them is what it would have waited for. What cells
gave is kept until they, or what they compute with, change: to read a page again, for its text or
for a warning in it, costs no execution.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import myst_nb.core.execute
import nbformat
from book_sources import of_cells
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.config import NbParserConfig
from myst_nb.core.execute.direct import NotebookClientDirect
from myst_nb.core.read import create_nb_reader
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

MOST_KERNELS = 4  # about half a gigabyte each


@dataclass
class Run:
    """One execution of a page's cells, or what is kept of the last one."""

    app: Sphinx
    path: Path
    notebook: NotebookNode
    config: NbParserConfig
    seconds: Future[float | None] = field(default_factory=Future)  # None: nothing was executed

    def begin(self) -> None:
        try:
            self.seconds.set_result(self.execute())
        except BaseException as error:  # raised again where the page is read
            self.seconds.set_exception(error)

    def execute(self) -> float | None:
        cells = [cell for cell in self.notebook.cells if cell.cell_type == "code"]
        parts = [f"{cell.source}\n# {cell.metadata.get('tags')}" for cell in cells]
        parts.append(f"# {self.notebook.metadata.get('kernelspec')}")
        fingerprint = of_cells(Path(self.app.confdir, "book"), "\n".join(parts))
        kept = self.kept()
        if kept.get("fingerprint") == fingerprint:
            self.notebook.metadata.update(kept.metadata)
            for cell, result in zip(cells, kept.results, strict=True):
                cell.update(result)
            return None
        done = single_nb_execution(
            self.notebook,
            cwd=str(self.path.parent),
            timeout=self.config.execution_timeout,
            allow_errors=self.config.execution_allow_errors,
            coalesce_streams=True,  # what a cell prints is one output, in however many pieces
        )
        if done.err:
            raise done.err
        if not any(is_complaint(output) for cell in cells for output in cell.outputs):
            self.keep(fingerprint, cells)
        return done.time

    @property
    def file(self) -> Path:
        page = self.path.relative_to(self.app.srcdir)
        return Path(self.app.doctreedir, "executed", page).with_suffix(".json")

    def kept(self) -> NotebookNode:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return nbformat.from_dict(json.loads(self.file.read_text(encoding="utf-8")))
        return NotebookNode()

    def keep(self, fingerprint: str, cells: list[NotebookNode]) -> None:
        results = [{key: cell[key] for key in ("execution_count", "outputs")} for cell in cells]
        language = {"language_info": self.notebook.metadata["language_info"]}
        run = {"fingerprint": fingerprint, "metadata": language, "results": results}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")  # of what is whole, or not there
        part.write_text(json.dumps(run), encoding="utf-8")
        part.replace(self.file)


def is_complaint(output: NotebookNode) -> bool:
    """Whether an output is a warning, or a traceback, whose line numbers comments change, too."""
    return output.output_type == "error" or output.get("name") == "stderr"


begun: dict[Path, Run] = {}  # those that no page has taken yet


def work_off(todo: SimpleQueue[Run]) -> None:
    with suppress(Empty):
        while True:
            todo.get_nowait().begin()


def execute_ahead(app: Sphinx, env: BuildEnvironment, pages: list[str]) -> None:
    config = env.mystnb_config
    todo: SimpleQueue[Run] = SimpleQueue()
    for page in pages:
        path = Path(env.doc2path(page))
        text = path.read_text(encoding="utf-8")
        reader = create_nb_reader(str(path), env.myst_config, config, text)
        notebook = reader.read(text) if reader else None
        # A page with settings of its own is executed with them, when it is read.
        if notebook and config.metadata_key not in notebook.metadata:
            begun[path] = Run(app, path, notebook, config)
            todo.put(begun[path])
    for _ in range(min(MOST_KERNELS, os.cpu_count() or 1)):
        # A daemon, so that an interrupted build ends at once, and its kernels with it.
        Thread(target=work_off, args=(todo,), daemon=True).start()


class PageClient(NotebookClientDirect):
    app: Sphinx

    def start_client(self) -> None:
        run = begun.pop(self.path, None)
        if run is None:
            run = Run(self.app, self.path, self.notebook, self.nb_config)
            run.begin()
        try:
            seconds = run.seconds.result()
        finally:
            self.notebook.update(run.notebook)  # as far as it came
        if seconds is not None:
            self.logger.info(f"Executed notebook in {seconds:.2f} seconds")


def setup(app: Sphinx) -> ExtensionMetadata:
    PageClient.app = app
    # Matplotlib looks for it beside a page, and then here: pages in folders have the same style.
    os.environ["MATPLOTLIBRC"] = str(Path(app.confdir, "book", "matplotlibrc"))
    myst_nb.core.execute.NotebookClientDirect = PageClient
    # After whoever else may still change the list of pages to read.
    app.connect("env-before-read-docs", execute_ahead, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
