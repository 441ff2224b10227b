"""The French pages say what the English ones say today, and as French is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from book._ext.french_words import FOLDER
from tests.book import french, french_checks
from tests.book.contents import LISTED, ROOT
from tests.book.markup import Page
from tests.book.page_checks import numbers_in_english

Check = Callable[[Page], Iterator[str]]
FRENCH = [Page(ROOT / f"{page}.md") for page in LISTED if page.startswith(FOLDER)]
WHOLE = ("feuille-de-travail", "notes-sur-le-notebook")  # the others choose what they say
TWINS = [page for page in FRENCH if page.path.stem in WHOLE]


def of_each(pages: list[Page], checks: list[Check]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(page, check, id=f"{page.path.stem}-{check.__name__}")
        for page in pages
        for check in checks
    ]
    return pytest.mark.parametrize(("page", "check"), cases)


@of_each(FRENCH, french_checks.OF_A_FRENCH_PAGE)
def test_a_french_page(page: Page, check: Check) -> None:
    if found := [*check(page)]:
        pytest.fail("\n".join(found), pytrace=False)


@of_each(TWINS, french_checks.OF_A_TWIN)
def test_a_french_page_with_an_english_twin(page: Page, check: Check) -> None:
    if found := [*check(page)]:
        pytest.fail("\n".join(found), pytrace=False)


# The pieces of a page

CELL = """\
```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-a
    caption: |
      **It falls.**
  image:
    alt: "A line."
---
x = 1  # the start

y = 2
```
"""
PAGE = f"""\
---
myst:
  html_meta:
    description: About.
---

(start)=
# A title

Words, and $x$.
More words.

$$
x = y
$$ (eq-a)

:::{{exercise}} With a pencil
:label: ex-a

Draw it.
:::

{CELL}
```{{code-cell}} ipython3
:tags: [remove-cell]

glue("x", 1)
```

