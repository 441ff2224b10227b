import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypdf
import pytest

from book._ext.book_names import EDITIONS, PDF
from tests.book.contents import LISTED, ROOT
from tests.book.markup import Page
from tests.book.small_books import (
    CELL,
    FIGURE,
    FRONT_MATTER,
    MEASURE,
    build,
    make_book,
    write_package,
)

FOLDED = (
    CELL.format(source=":tags: [hide-input]\n\nfolded = VALUE\nprint('unfolded', folded)")
    + """
:::{admonition} A hint
:class: dropdown

It was under a fold.
:::
"""
)
WIDE = r"""
# A page that is too wide

{numref}`fig-line` is in [the other chapter](measured.md), and {prf:ref}`thm-line`, too.

$$
F(w) = a_1 + a_2 + a_3 + a_4 + a_5 + a_6 + a_7 + a_8 + a_9 + a_{10} + a_{11} + a_{12} + a_{13}
+ a_{14} + a_{15} + a_{16} + a_{17} + a_{18} + a_{19} + a_{20} + a_{21} + a_{22} + a_{23}
$$

```python
print("a line of code that is far too long for a page of paper", "and goes on", "until here: LAST")
```
"""
PAGES = {
    "index": FRONT_MATTER.replace("# A measured page", "# A book")
    + "\nMeasured {glue:text}`measured.md::value:d`.\n\n```{bibliography}\n```\n"
    + CELL.format(source="print('executed')"),
    "measured": FRONT_MATTER + MEASURE + FIGURE + FOLDED,
    "wide": WIDE,
}


@dataclass(frozen=True)
class Printed:
    site: Path
    output: str
    pdf: Any  # pypdf.PdfReader
    text: str
    words: str  # the same, without the ends of lines


