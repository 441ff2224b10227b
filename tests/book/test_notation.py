"""One letter, one meaning: the notation page is the register of the letters of all formulas."""

import re
from collections import Counter

import pytest

from book._ext.french_words import ENGLISH
from tests.book.contents import ROOT
from tests.book.letters import ACCENT, GREEK, formulas, letters
from tests.book.markup import Page
from tests.book.page_checks import LISTED_PAGES

NOTATION = Page(ROOT / "book/notation.md")
# A symbol alone, perhaps of a variable, with what it stands for or is bounded by.
SYMBOL = re.compile(
    rf"(?:{ACCENT})?(?:\\(?:{GREEK})|[A-Za-z])\}}?(?:_\w|_\\\w+|_\{{[^}}]*\}}|_\\mathrm\{{\w+\}}|\^\*)?"
    r"(?:\([\w\\, ]+\))?(?:\s*(?:=|<|\\le|\\ge|\\in|,).*)?"
)
COUNTS = set("bijkst") | {"b_", "i_"}  # what an index runs over is said where it stands


def rows(title: str) -> list[list[str]]:
    """Return the cells of the tables whose first column has a title."""
    found, inside = [], False
    for line in NOTATION.text.split("\n"):
        if not line.startswith("| "):
            inside = False
        elif line.startswith(f"| {title} |"):
            inside = True
        elif inside and not line.startswith("| ---"):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def defined(cell: str) -> list[str]:
    """Return the letters that a cell of symbols gives a meaning."""
    found: list[str] = []
    for symbol in re.findall(r"\$([^$]+)\$", cell):
        listed = symbol.split(", ") if "(" not in symbol else [symbol]
        for one in listed:
            if SYMBOL.fullmatch(one) and not one.endswith("_0"):  # of all that w_k stands for
                found.append(next(letters(one)))
    return list(dict.fromkeys(found))


OF_THE_BOOK = Counter(letter for row in rows("symbol") for letter in defined(row[0]))
OF_A_PAGE = {re.findall(r"\]\(([\w/-]+)\.md\)", row[0])[0]: defined(row[1]) for row in rows("page")}


def test_a_letter_has_one_meaning_in_the_book() -> None:
    assert [letter for letter, n in OF_THE_BOOK.items() if n > 1] == []
    assert len(OF_THE_BOOK) > 40


@pytest.mark.parametrize("page", OF_A_PAGE)
def test_a_letter_of_one_page_has_no_meaning_in_the_book_and_is_used_there(page: str) -> None:
    there = Page(ROOT / f"book/{page}.md")
    used = {letter for _, formula in formulas(there) for letter in letters(formula)}
    assert not OF_THE_BOOK.keys() & set(OF_A_PAGE[page])
    assert set(OF_A_PAGE[page]) <= used
    assert len(OF_A_PAGE[page]) == len(set(OF_A_PAGE[page]))


@pytest.mark.parametrize(
    "page", [page for page in LISTED_PAGES if page.path != NOTATION.path], ids=str
)
def test_each_letter_of_a_page_is_in_the_register(page: Page) -> None:
    name = page.path.relative_to(ROOT).with_suffix("").as_posix()
    name = ENGLISH.get(name, name).removeprefix("book/")
    speaks_of = OF_A_PAGE if name in ("notation", "theorems") else {name}
    known = set().union(OF_THE_BOOK, COUNTS, *(OF_A_PAGE.get(page, []) for page in speaks_of))
    unknown = {
        letter: f"{page}:{line}: ${formula.strip()}$"
        for line, formula in formulas(page)
        for letter in letters(formula)
        if letter not in known
    }
    assert not unknown, "\n".join(unknown.values())