- one
- two
"""


def test_a_page_is_read_piece_by_piece_each_with_its_words_alone() -> None:
    pieces = [(piece.line, piece.text) for piece in french.pieces(PAGE)]
    assert pieces == [
        (7, "# A title"),
        (10, "Words, and $x$.\nMore words."),
        (17, "With a pencil"),
        (20, "Draw it."),
        (23, "**It falls.**\n\nA line.\n# the start"),
        (44, "- one\n- two"),
    ]


def test_a_digest_changes_with_the_words_and_not_with_the_lines() -> None:
    assert french.digest("a b\nc") == french.digest("a  b c") != french.digest("a b d")
    assert len(french.digest("a")) == 8


# Two pages, of which the French one is wrong in one thing

ENGLISH = (
    PAGE.replace("Words", "By {cite:t}`k2000`, {glue:text}`worksheet.md::x:d` words")
    .replace("More", "{numref}`fig-a`, [more](theorems.md)")
    .replace("x = 1 ", 'print(f"loss {1:.1f}", plot(xlabel="a", order="cyclic")) ')
)
IN_FRENCH = {
    "worksheet.md": "feuille-de-travail.md",
    "(theorems": "(../theorems",
    "words, and": "mots, et",
    "fig-a": "fig-a-fr",
    "ex-a": "ex-a-fr",
    "eq-a": "eq-a-fr",
    "loss {": "coût {",
    '"a", order': '"b", ylabel="c", order',
    "# the start": "# le départ",
    "Draw it.": "Tracez-le\u202f!",
}
Twins = tuple[Page, Page]


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twins:
    """A page, and the same with its sources named and a few words in French."""
    for module in ("contents", "french", "french_checks", "markup"):
        monkeypatch.setattr(f"tests.book.{module}.ROOT", tmp_path)
    pages = [tmp_path / f"book/{name}.md" for name in ("worksheet", "fr/feuille-de-travail")]
    pages[1].parent.mkdir(parents=True)
    pages[0].write_text(ENGLISH, encoding="utf-8")
    text = ENGLISH
    for english, translated in IN_FRENCH.items():
        assert english in text
        text = text.replace(english, translated)
    lines, there = text.split("\n"), [*french.pieces(ENGLISH)]
    for piece, source in reversed([*zip(french.pieces(text), there, strict=True)]):
        line = f"% de book/worksheet.md {french.digest(source.text)}"
        lines.insert(piece.line - 1, line)
    pages[1].write_text("\n".join(lines), encoding="utf-8")
    return Page(pages[0]), Page(pages[1])


def edited(page: Page, old: str, new: str) -> Page:
    assert page.text.count(old) == 1, old
    page.path.write_text(page.text.replace(old, new), encoding="utf-8")
    return Page(page.path)


def complaints(page: Page) -> list[str]:
    checks = [*french_checks.OF_A_FRENCH_PAGE, *french_checks.OF_A_TWIN]
    return [complaint for check in checks for complaint in check(page)]


def test_a_page_that_says_the_same_in_french_is_right(twins: Twins) -> None:
    assert complaints(twins[1]) == []


def test_what_was_written_from_other_english_is_named_with_what_stands_there_now(
    twins: Twins,
) -> None:
    english, page = twins
    edited(english, "Draw it.", "Draw it twice.")
    assert complaints(page) == [
        "book/fr/feuille-de-travail.md:24 is older than book/worksheet.md:20: write what it says "
        f"now, and above it % de book/worksheet.md {french.digest('Draw it twice.')}"
    ]


def test_what_was_written_from_a_page_that_is_gone_is_named(twins: Twins) -> None:
    page = edited(twins[1], "\n- one", "\n% de book/gone.md 00000000\n- one")
    assert complaints(page)[0].endswith("was written from book/gone.md, which is not there")


def test_english_that_no_french_piece_stands_for_is_named(twins: Twins) -> None:
    edited(twins[0], "- one", "New words.\n\n- one")
    assert complaints(twins[1]) == [
        "book/fr/feuille-de-travail.md says nothing of book/worksheet.md:44 at its place: "
        "“New words.”"
    ]


def test_two_pieces_in_another_order_are_named(twins: Twins) -> None:
    source = f"% de book/worksheet.md {french.digest('Draw it.')}"
    moved = edited(twins[1], f"{source}\nTracez-le\u202f!\n", "")
    found = complaints(edited(moved, "\n- two", f"\n- two\n\n{source}\nTracez-le\u202f!"))
    assert any("says nothing of book/worksheet.md:20 at its place" in line for line in found)
    assert any("in another order, or twice" in line for line in found)


def test_a_french_piece_without_a_source_is_named_and_a_piece_in_two_halves_is_not(
    twins: Twins,
) -> None:
    source = f"% de book/worksheet.md {french.digest('Draw it.')}"
    page = edited(twins[1], "Tracez-le", f"Voici.\n\n{source}\nTracez-le")
    assert complaints(page) == []
    (complaint,) = complaints(edited(page, f"\n\n{source}\nTracez-le", "\n\nTracez-le"))
    assert complaint.startswith("book/fr/feuille-de-travail.md:26 has no line % de book/worksheet")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{1:.1f}", "{2:.1f}"),
        ('order="cyclic"', 'order="reshuffle"'),
        ('glue("x"', 'glue("z"'),
        ("y = 2", "y = 2\nassert y"),
        ("[remove-cell]", "[hide-cell]"),
        ('```{code-cell} ipython3\n:tags: [remove-cell]\n\nglue("x", 1)\n```\n', ""),
    ],
)
def test_a_cell_that_does_something_else_is_named(twins: Twins, old: str, new: str) -> None:
    (complaint,) = french_checks.other_cells(edited(twins[1], old, new))
    assert "book/worksheet.md" in complaint


@pytest.mark.parametrize(
    ("old", "lacks"),
    [
        ("{glue:text}`feuille-de-travail.md::x:d`", "book/worksheet::x"),
        ("{numref}`fig-a-fr`", "fig-a"),
        ("{cite:t}`k2000`", "k2000"),
        ("[more](../theorems.md)", "book/theorems"),
        ("    name: fig-a-fr\n", "fig-a"),
        (" (eq-a-fr)", "eq-a"),
    ],
)
def test_a_number_a_figure_or_a_link_that_is_lost_is_named(
    twins: Twins, old: str, lacks: str
) -> None:
    found = list(french_checks.lost(edited(twins[1], old, "")))
    assert found == [f"book/fr/feuille-de-travail.md lacks {lacks}, which book/worksheet.md has"]


# Typography


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("Pourquoi ?", "Pourquoi\u202f?"),
        ("Pourquoi?", "**Pourquoi\u202f?!**"),
        ("deux; trois", "deux\u202f; trois"),
        ("Observez\u202f: ceci", "**Observez\u00a0:** ceci"),
        ("« oui »", "«\u202foui\u202f»"),
        ('le mot "oui"', "le mot «\u202fdit “oui”\u202f»"),
        ("0.3 au plus", "0,3 au plus, avec `lr=0.3`"),
        ("12 000 pas", "12\u202f000 pas"),
        ("12000 pas", "2000 pas"),
        ("85 % des pas", "85\u202f% des pas"),
        ("le pas $0.5$", "le pas $0{,}5$"),
    ],
)
def test_what_french_typography_writes_otherwise_is_named(
    tmp_path: Path, wrong: str, right: str
) -> None:
    page = tmp_path / "fr/page.md"
    page.parent.mkdir()
    for text, n_wrong in ((wrong, 1), (right, 0)):
        page.write_text(f"# Un titre\n\n:::{{note}}\n:class: a\n{text}\n:::\n", encoding="utf-8")
        assert len(list(french_checks.badly_set(Page(page)))) == n_wrong, text


def test_a_french_number_is_compared_with_what_the_source_notebook_says() -> None:
    assert numbers_in_english("0,3 et 10\u202f000, 2000") == "0.3 et 10,000, 2000"
