"""The cells of a page are executed again if they, or what they may compute with, change."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.book.small_books import ROOT, make_book

MODULE = '''\
"""A package."""


class Number:
    """A number."""

    value: int = 1
    """It is this."""


def double(x):
    """Double a number."""
    return 2 * x
'''
COMPUTES = "from sgd_analysis import double\n\nprint(double(21))"
Fingerprint = Callable[[str], str]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    root = make_book(tmp_path / "sources", {"start": "# A book\n"})
    (root / "sgd_analysis/room").mkdir()
    for name in ("__init__.py", "room/__init__.py"):
        (root / "sgd_analysis" / name).write_text(MODULE, "utf-8")
    (root / "book/_assets/measured.json").write_text("[1, 2]", "utf-8")
    (root / "requirements.txt").write_text("numpy==1\n", "utf-8")
    return root / "book"


@pytest.fixture
def of_cells(book: Path, monkeypatch: pytest.MonkeyPatch) -> Fingerprint:
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    monkeypatch.syspath_prepend(book.parent)
    monkeypatch.delitem(sys.modules, "sgd_analysis", raising=False)
    import book_sources

    return lambda cells: book_sources.of_cells(book, cells)


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text("utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new, 1), "utf-8")


OF_THE_PAGES = {
    "docstring": ("sgd_analysis/__init__.py", "Double a", "Twice a"),
    "docstring of an attribute": ("sgd_analysis/__init__.py", "It is this", "That it is"),
    "comment": ("sgd_analysis/room/__init__.py", "2 * x", "2 * x  # twice"),
    "line break": ("sgd_analysis/__init__.py", "2 * x", "(\n        2 * x\n    )"),
    "style": ("book/_assets/book.css", "", "/* new */"),
    "script": ("book/_assets/book.js", "", "/* new */"),
    "drawing": ("book/_assets/logo.svg", "", "<!-- new -->"),
    "extension": ("book/_ext/book_numbers.py", "", "# new\n"),
    "template": ("book/_ext/templates/layout.html", "", "{# new #}"),
    "bibliography": ("book/references.bib", "1951", "1952"),
    "another page": ("book/start.md", "A book", "The book"),
}
OF_THE_CELLS = {
    "code": ("sgd_analysis/__init__.py", "2 * x", "x * 2"),
    "code in a folder": ("sgd_analysis/room/__init__.py", "2 * x", "x * 2"),
    "code that Python cannot read": ("sgd_analysis/__init__.py", "2 * x", "2 *"),
    "data": ("book/_assets/measured.json", "1", "3"),
    "figures": ("book/matplotlibrc", "lines.linewidth: 2", "lines.linewidth: 3"),
    "kernel": ("book/_ext/kernels/python3/kernel.json", "PYTHONHASHSEED", "PYTHONHASH"),
    "pins": ("requirements.txt", "1", "2"),
}


@pytest.mark.parametrize("what", OF_THE_PAGES)
def test_nothing_is_executed_for_an_edit_that_no_cell_can_see(
    what: str, book: Path, of_cells: Fingerprint
) -> None:
    before = of_cells(COMPUTES)
    edit(book.parent, *OF_THE_PAGES[what])
    assert of_cells(COMPUTES) == before


@pytest.mark.parametrize("what", OF_THE_CELLS)
def test_cells_are_executed_for_an_edit_of_what_they_may_compute_with(
    what: str, book: Path, of_cells: Fingerprint
) -> None:
    before = of_cells(COMPUTES)
    edit(book.parent, *OF_THE_CELLS[what])
    assert of_cells(COMPUTES) != before


@pytest.mark.parametrize("cells", ["help(double)", "double?", "print(double.__doc__)"])
def test_cells_that_show_documentation_are_executed_for_an_edit_of_a_docstring(
    cells: str, book: Path, of_cells: Fingerprint
) -> None:
    before = of_cells(cells)
    edit(book.parent, *OF_THE_PAGES["docstring"])
    assert of_cells(cells) != before


def test_a_question_in_a_comment_shows_no_documentation(book: Path, of_cells: Fingerprint) -> None:
    before = of_cells("total = 2  # is it even?")
    edit(book.parent, *OF_THE_PAGES["docstring"])
    assert of_cells("total = 2  # is it even?") == before


def test_cells_that_name_a_style_are_executed_for_an_edit_of_it(
    book: Path, of_cells: Fingerprint
) -> None:
    cells = "print(open('_assets/book.css').read())"
    before = of_cells(cells)
    edit(book.parent, *OF_THE_PAGES["style"])
    assert of_cells(cells) != before


def test_cells_are_executed_where_their_own_variable_or_the_processor_is_another(
    of_cells: Fingerprint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = "import os\n\nprint(os.environ['BOOK_COLOUR'])"
    monkeypatch.setenv("BOOK_COLOUR", "red")
    without, with_variable = of_cells(COMPUTES), of_cells(asks)
    monkeypatch.setenv("BOOK_COLOUR", "blue")
    assert of_cells(asks) != with_variable
    assert of_cells(COMPUTES) == without
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", f"not {os.environ.get('ATEN_CPU_CAPABILITY')}")
    assert of_cells(COMPUTES) != without


def test_other_cells_are_executed(of_cells: Fingerprint) -> None:
    assert of_cells(COMPUTES) != of_cells(COMPUTES.replace("21", "22"))