def print_book(root: Path) -> Printed:
    environment = {name: value for name, value in os.environ.items() if "BOOK_" not in name}
    result = subprocess.run(
        [sys.executable, ROOT / "book/print.py", root],
        env=environment | {"PYTHONPATH": str(root), "SOURCE_DATE_EPOCH": "1700000000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("printed: ") == len(EDITIONS)
    return read(root / "_build/html", result.stdout)


def read(site: Path, output: str = "", name: str = PDF) -> Printed:
    pdf = pypdf.PdfReader(site / name)
    text = "\n".join(page.extract_text() for page in pdf.pages)
    return Printed(site, output, pdf, text, " ".join(text.split()))


@pytest.fixture(scope="module")
def printed(browser_program: str, tmp_path_factory: pytest.TempPathFactory) -> Printed:
    root = make_book(tmp_path_factory.mktemp("printed"), PAGES)
    result = build(root)
    assert result.returncode == 0, result.stdout
    return print_book(root)


def headings(pdf: Any) -> Iterator[tuple[str, int]]:
    """Yield the chapters' titles, and the pages they begin on, counted from one."""
    for entry in pdf.outline:
        if not isinstance(entry, list):
            yield entry.title.strip(), pdf.get_destination_page_number(entry) + 1


def dead_links(pdf: Any) -> list[str]:
    known, dead = set(pdf.named_destinations), []
    for page in pdf.pages:
        for note in page.get("/Annots") or ():
            action = note.get_object().get("/A", {})
            target = note.get_object().get("/Dest") or action.get("/D")
            address = action.get("/URI", "")
            if isinstance(target, str) and target not in known:
                dead.append(target)
            if address and not address.startswith("https://"):
                dead.append(address)
    return dead


def test_printing_executes_nothing_again(printed: Printed) -> None:
    assert "0 added, 0 changed, 0 removed" in printed.output


def test_every_chapter_is_in_the_outline_and_begins_a_page(printed: Printed) -> None:
    found = dict(headings(printed.pdf))
    assert list(found) == ["A book", "A measured page", "A page that is too wide"]
    assert list(found.values()) == [3, 4, 5]
    assert len(printed.pdf.pages) == 5


def test_the_contents_tell_the_page_of_each_chapter(printed: Printed) -> None:
    contents = printed.pdf.pages[1].extract_text()
    for title, page in headings(printed.pdf):
        assert re.search(rf"{title}\s*{page}\b", contents), contents
        assert f"\n{page}\n" in printed.pdf.pages[page - 1].extract_text()


def test_what_is_folded_on_the_screen_is_printed(printed: Printed) -> None:
    for text in ("folded = VALUE", "unfolded 41", "It was under a fold."):
        assert text in printed.words
    assert "Show code" not in printed.words


def test_the_book_to_hand_out_has_no_solution(printed: Printed) -> None:
    assert "Exercise 1 (With code)" in printed.words
    assert "Solution" not in printed.words and "solved 41" not in printed.words


def test_the_solutions_are_a_file_of_their_own_each_below_its_exercise(printed: Printed) -> None:
    solutions = read(printed.site, name=EDITIONS["solutions"])
    assert [title for title, _ in headings(solutions.pdf)] == ["A measured page"]
    exercise, _, solution = solutions.words.partition("Draw Fig. 1 and Theorem 1.")
    assert "Solutions The sgd_analysis contributors" in exercise
    assert "Exercise 1 (With code)" in exercise and "Solution" in solution
    assert "solved 41" in solution and "measured 41" not in solutions.words
    assert not dead_links(solutions.pdf)


def test_references_are_resolved_and_lead_somewhere(printed: Printed) -> None:
    assert "Fig. 1 is in the other chapter, and Theorem 1, too." in printed.words
    assert "undefined" not in printed.words
    assert not dead_links(printed.pdf)


def test_long_lines_of_code_and_mathematics_stay_on_the_paper(printed: Printed) -> None:
    page = printed.pdf.pages[-1]
    width, places = float(page.mediabox.width), []

    def visit(text: str, user: list[float], matrix: list[float], *_: object) -> None:
        if text.strip():
            places.append(user[4] + user[0] * matrix[4])

    text = page.extract_text(visitor_text=visit)
    assert "LAST" in text
    assert len(places) > 50
    assert max(places) < width


def test_the_file_has_tags_for_screen_readers(printed: Printed) -> None:
    catalog = printed.pdf.trailer["/Root"]
    assert catalog["/MarkInfo"]["/Marked"]
    assert catalog["/Lang"] == "en"
    assert printed.pdf.metadata.title == "Stochastic gradient descent, measured"


def test_a_rebuild_removes_the_file_of_the_book_as_it_was(printed: Printed) -> None:
    root = printed.site.parents[1]
    assert all((printed.site / name).exists() for name in EDITIONS.values())
    write_package(root, value=42)
    result = build(root)
    assert result.returncode == 0, result.stdout
    assert not [name for name in EDITIONS.values() if (printed.site / name).exists()]


# The whole book


@pytest.fixture(scope="module")
def whole(browser_program: str, site: Path) -> Printed:
    """The whole book's PDF: the one beside its HTML, or else printed from it."""
    if not (site / PDF).exists():
        if not (site.parents[1] / "_config.yml").exists():
            pytest.skip(f"there are no pages of the book that was built to {site}")
        return print_book(site.parents[1])
    return read(site)


def test_the_printed_book_has_every_page_of_the_contents(whole: Printed) -> None:
    sources = [(ROOT / f"{page}.md").read_text(encoding="utf-8") for page in LISTED]
    titles = [re.search(r"^# (.+)$", source, re.M)[1].replace("`", "") for source in sources]  # type: ignore[index]
    printed = [re.sub(r"^\d+\. ", "", title) for title, _ in headings(whole.pdf)]
    assert printed == titles


def test_the_printed_solutions_are_those_of_all_exercises(whole: Printed) -> None:
    text = read(whole.site, name=EDITIONS["solutions"]).text
    pages = [Page(ROOT / f"{page}.md") for page in LISTED]
    n_exercises = sum(len(page.named("exercise")) for page in pages)
    n_solutions = sum(len(page.named("solution", "solution-start")) for page in pages)
    assert len(re.findall(r"^Exerci[cs]e \d", text, re.M)) == n_exercises > 30
    assert len(re.findall(r"^Solution$", text, re.M)) == n_solutions


def test_the_printed_book_is_as_long_as_a_book_and_has_no_empty_page(whole: Printed) -> None:
    assert 120 < len(whole.pdf.pages) < 360
    texts = [page.extract_text().strip() for page in whole.pdf.pages]
    assert not [number for number, text in enumerate(texts, 1) if len(text) < 80]


def test_the_printed_book_says_nothing_unresolved(whole: Printed) -> None:
    assert not dead_links(whole.pdf)
    text = whole.words.replace("{glue:text}`gradient-descent.md::epochs:d` becomes", "")  # quoted
    for trace in ("undefined", "???", "{glue:", "Show code cell", "\\begin{"):
        assert trace not in text
