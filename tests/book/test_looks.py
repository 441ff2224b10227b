"""How the pages look, on a desk, on a phone and on paper: lines, tables, figures, folds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route

from tests.book.contents import CHAPTERS, ROOT

sys.path.append(str(ROOT / "book/_ext"))
book_tables = importlib.import_module("book_tables")

INDEX, NOTATION, WHICH_NUMBER = "book/index", "book/notation", "book/which-number"
OWN_LOOP = "book/own-loop"
SCROLLING = ".pst-scrollable-table-container, .output.text_html"

Look = Callable[..., Page]


@pytest.fixture(scope="module")
def look(browser: Browser, site: Path) -> Iterator[Look]:
    """Open a page, its formulas typeset, at a width and in a colour."""
    opened = []

    def open_page(
        page: str, width: int = 1280, colours: Literal["light", "dark"] = "light"
    ) -> Page:
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours)
        opened.append(tab)
        tab.goto(f"{site.as_uri()}/{page}.html")
        tab.evaluate("window.MathJax?.startup?.promise")
        return tab

    yield open_page
    for tab in opened:
        tab.close()


# Text


LETTERS = r"""() => {
  const letters = [];
  const range = document.createRange();
  for (const paragraph of document.querySelectorAll("article p")) {
    const elsewhere = paragraph.closest("table, figcaption, li, dd, .admonition");
    if (elsewhere || paragraph.querySelector("mjx-container")) continue;
    const lines = [];
    let top = -Infinity;
    const texts = document.createTreeWalker(paragraph, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      for (const word of texts.currentNode.data.matchAll(/\S+\s*/g)) {
        range.setStart(texts.currentNode, word.index);
        range.setEnd(texts.currentNode, word.index + word[0].trimEnd().length);
        const box = range.getBoundingClientRect();
        if (box.top > top + 12) [top] = [box.top, lines.push(0)];
        lines[lines.length - 1] += word[0].length;
      }
    }
    letters.push(...lines.slice(0, -1));
  }
  return letters;
}"""


@pytest.mark.parametrize("page", [INDEX, *CHAPTERS])
def test_a_full_line_has_sixty_to_eighty_letters(look: Look, page: str) -> None:
    letters = look(page).evaluate(LETTERS)
    assert len(letters) > 10
    low, middle, high = np.quantile(letters, [0.1, 0.5, 0.95])
    assert 60 <= low <= middle <= high <= 82, (low, middle, high)


SPACES = """() => [...document.querySelectorAll("article div.math")]
  .filter((math) => math.checkVisibility({ visibilityProperty: true }))
  .map((math) => [math.previousElementSibling, math, math.nextElementSibling])
  .filter(([before, _, after]) => before?.localName === "p" && after?.localName === "p")
  .map(([before, math, after]) => {
    const formula = math.querySelector("mjx-math").getBoundingClientRect();
    const above = formula.top - before.getBoundingClientRect().bottom;
    return [above, after.getBoundingClientRect().top - formula.bottom];
  })"""


@pytest.mark.parametrize("width", [1280, 390])
def test_there_is_as_much_space_above_a_formula_as_below(look: Look, width: int) -> None:
    spaces = np.array(look("book/without-shuffling", width).evaluate(SPACES))
    assert len(spaces) > 3
    np.testing.assert_allclose(spaces[:, 0], spaces[:, 1], atol=2)
    assert (spaces > 10).all()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_links_have_one_colour(look: Look, colours: Literal["light", "dark"]) -> None:
    pages = [INDEX, WHICH_NUMBER, "book/theorems", "book/bibliography", "genindex"]
    colour = "(links) => links.map((link) => getComputedStyle(link).color)"
    links = [look(page, colours=colours).locator("article a:not(.headerlink)") for page in pages]
    found = [set(on_page.evaluate_all(colour)) for on_page in links]
    assert all(found)
    assert len(set().union(*found)) == 1


# Tables


def scroll_room(places: Locator) -> list[int]:
    """By how many pixels each of some places scrolls sideways."""
    room: list[int] = places.evaluate_all("(all) => all.map((e) => e.scrollWidth - e.clientWidth)")
    return room


@pytest.mark.parametrize("page", [INDEX, NOTATION, WHICH_NUMBER, "book/theorems"])
def test_on_a_phone_no_table_of_sentences_scrolls(look: Look, page: str) -> None:
    room = scroll_room(look(page, 390).locator(".pst-scrollable-table-container"))
    assert room and max(room) == 0


def test_a_table_of_three_short_columns_fits_a_phone(look: Look) -> None:
    for page in ("book/fitting-problem", "book/gradient-descent", "book/further/decreasing-steps"):
        room = scroll_room(look(page, 390).locator(".pst-scrollable-table-container"))
        assert room and max(room) == 0, page


CARDS = """(rows) => rows.map((row) => [...row.cells].map((cell) =>
    getComputedStyle(cell, "::before").content.split("/")[0].replaceAll('"', "").trim()))"""


def test_on_a_phone_a_row_is_a_card_whose_cells_tell_their_columns(look: Look) -> None:
    rows = "table.stacked tbody tr"
    on_desk = look(INDEX).locator(rows).evaluate_all(CARDS)
    tab = look(INDEX, 390)
    on_phone = tab.locator(rows).evaluate_all(CARDS)
    assert on_desk == [["none"] * 3] * 6
    assert on_phone == [["none", "the short answer", "where"]] * 6
    cells = tab.locator(f"{rows}:first-child td").all()
    tops = [box["y"] for cell in cells if (box := cell.bounding_box())]
    assert tops == sorted(tops) and len(set(tops)) == 3


def test_an_empty_cell_of_a_card_takes_no_room(look: Look) -> None:
    tab = look("book/further/which-number-is-steadier", 390)
    group = tab.locator("table.stacked tbody tr", has_text="Stop at the first rise")
    heights = group.locator("td").evaluate_all("(all) => all.map((e) => e.offsetHeight)")
    assert heights[0] > 0 and heights[1:] == [0, 0]


def roles(tab: Page) -> dict[str, int]:
    """How many parts of tables Chromium tells a screen reader of, by role."""
    tree = tab.context.new_cdp_session(tab).send("Accessibility.getFullAXTree")
    found = [node["role"]["value"] for node in tree["nodes"] if not node["ignored"]]
    return {role: found.count(role) for role in ("table", "row", "columnheader", "cell")}


def test_a_screen_reader_finds_the_same_table_on_a_phone(look: Look) -> None:
    assert roles(look(INDEX)) == {"table": 1, "row": 7, "columnheader": 3, "cell": 18}
    assert roles(look(INDEX, 390)) == roles(look(INDEX))


@pytest.mark.parametrize("page", ["book/further/how-late", "book/without-shuffling", OWN_LOOP])
def test_a_table_that_scrolls_keeps_its_first_column_in_view(look: Look, page: str) -> None:
    tab = look(page, 390)
    places = [place for place in tab.locator(SCROLLING).all() if scroll_room(place)[0]]
    assert places
    for place in places:
        place.evaluate("(element) => element.scrollLeft = 1000")
        assert place.evaluate("(element) => element.scrollLeft") > 0
        first = place.locator("tbody tr:first-child > :first-child")
        left = first.evaluate("(cell) => cell.getBoundingClientRect().left")
        edge = place.evaluate(
            "(e) => e.getBoundingClientRect().left + parseFloat(getComputedStyle(e).paddingLeft)"
        )
        assert left <= edge + 1
        assert "rgba" not in first.evaluate("(cell) => getComputedStyle(cell).backgroundColor")


def edge_of(place: Locator, scrolled: int) -> float:
    """The mean light of the right edge of what scrolls, scrolled so far."""
    place.evaluate("(element, to) => element.scrollTo(to, 0)", scrolled)
    picture = Image.open(BytesIO(place.screenshot())).convert("L")
    return float(np.asarray(picture)[2:-2, -2:].mean())


@pytest.mark.parametrize("place", ["table", ".cell_input pre"])
def test_where_something_scrolls_a_shadow_tells_until_its_end(look: Look, place: str) -> None:
    tab = look("book/without-shuffling", 390)
    selector = ".pst-scrollable-table-container" if place == "table" else place
    wide = [found for found in tab.locator(selector).all() if scroll_room(found)[0] > 20]
    wide = [found for found in wide if found.is_visible()]
    assert wide
    assert edge_of(wide[0], 0) < edge_of(wide[0], 10_000) - 20


def test_numbers_of_a_data_frame_stand_below_their_heads_without_stubs(look: Look) -> None:
    tables = look(OWN_LOOP).locator("table.dataframe")
    assert tables.count() >= 2
    for table in tables.all():
        assert table.locator("thead tr").count() == 1
        cells = table.locator("tr > :not(:first-child)")
        aligned = cells.evaluate_all("(all) => all.map((e) => getComputedStyle(e).textAlign)")
        assert set(aligned) == {"right"}
        parts = table.locator("thead th, thead tr")
        rules = parts.evaluate_all("(all) => all.map((e) => getComputedStyle(e).borderBottom)")
        assert len(set(rules) - {"0px none rgb(0, 0, 0)"}) <= 2  # heads have one, rows have none
        assert all(head.inner_text().strip() for head in table.locator("thead th").all())


PANDAS = """<table border="1" class="dataframe">
  <thead>
    <tr style="text-align: right;">
      <td></td>
      <th>loss</th>
    </tr>
    <tr>
      <th>step</th>
      <td></td>
    </tr>
  </thead>
