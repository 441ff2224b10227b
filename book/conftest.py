"""Lets nbmake run the MyST Markdown pages: with ``--nbmake``, each page with code is one test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext.myst import matches_mystnb
from nbmake.nb_result import NotebookError, NotebookResult
from nbmake.nb_run import NotebookRun
from nbmake.pytest_items import NotebookFailedException, NotebookFile, NotebookItem

# The kernel the build uses, too: figures as SVG, no progress bars.
os.environ["JUPYTER_PATH"] = str(Path(__file__).parent / "_ext")

collect_ignore = ["_ext"]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not parent.config.option.nbmake or file_path.suffix != ".md":
        return None
    if not matches_mystnb(file_path.read_text(encoding="utf-8"), requires_meta=True):
        return None
    if parent.config.option.overwrite:
        raise pytest.UsageError("--overwrite would replace the Markdown of a page by JSON")
    return Page.from_parent(parent, path=file_path)


class Page(NotebookFile):
    def collect(self) -> Iterator[pytest.Item]:
        yield PageItem.from_parent(self, filename=str(self.path))


class PageItem(NotebookItem):
    def runtest(self) -> None:
        option = self.config.option
        run = NotebookRun(
            self.path,
            option.nbmake_timeout,
            verbose=bool(option.verbose),
            kernel=option.nbmake_kernel,
            find_import_errors=option.nbmake_find_import_errors,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nbmake.nb_run.nbformat", jupytext)  # whose read() knows Markdown, too
            result = run.execute()
        error = result.error or warning_in(result.nb)
        if error:
            raise NotebookFailedException(NotebookResult(nb=result.nb, error=error))


def warning_in(notebook: nbformat.NotebookNode) -> NotebookError | None:
    """What a cell wrote to stderr, as an error: the build treats it so, too."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == "stderr":
                return NotebookError(
                    summary=f"cell {index + 1} wrote to stderr",
                    trace=f"{'-' * 75}\n{cell.source}\n{output.text}",
                    failing_cell_index=index,
                )
    return None
