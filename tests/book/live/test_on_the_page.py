"""Live figures where they stand: on the pages of the built book, as files on a disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.book.contents import LISTED

CHAPTER, LANDING = "book/without-shuffling", "book/index"
OTHERS = ("gradient-descent", "torch-optim", "sum-of-losses")
PAGES = [CHAPTER, LANDING, *(f"book/{page}" for page in OTHERS)]
READOUT = ".live-readout"
Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Open]:
    """Open a page of the book from the disk; nothing in it may go wrong."""
    errors: list[Error] = []
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:

        def visit_page(page: str, address: str = "") -> Page:
            tab = context.new_page()
            tab.on("pageerror", lambda error: errors.append(error))
            tab.goto((site / f"{page}.html").as_uri() + address)
            return tab

        yield visit_page
    assert not errors


def scripts(site: Path, page: str) -> list[Path]:
    """The files of its live figures that a page loads."""
    html = site / f"{page}.html"
    sources = re.findall(r'"([^"?]*/live/[\w-]+\.(?:js|css))', html.read_text(encoding="utf-8"))
    return [(html.parent / source).resolve() for source in sources]


def test_a_page_loads_the_scripts_of_its_own_live_figures_and_no_others(site: Path) -> None:
    for page in LISTED:
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        shown = set(re.findall(r'data-live="(\w+)"', html))
        loaded = {path.stem for path in scripts(site, page)}
        assert shown <= loaded and bool(shown) == bool(loaded) == (page in PAGES), page


def test_the_live_figures_of_a_page_weigh_at_most_60_kb(site: Path) -> None:
    weights = {page: sum(path.stat().st_size for path in scripts(site, page)) for page in LISTED}
    assert max(weights.values()) < 60_000, weights
    assert weights[CHAPTER] > 20_000, weights


@pytest.mark.parametrize("page", PAGES)
def test_every_control_of_a_live_figure_is_named(visit: Open, page: str) -> None:
    figure = visit(page).locator(".live")
    expect(figure).to_be_visible()
    controls = figure.locator("input, select, button")
    for control in controls.all():
        snapshot = control.aria_snapshot() if control.is_visible() else 'as "hidden"'
        assert re.search(r'"[^"]+"', snapshot), snapshot
    assert controls.count() > 2


def test_by_keyboard_alone_one_steps_through_the_epoch(visit: Open) -> None:
    tab = visit(CHAPTER)
    tab.get_by_role("slider", name="Step", exact=True).focus()
    expect(tab.locator(READOUT)).to_contain_text("After epoch 48 (sorted)")
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator(READOUT)).to_contain_text("After step 199 of epoch 48")
    expect(tab.locator(".live [role=status]")).to_contain_text("After step 199")


def test_an_address_leads_to_a_state_and_shows_it(visit: Open) -> None:
    tab = visit(CHAPTER, "#order=strided&epoch=2&step=7")
    expect(tab.locator(READOUT)).to_contain_text("After step 7 of epoch 2 (strided)")
    expect(tab.locator(".live-stage")).to_be_in_viewport()


def test_the_small_copy_takes_the_static_figures_place_and_leads_to_the_whole(visit: Open) -> None:
    tab = visit(LANDING)
    expect(tab.locator("#fig-index")).to_be_hidden()
    expect(tab.locator(".live svg")).to_have_count(2)
    tab.get_by_role("link", name="all controls").click()
    tab.wait_for_url("**/without-shuffling.html#live-epoch")
    expect(tab.locator(".live svg")).to_have_count(3)
    expect(tab.locator(".live-title")).to_be_in_viewport()


def test_on_paper_the_static_figure_stands_and_no_live_one(visit: Open) -> None:
    tab = visit(LANDING)
    tab.emulate_media(media="print")
    expect(tab.locator("#fig-index img")).to_be_visible()
    expect(tab.locator(".live")).to_be_hidden()


def test_without_scripts_the_static_figure_stands_and_no_live_one(
    browser: Browser, site: Path
) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        for page, figure in ((LANDING, "fig-index"), (CHAPTER, "fig-unshuffled-symptom")):
            tab = context.new_page()
            tab.goto((site / f"{page}.html").as_uri())
            expect(tab.locator(f"#{figure} img")).to_be_visible()
            expect(tab.locator(".live")).to_be_hidden()


@pytest.mark.parametrize("page", PAGES)
def test_on_a_phone_the_panels_stand_below_each_other(visit: Open, page: str) -> None:
    tab = visit(page)
    tab.set_viewport_size({"width": 390, "height": 844})
    boxes = [box for svg in tab.locator(".live svg").all() if (box := svg.bounding_box())]
    assert len({round(box["x"]) for box in boxes}) == 1
    assert all(box["width"] > 340 for box in boxes)
