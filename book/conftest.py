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

collect_ignore = ["_ext", "print.py"]  # programs of the build, without tests of their own


def is_notebook(page: Path) -> bool:
    return matches_mystnb(page.read_text(encoding="utf-8"), requires_meta=True)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a page that is named on the command line and cannot be executed; say what it lacks."""
    for argument in config.args:
        page = config.invocation_params.dir / argument
        if page.suffix == ".md" and page.is_file() and not is_notebook(page):
            raise pytest.UsageError(no_notebook(page))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not parent.config.option.nbmake or file_path.suffix != ".md" or not is_notebook(file_path):
        return None
    if parent.config.option.overwrite:
        raise pytest.UsageError("--overwrite would replace the Markdown of a page by JSON")
    return Page.from_parent(parent, path=file_path)


def no_notebook(page: Path) -> str:
    template = Path(__file__).with_name("template.md")
    front_matter = template.read_text(encoding="utf-8").split("---\n")[1]
    needed = front_matter[front_matter.index("jupytext:") :]
    return (
        f"{page.name} is not executed: its front matter does not say that it is a notebook.\n"
        f"A page with code begins with these lines, as book/{template.name} does:\n\n"
        f"---\n{needed}---\n"
    )


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
            patch.setenv("MATPLOTLIBRC", str(Path(__file__).with_name("matplotlibrc")))
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
