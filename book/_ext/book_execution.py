"""Executes pages side by side: a build takes as long as its processors need, not one of them.

Sphinx reads, and so executes, one page after the other, and some extensions cannot do otherwise.
Here kernels run ahead of it; what it reads from them is what it would have waited for.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from myst_nb.core.execute import direct
from myst_nb.core.read import create_nb_reader
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

MOST_KERNELS = 4  # about half a gigabyte each


@dataclass(frozen=True)
class Run:
    notebook: NotebookNode
    settings: dict[str, Any]
    outcome: Future[ExecutionResult] = field(default_factory=Future)


# The runs that no page has taken yet, by what they execute and where.
begun: dict[tuple[str, ...], Run] = {}


def key(notebook: NotebookNode, folder: str) -> tuple[str, ...]:
    return (folder, *(cell.source for cell in notebook.cells))


def execute(notebook: NotebookNode, **settings: Any) -> ExecutionResult:
    # What a cell prints is one output, in however many pieces it came.
    return single_nb_execution(notebook, coalesce_streams=True, **settings)


def work_off(todo: SimpleQueue[Run]) -> None:
    with suppress(Empty):
        while True:
            run = todo.get_nowait()
            try:
                run.outcome.set_result(execute(run.notebook, **run.settings))
            except Exception as error:  # raised again where the page is read
                run.outcome.set_exception(error)


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
            settings = {
                "cwd": str(path.parent),
                "timeout": config.execution_timeout,
                "allow_errors": config.execution_allow_errors,
            }
            run = begun[key(notebook, settings["cwd"])] = Run(notebook, settings)
            todo.put(run)
    for _ in range(min(MOST_KERNELS, os.cpu_count() or 1)):
        # A daemon, so that an interrupted build ends at once, and its kernels with it.
        Thread(target=work_off, args=(todo,), daemon=True).start()


def take_run(notebook: NotebookNode, cwd: str, **settings: Any) -> ExecutionResult:
    run = begun.pop(key(notebook, cwd), None)
    if run is None:
        return execute(notebook, cwd=cwd, **settings)
    try:
        return run.outcome.result()
    finally:
        notebook.update(run.notebook)  # as the caller expects: executed in place, as far as it came


def setup(app: Sphinx) -> ExtensionMetadata:
    direct.single_nb_execution = take_run
    # After whoever else may still change the list of pages to read.
    app.connect("env-before-read-docs", execute_ahead, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