"""


def test_the_name_of_a_data_frames_index_stands_in_line_with_the_others() -> None:
    mended = book_tables.mend_tables(PANDAS)
    assert mended.count("<tr") == 1
    assert "<th>step</th>\n      <th>loss</th>" in mended


def rows(*cells: tuple[str, ...]) -> str:
    head, *body = [[f"<td><p>{cell}</p></td>" for cell in row] for row in cells]
    heads = "".join(head).replace("td>", "th>")
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in body)
    head_and_body = f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody>"
    return f'<table class="table">{head_and_body}</table>'


SENTENCE = "the loss of all samples at fixed weights"


@pytest.mark.parametrize(
    ("table", "stacked"),
    [
        (rows(("a", "b", "c"), ("x", SENTENCE, "y")), True),
        (rows(("a", "b", "c"), (SENTENCE, "1.5", "2.5")), False),
        (rows(("a", "b"), ("x", SENTENCE)), False),
        (rows(("a", r"\(b\)", "c"), ("x", SENTENCE, "y")), False),
        (rows(("a", "b", "c"), ("x", r"\(\frac{\lVert\nabla F\rVert}{\lambda_1}\)", "y")), False),
    ],
    ids=["sentences", "a long name", "two columns", "a formula as a head", "a short formula"],
)
def test_only_tables_of_sentences_become_cards(table: str, stacked: bool) -> None:
    mended = book_tables.mend_tables(table)
    assert ('class="table stacked"' in mended) == stacked
    assert (mended != table) == stacked


def test_a_label_is_escaped_and_an_empty_cell_has_none() -> None:
    table = rows(("a", "b &lt; &quot;c&quot;", "d"), ("x", SENTENCE, ""))
    mended = book_tables.mend_tables(table)
    assert mended.count("data-label=") == 1
    assert 'data-label="b &lt; &quot;c&quot;"' in mended


# What cells print


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("epoch  8: loss 1.79\nepoch  9: loss 0.69", True),
        ("[[1. 2.]\n [3. 4.]\n [5. 6.]]", True),
        ("running loss:  0.1\nglobal loss:   0.2", True),
        ("right: it prints 26, and the model has 3", False),
        ("epoch 1: printed 15, global loss 102.9\nepoch 2: printed 4, global loss 62.6", False),
        ("one line  with a gap", False),
    ],
)
def test_printed_columns_are_told_from_printed_sentences(text: str, columns: bool) -> None:
    assert book_tables.in_columns(text) == columns


@pytest.mark.parametrize("width", [1280, 390])
def test_what_a_cell_says_is_never_cut_and_its_columns_never_broken(look: Look, width: int) -> None:
    for page in ("book/mini-batches", OWN_LOOP, "book/worksheet"):
        tab = look(page, width)
        said = tab.locator(".output.stream:not(.in-columns) pre")
        assert said.count() > 3
        assert max(scroll_room(said)) == 0
        space = "(all) => all.map((e) => getComputedStyle(e).whiteSpace)"
        assert set(tab.locator(".output.in-columns pre").evaluate_all(space)) == {"pre"}


# Figures


@pytest.mark.parametrize("page", [INDEX, *CHAPTERS])
def test_every_figure_tells_its_size(look: Look, page: str) -> None:
    sizes = (
        look(page)
        .locator("article figure img:visible")  # a live one takes the place of the landing page's
        .evaluate_all(
            """(all) => all.map((image) => [
            image.getAttribute("width") / image.getAttribute("height"),
            image.naturalWidth / image.naturalHeight,
            image.clientWidth / image.clientHeight])"""
        )
    )
    assert sizes or page == INDEX
    for told, drawn, shown in sizes:
        assert told == pytest.approx(drawn, rel=0.01)
        assert shown == pytest.approx(drawn, rel=0.01)


@pytest.mark.parametrize("width", [1280, 390])
def test_figures_that_come_late_move_nothing(browser: Browser, site: Path, width: int) -> None:
    heights = "(all) => all.map((figure) => figure.offsetHeight)"
    late: list[Route] = []
    with browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark") as tab:
        tab.route("**/_images/*.svg", lambda route: late.append(route))
        tab.goto(f"{site.as_uri()}/book/torch-optim.html", wait_until="domcontentloaded")
        tab.evaluate("window.MathJax.startup.promise")
        figures = tab.locator("article figure")
        before = figures.evaluate_all(heights)
        assert len(late) == len(before) > 2
        for route in late:
            route.continue_()
        tab.wait_for_load_state("load")
        # A page tells sizes in whole pixels.
        assert figures.evaluate_all(heights) == pytest.approx(before, abs=1)


# On paper


@contextmanager
def on_paper(tab: Page) -> Iterator[None]:
    tab.emulate_media(media="print")
    yield
    tab.emulate_media(media="screen")


@pytest.mark.parametrize("page", ["book/without-shuffling", WHICH_NUMBER])
def test_a_page_printed_alone_shows_code_only_of_folds_that_were_opened(
    look: Look, page: str
) -> None:
    tab = look(page)
    folds = tab.locator("details.hide")
    assert folds.count() > 1
    with on_paper(tab):
        assert folds.evaluate_all("(all) => all.map((e) => e.offsetHeight)") == [0] * folds.count()
    folds.first.locator("summary").click()
    with on_paper(tab):
        assert folds.first.locator("pre").is_visible()
        assert not folds.nth(1).is_visible()


def test_a_page_printed_alone_shows_its_proofs(look: Look) -> None:
    tab = look("book/without-shuffling")
    proofs = tab.locator(".toggle-hidden > p:not(.admonition-title)")
    assert proofs.count() > 1
    heights = "(all) => all.map((e) => e.offsetHeight)"
    assert set(proofs.evaluate_all(heights)) == {0}
    with on_paper(tab):
        assert min(proofs.evaluate_all(heights)) > 10
        assert not tab.locator(".toggle-button").first.is_visible()


def test_lines_on_paper_are_as_long_as_on_the_screen(look: Look) -> None:
    tab = look("book/without-shuffling", 665)  # what A4 leaves between its margins
    with on_paper(tab):
        letters = tab.evaluate(LETTERS)
    assert 60 <= np.median(letters) <= 82
