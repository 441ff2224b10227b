"""What a reader looks for is found: the search, and the sidebar that leads to it.

As the tests that read, these take the whole book: BOOK_SITE=_build/html is one that is there.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from book._ext.french_words import FOLDER
from tests.book.contents import CASEBOOK, LISTED, NUMBERED, ROOT
from tests.book.test_reading import Reader, View, reader_of

sys.path.append(str(ROOT / "book/_ext"))
book_search = importlib.import_module("book_search")

each_access = pytest.mark.parametrize("access", ["file", "http"])

# A page, as the search reads it

PAGE = """\
<html lang="fr">
<meta name="description" content="About steps."><meta name="keywords" content="learning rate">
<article>
<section id="top"><h1><span class="section-number">7. </span>A title</h1>
  <p>It takes <span class="pasted-text">9,340</span> epochs of <span class="math">\\(N\\)</span> or
  <span class="math">\\(\\lVert w \\rVert\\)</span>.</p>
  <div class="math">\\[ x = \\frac12 \\]</div>
  <div class="cell"><pre><span>import</span> <span>torch</span></pre></div>
  <section id="below"><h2>Below</h2><ul><li>One</li><li>two</li></ul></section>
</section>
<dl class="py function"><dt class="sig" id="sgd_analysis.train">train(x)</dt><dd>Train.</dd></dl>
</article>
"""


def test_the_index_holds_prose_by_section_and_the_words_of_code_apart() -> None:
    assert book_search.page_entry("a.html", PAGE) == {
        "address": "a.html",
        "language": "fr",
        "number": "7. ",
        "about": "About steps.",
        "keywords": "learning rate",
        "sections": [
            ["top", "A title", "It takes 9,340 epochs of N or ….", "import torch"],
            ["below", "Below", "One two", ""],
            ["sgd_analysis.train", "train", "Train.", "train x"],
        ],
    }


# Queries


class Searcher(Reader):
    """A reader on the page to search on."""

    def search_for(self, words: str) -> Locator:
        """The links to pages that a search leads to."""
        self.tab.goto(f"{self.address}/search.html?q={quote_plus(words)}")
        self.tab.get_by_text("Search finished").wait_for()
        return self.tab.locator("#search-results li > a")

    def pages_for(self, words: str) -> list[str]:
        links = self.search_for(words)
        addresses = links.evaluate_all("(links) => links.map((a) => a.getAttribute('href'))")
        return [address.removesuffix(".html") for address in addresses]

    def ranked(self, words: str) -> list[tuple[str, float]]:
        """The addresses of pages, with their scores, on the page to search on."""
        found = "(words) => find(words).pages.map(({ address, score }) => [address, score])"
        return [(address, score) for address, score in self.tab.evaluate(found, words)]


@pytest.fixture(scope="module")
def searchers(browser: Browser, addresses: dict[str, str]) -> Iterator[Callable[[str], Searcher]]:
    contexts = []

    @cache
    def searcher(access: str) -> Searcher:
        contexts.append(browser.new_context())
        searcher = Searcher(contexts[-1], addresses[access])
        searcher.open("search")
        return searcher

    yield searcher
    for context in contexts:
        context.close()


FIRST = {
    "why is my epoch loss not my loss": "book/sum-of-losses",
    "9340": "book/gradient-descent",
    "shuffle=False": "book/without-shuffling",
    "grad norm": "book/gradient-norm",
    "RMSprop 23": "book/torch-optim",
    "triangle inequality": "book/sum-of-losses",
    "last batch": "book/further/printed-and-evaluated",
    "dropout": "book/further/printed-and-evaluated",
    "learning rate": "book/gradient-descent",
    "stairs": CASEBOOK,
}


@each_access
@pytest.mark.parametrize("words", FIRST)
def test_a_query_leads_to_the_right_page_first(
    words: str, access: str, searchers: Callable[[str], Searcher]
) -> None:
    searcher = searchers(access)
    assert searcher.pages_for(words)[0] == FIRST[words]
    assert not any(searcher.troubles.values()), searcher.troubles


SYMPTOMS = [
    *("stairs", "staircase", "memorise", "overfit", "worker", "token", "padding"),
    *("accumulation", "AMP", "resume", "spike"),
]


@pytest.mark.parametrize("word", SYMPTOMS)
def test_a_symptom_leads_to_the_casebook(word: str, searchers: Callable[[str], Searcher]) -> None:
    numbered = [page for page in searchers("file").pages_for(word) if page in NUMBERED]
    assert CASEBOOK in numbered[:3]


IN_FRENCH = ["mélanger", "mélange", "époque", "epoques", "coût", "couts", "coût courant", "graine"]
IN_FRENCH += ["taille du pas", "inégalité triangulaire", "est-ce grave", "règle d’arrêt", "lissé"]


@pytest.mark.parametrize("words", IN_FRENCH)
def test_french_words_lead_to_a_french_page(
    words: str, searchers: Callable[[str], Searcher]
) -> None:
    links = searchers("file").search_for(words)
    first = links.first
    assert str(first.get_attribute("href")).startswith(FOLDER)
    assert first.evaluate("(link) => link.closest('[lang]').lang") == "fr"


@pytest.fixture
def searcher(searchers: Callable[[str], Searcher]) -> Searcher:
    """Somebody on the page to search on, from a folder."""
    searcher = searchers("file")
    searcher.open("search")
    return searcher


def test_the_exact_title_of_a_page_leads_to_it_first(searcher: Searcher) -> None:
    titles: dict[str, str] = searcher.tab.evaluate(
        "() => Object.fromEntries(PAGES.map((page) => [page.address, page.sections[0].heading]))"
    )
    assert set(titles) == {f"{page}.html" for page in LISTED}
    assert {page: searcher.ranked(title)[0][0] for page, title in titles.items()} == {
        page: page for page in titles
    }


def test_the_name_of_a_function_leads_to_its_documentation(searcher: Searcher) -> None:
    for name in ("record_all", "last_batch_loss_below", "Survey.lateness"):
        links = searcher.search_for(name)
        assert links.first.get_attribute("href") == "book/api.html"
        best = searcher.tab.locator("#search-results li").first.locator("p.context a").first
        assert best.get_attribute("href") == f"book/api.html#sgd_analysis.{name}"


def test_results_stand_in_the_order_of_their_scores(searcher: Searcher) -> None:
    shown = searcher.pages_for("gradient norm")
    ranked = searcher.ranked("gradient norm")
    assert shown == [address.removesuffix(".html") for address, _ in ranked]
    scores = [score for _, score in ranked]
    assert len(scores) > 5
    assert scores == sorted(scores, reverse=True)
    assert shown != sorted(shown)


def test_a_number_is_found_with_and_without_its_comma(searcher: Searcher) -> None:
    assert searcher.tab.evaluate("() => stemmed('12,000 or 0.1')") == ["12000", "or", "0.1"]
    addresses = [address for address, _ in searcher.ranked("9,340")]
    assert addresses == [address for address, _ in searcher.ranked("9340")]
    in_english = [address for address in addresses if not address.startswith(FOLDER)]
    assert "book/notes-on-the-source.html" in in_english[:3]


def test_accents_and_capitals_make_no_difference(searcher: Searcher) -> None:
    stems = "(words) => stemmed(words)"
    assert searcher.tab.evaluate(stems, "Époque ÉPOQUE époque epoque") == ["epoqu"] * 4


def test_what_no_page_holds_is_said_not_to_be_there(searcher: Searcher) -> None:
    assert searcher.search_for("xylophone").count() == 0
    expect(searcher.tab.get_by_role("status")).to_have_text(
        "Search finished: no page holds these words."
    )


@each_access
def test_results_show_prose_that_holds_the_words_and_neither_imports_nor_tex(
    access: str, searchers: Callable[[str], Searcher]
) -> None:
    for words in FIRST:
        searcher = searchers(access)
        searcher.search_for(words)
        first = searcher.tab.locator("#search-results li").first.locator("p.context").first
        assert len(first.inner_text()) > 40, words
        assert first.locator("mark").count() > 0, words
        for text in searcher.tab.locator("#search-results p.context").all_inner_texts():
            assert not re.search(r"\\|^import |\bimport (torch|numpy)", text), text


def test_a_result_leads_to_the_section_that_it_quotes(searcher: Searcher) -> None:
    searcher.search_for("triangle inequality")
    name = "Means add up; the triangle inequality is about norms"
    searcher.tab.get_by_role("link", name=name).click()
    searcher.tab.wait_for_url("**/book/sum-of-losses.html#means-add-up*")
    expect(searcher.tab.get_by_role("heading", name=name)).to_be_in_viewport()


@each_access
def test_whoever_searches_from_a_chapter_comes_to_the_results(
    access: str, browser: Browser, addresses: dict[str, str]
) -> None:
    with reader_of(browser, View(access=access), addresses[access]) as reader:
        tab = reader.open("book/further/how-late")
        tab.keyboard.press("Control+k")
        tab.get_by_role("dialog").get_by_role("searchbox").fill("stairs")
        tab.keyboard.press("Enter")
        tab.get_by_text("Search finished").wait_for()
        tab.locator("#search-results li > a").first.click()
        tab.wait_for_url("**/book/casebook.html")
        assert not any(reader.troubles.values()), reader.troubles


def test_only_the_page_to_search_on_loads_the_index(site: Path) -> None:
    scripts = re.compile(r'<script [^>]*src="[^"]*search[^"]*"')
    loading = {page: scripts.findall((site / f"{page}.html").read_text()) for page in LISTED}
    assert not any(loading.values())
    assert len(scripts.findall((site / "search.html").read_text())) == 2
    assert not (site / "searchindex.js").exists()


# Field and sidebar


def left_of_text(field: Locator) -> float:
    return float(
        field.evaluate(
            "(f) => f.getBoundingClientRect().left + parseFloat(getComputedStyle(f).paddingLeft)"
        )
    )


def right_of(icon: Locator) -> float:
    return float(icon.evaluate("(icon) => icon.getBoundingClientRect().right"))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("place", ["page", "dialog"])
def test_the_magnifier_stands_before_the_words(
    place: str, width: int, browser: Browser, addresses: dict[str, str]
) -> None:
    with reader_of(browser, View(width), addresses["file"]) as reader:
        if place == "page":
            form = reader.open("search").get_by_role("main").locator("form.bd-search")
        else:
            tab = reader.open(LISTED[0])
            tab.keyboard.press("Control+k")
            form = tab.get_by_role("dialog").locator("form.bd-search")
        icon, field = form.locator(".fa-magnifying-glass"), form.get_by_role("searchbox")
        expect(icon).to_be_visible()
        assert right_of(icon) < left_of_text(field)


LATE = ["book/gradient-norm", "book/casebook", "book/further/recorded-gradients", "book/api"]


LOGO, SEARCH = ".bd-sidebar-primary .navbar-brand", ".bd-sidebar-primary .search-button__button"


def assert_in_view(tab: Page, *parts: str) -> None:
    """They are seen, whole, with nothing on top of them."""
    for part in (tab.locator(f"{selector}:visible") for selector in parts):
        expect(part).to_be_in_viewport(ratio=1)
        assert part.evaluate(
            """(part) => {
                const { x, y, width, height } = part.getBoundingClientRect();
                return part.contains(document.elementFromPoint(x + width / 2, y + height / 2));
            }"""
        )


@pytest.mark.parametrize("page", LATE)
def test_logo_and_search_are_in_view_on_a_late_page(
    page: str, browser: Browser, addresses: dict[str, str]
) -> None:
    with reader_of(browser, View(1280), addresses["file"]) as reader:
        tab = reader.open(page)
        sidebar = tab.locator(".bd-sidebar-primary")
        assert sidebar.evaluate("(bar) => bar.scrollTop") > 0  # it has scrolled to the present page
        assert_in_view(tab, LOGO, SEARCH)
        header = tab.locator(".sidebar-header").evaluate("(h) => h.getBoundingClientRect().bottom")
        present = sidebar.locator(".bd-links a.current")
        expect(present).to_be_in_viewport(ratio=1)
        assert present.evaluate("(link) => link.getBoundingClientRect().top") >= header
        sidebar.evaluate("(bar) => bar.scrollTo(0, bar.scrollHeight)")
        assert_in_view(tab, LOGO, SEARCH)


def test_on_a_phone_the_logo_stays_in_view_in_the_drawer_and_the_search_on_the_page(
    browser: Browser, addresses: dict[str, str]
) -> None:
    with reader_of(browser, View(390), addresses["file"]) as reader:
        tab = reader.open(LATE[0])
        tab.mouse.wheel(0, 5000)
        tab.wait_for_function("scrollY > 2000")
        assert_in_view(tab, ".bd-header-article .search-button__button")
        tab.locator(".primary-toggle:visible").click()
        drawer = tab.locator("#pst-primary-sidebar-modal")
        expect(drawer).to_be_visible()
        assert_in_view(tab, LOGO)
        drawer.evaluate("(drawer) => drawer.scrollTo(0, drawer.scrollHeight)")
        assert drawer.evaluate("(drawer) => drawer.scrollTop") > 0
        assert_in_view(tab, LOGO)
