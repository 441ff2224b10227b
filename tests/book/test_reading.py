"""The book as its readers have it: in a browser, on a desk and on a phone, by day and by night.

The tests read a fresh build of the whole book. BOOK_SITE=_build/html lets them read one that is
there already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Response,
    ViewportSize,
    expect,
)

from tests.book.contents import CHAPTERS, LISTED, ROOT

GENERATED = ["genindex", "prf-prf", "search"]

STUMBLING_BLOCKS = (ROOT / "tests/book/reading.js").read_text(encoding="utf-8")
HIDDEN = """(elements) => elements.filter((element) => !element.checkVisibility({
    contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true,
}) || element.getBoundingClientRect().height === 0).map((element) => element.outerHTML)"""
AT_REST = """async () => {
    await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
    await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
}"""
AXE_OPTIONS = {
    "resultTypes": ["violations"],
    # axe-core would read the style sheets once more, and look for what they import beside the page.
    "preload": False,
    # Who speaks to a button says what is written on it; axe-core checks this on request only.
    "rules": {"label-content-name-mismatch": {"enabled": True}},
}


@dataclass(frozen=True)
class View:
    """How a page is looked at."""

    width: int = 1280
    colours: Literal["light", "dark"] = "light"
    access: str = "file"

    def __str__(self) -> str:
        return f"{self.width} {self.colours} {self.access}"


# A page is opened once for each of these, by day, and seen by night without being opened again.
OPENED = [View(width, "light", access) for width, access in product((1280, 390), ("file", "http"))]

# axe-core takes longer than all else. What surrounds the text is the same on all pages, and so is
# seen from all angles on one; the text itself is there at each width and in each colour.
ALL_ANGLES = [View(*angle, "http") for angle in product((1280, 390), ("light", "dark"))]
TWO_ANGLES = [View(1280, "light", "http"), View(390, "dark", "http")]


class Reader:
    """Somebody in front of a screen, without a network, who notes what goes wrong."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.address = address
        self.troubles: dict[str, list[str]] = {"request": [], "failure": [], "message": []}
        self.tab = context.new_page()
        self.tab.on("request", self.watch)
        self.tab.on("requestfailed", self.miss)
        self.tab.on("response", self.see)
        self.tab.on("console", self.hear)
        self.tab.on("pageerror", lambda error: self.note("message", str(error)))

    def note(self, kind: str, text: str) -> None:
        self.troubles[kind].append(text)

    def miss(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # as a page is left before its icon is there
            self.note("failure", request.url)

    def see(self, response: Response) -> None:
        if response.status >= 400:  # 304 tells that the page has it
            self.note("failure", f"{response.status} {response.url}")

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.note("message", message.text)

    def watch(self, request: Request) -> None:
        if not request.url.startswith((f"{self.address}/", "data:", "blob:")):
            self.note("request", request.url)

    def open(self, page: str) -> Page:
        self.tab.goto(f"{self.address}/{page}.html")
        return self.tab

    def let_night_fall(self) -> None:
        """Ask for dark colours, as a device does in the evening, and wait until they are there."""
        self.tab.emulate_media(color_scheme="dark")
        self.tab.wait_for_function("document.documentElement.dataset.theme === 'dark'")

    def on_paper(self) -> dict[str, list[str]]:
        """What a print of the open page would lack, and what it would give away."""
        self.tab.emulate_media(media="print")
        self.tab.evaluate(AT_REST)
        folded = self.tab.locator(
            "details:not(.hide, .solution, .solution *) > :not(summary), "
            ".toggle-hidden:not(.solution *) > p:not(.admonition-title)"
        )
        lacking: list[str] = folded.evaluate_all(HIDDEN)
        closed = self.tab.locator("details:is(.hide, .solution):visible").all_inner_texts()
        self.tab.emulate_media(media="screen")
        return {"folded on paper": lacking, "open on paper": closed}

    def stumbling_blocks(self) -> dict[str, list[str]]:
        """What is wrong with the open page, by kind, all its folds open."""
        found: dict[str, list[str]] = self.tab.evaluate(STUMBLING_BLOCKS)
        return found | {kind: list(texts) for kind, texts in self.troubles.items()}

    def barriers(self) -> tuple[list[str], int]:
        """What axe-core has against the open page, and how many of its rules applied."""
        result = Axe().run(self.tab, options=AXE_OPTIONS).response
        violations = [
            f"{violation['id']}: {node['html']}"
            for violation in result["violations"]
            for node in violation["nodes"]
        ]
        return violations, len(result["passes"]) + len(result["violations"])


@dataclass(frozen=True)
class Visit:
    """What one look at a page has shown."""

    view: View
    found: dict[str, list[str]]
    n_rules: int = 0


Reading = Callable[[View], AbstractContextManager[Reader]]
Places = Callable[[str], list[str]]


@contextmanager
def reader_of(browser: Browser, view: View, address: str) -> Iterator[Reader]:
    screen: ViewportSize = {"width": view.width, "height": 900}
    with browser.new_context(viewport=screen, color_scheme=view.colours) as context:
        yield Reader(context, address)


@pytest.fixture(scope="module")
def reading(browser: Browser, addresses: dict[str, str]) -> Reading:
    return lambda view: reader_of(browser, view, addresses[view.access])


@pytest.fixture(scope="module")
def visits(reading: Reading) -> Callable[[str], list[Visit]]:
    """Look at a page in all views, once for all tests."""

    def look(page: str, reader: Reader, view: View) -> Visit:
        found = reader.stumbling_blocks()
        if view not in (ALL_ANGLES if page == LISTED[0] else TWO_ANGLES):
            return Visit(view, found)
        found["barrier"], n_rules = reader.barriers()
        return Visit(view, found, n_rules)

    def visit(page: str) -> Iterator[Visit]:
        for view in OPENED:
            with reading(view) as reader:
                reader.open(page)
                on_paper = reader.on_paper()  # before all folds are opened
                by_day = look(page, reader, view)
                yield replace(by_day, found=by_day.found | on_paper)
                reader.let_night_fall()
                yield look(page, reader, replace(view, colours="dark"))

    return cache(lambda page: list(visit(page)))


@pytest.fixture
def found(page: str, visits: Callable[[str], list[Visit]]) -> Places:
    """Where a page has something of a kind, each place with its view."""
    return lambda kind: [
        f"{visit.view}: {place}" for visit in visits(page) for place in visit.found.get(kind, ())
    ]


each_page = pytest.mark.parametrize("page", [*LISTED, *GENERATED])
each_chapter = pytest.mark.parametrize("page", CHAPTERS)
each_access = pytest.mark.parametrize("access", ["file", "http"])


# The tests see


STUMBLING = """\
<html lang="en">
<title>Look out</title>
<main><article>
  <h1>Look out</h1>
  <p>A formula \\(x\\), <span class="math">y</span>, <mjx-merror>z</mjx-merror>, \
     <a href="x">x</a> a link.</p>
  <p style="overflow: hidden; width: 5em">
    <mjx-container style="display: inline-block; width: 6em">a + b</mjx-container>
  </p>
  <p style="width: 2000px">wide</p>
  <img src="missing.svg" alt="missing.svg">
  <img src="https://example.org/figure.svg" alt="">
  <button aria-label="Start">Stop</button>
</article></main>
"""


def test_whatever_a_reader_could_stumble_over_is_found(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(STUMBLING, encoding="utf-8")
    with reader_of(browser, View(), tmp_path.as_uri()) as reader:
        reader.open("page")
        counts = {kind: len(places) for kind, places in reader.stumbling_blocks().items()}
        barriers, _ = reader.barriers()
    assert counts == {
        "wider than the screen": 2,  # the page, and what makes it so
        "formula not typeset": 2,
        "formula in error": 1,
        "formula cut": 1,
        "picture without a description": 2,
        "request": 1,
        "failure": 2,
        "message": 2,
    }
    assert any(barrier.startswith("label-content-name-mismatch") for barrier in barriers)


def test_all_pages_of_the_site_are_read(site: Path) -> None:
    pages = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    sources = {page for page in pages if page.startswith(("_static/", "_modules/"))}
    assert pages - sources == {"index", *LISTED, *GENERATED}


# Every page, in all views


@each_page
def test_nothing_is_asked_of_the_network(found: Places) -> None:
    assert not found("request")


@each_page
def test_all_a_page_loads_is_there_and_nothing_complains(found: Places) -> None:
    assert not found("failure")
    assert not found("message")


@each_page
def test_all_formulas_are_typeset_and_whole(found: Places) -> None:
    assert not found("formula not typeset")
    assert not found("formula in error")
    assert not found("formula cut")


@each_page
def test_no_page_is_wider_than_the_screen(found: Places) -> None:
    assert not found("wider than the screen")


@each_page
def test_every_picture_says_what_it_shows(found: Places) -> None:
    assert not found("picture without a description")


@each_page
def test_axe_finds_no_barrier(
    page: str,
    visits: Callable[[str], list[Visit]],
    found: Places,
    record_property: Callable[[str, object], None],
) -> None:
    looks = [visit for visit in visits(page) if "barrier" in visit.found]
    counts = {
        f"{look.view.width} {look.view.colours}": f"{len(look.found['barrier'])} ({look.n_rules})"
        for look in looks
    }
    record_property("axe", (page, counts))
    assert len(looks) == (4 if page == LISTED[0] else 2)
    assert all(look.n_rules > 20 for look in looks)
    assert not found("barrier")


# From page to page


@each_access
def test_the_sites_address_leads_to_the_first_page(reading: Reading, access: str) -> None:
    with reading(View(access=access)) as reader:
        reader.open("index")
        reader.tab.wait_for_url(f"{reader.address}/{LISTED[0]}.html")
        expect(reader.tab.get_by_role("heading", level=1)).to_be_visible()
        assert not any(reader.troubles.values()), reader.troubles


# Folds


def press_tab_until_in(place: Locator) -> None:
    for _ in range(500):
        place.page.keyboard.press("Tab")
        if place.evaluate("(element) => element.contains(document.activeElement)"):
            return
    pytest.fail("Tab does not lead there")


@each_chapter
def test_folded_solutions_open_and_close_by_keyboard_alone(reading: Reading, page: str) -> None:
    with reading(View()) as reader:
        tab = reader.open(page)
        solutions = tab.locator(".solution").all()
        assert len(solutions) >= 3
        for solution in solutions:
            content = solution.locator("section")
            expect(content).to_be_hidden()
            press_tab_until_in(solution)
            tab.keyboard.press("Enter")
            expect(content).to_be_visible()
            tab.keyboard.press("Space")
            expect(content).to_be_hidden()


@each_page
def test_on_paper_nothing_is_folded_but_solutions_and_code(found: Places) -> None:
    assert not found("folded on paper")
    assert not found("open on paper")
