"""Some pages of the book in Firefox: it lays out, loads and complains by rules of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.book.firefox import Tab, firefox
from tests.book.test_reading import STUMBLING, Reader, View

PAGES = [
    "book/index",
    "book/gradient-descent",
    "book/without-shuffling",
    "book/which-number",
    "book/worksheet",
    "book/api",
    "search",
]
VIEWS = [View(1280, "light", "http"), View(390, "dark", "file")]


class FirefoxReader(Reader):
    """Sees what the reader in Chromium sees."""

    def __init__(self, tab: Tab, address: str) -> None:
        self.address, self.tab = address, tab

    def open(self, page: str) -> None:
        self.troubles = {"request": [], "failure": [], "message": []}
        self.tab.goto("about:blank")
        self.tab.events.clear()
        self.tab.goto(f"{self.address}/{page}.html")

    def stumbling_blocks(self) -> dict[str, list[str]]:
        found = super().stumbling_blocks()
        for event in self.tab.events:
            self.take(event["method"], event["params"])
        return found | self.troubles

    def take(self, method: str, event: dict[str, Any]) -> None:
        if method == "log.entryAdded":
            if event["level"] in ("error", "warn"):
                self.note("message", event["text"])
            return
        address = event["request"]["url"]
        if method == "network.beforeRequestSent":
            if not address.startswith((self.address, "data:", "blob:")):
                self.note("request", address)
        elif method == "network.fetchError" or event["response"]["status"] >= 400:
            self.note("failure", address)


@pytest.fixture(scope="module", params=VIEWS, ids=str)
def view(request: pytest.FixtureRequest) -> View:
    return request.param


@pytest.fixture(scope="module")
def tab(
    view: View, firefox_program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tab]:
    profile = tmp_path_factory.mktemp("firefox")
    with firefox(firefox_program, profile, view.colours, view.width) as tab:
        yield tab


def test_firefox_finds_whatever_a_reader_could_stumble_over(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(STUMBLING, encoding="utf-8")
    reader = FirefoxReader(tab, tmp_path.as_uri())
    reader.open("page")
    found = reader.stumbling_blocks()
    assert {kind for kind, places in found.items() if not places} <= {"message"}
    barriers, _ = reader.barriers()
    assert any(barrier.startswith("label-content-name-mismatch") for barrier in barriers)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_in_firefox(
    page: str, view: View, tab: Tab, addresses: dict[str, str]
) -> None:
    reader = FirefoxReader(tab, addresses[view.access])
    reader.open(page)
    found = reader.stumbling_blocks()
    found["barrier"], n_rules = reader.barriers()
    assert {kind: places for kind, places in found.items() if places} == {}
    assert n_rules > 20
    assert tab.evaluate("[innerWidth, document.documentElement.dataset.theme]") == [
        view.width,
        view.colours,
    ]
