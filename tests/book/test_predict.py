"""Predictions: made with the keyboard, remembered, and said again at the answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.book.contents import CHAPTERS
from tests.book.small_books import FRONT_MATTER, build, make_book

ASKED = f"""{FRONT_MATTER}
## Predict: which?

- (a) This one.
- (b) That one.

## Read
"""


@pytest.fixture(scope="module")
def page(browser: Browser, site: Path) -> Page:
    tab = browser.new_page()
    tab.goto((site / "book/mini-batches.html").as_uri())
    return tab


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_question_has_its_answer_below_it(site: Path, chapter: str) -> None:
    html = (site / f"{chapter}.html").read_text(encoding="utf-8")
    asked = [found.start() for found in re.finditer(r'<ul class="choices', html)]
    given = [found.start() for found in re.finditer(r'<p class="answer" id="answer-\d"', html)]
    assert len(asked) == len(given) > 0
    assert max(asked) < min(given)


def test_a_question_without_an_answer_is_a_warning(tmp_path: Path) -> None:
    make_book(tmp_path, {"measured": ASKED})
    result = build(tmp_path)
    assert result.returncode
    assert "1 questions to predict, but 0 answers in bold" in result.stdout


def test_a_prediction_is_remembered_and_said_again_at_the_answer(page: Page) -> None:
    group = page.get_by_role("group", name=re.compile("Two in place of ten"))
    assert group.get_by_role("radio").count() == 3
    said = page.locator("#answer-2").locator("xpath=preceding-sibling::*[1]")
    expect(said).to_be_hidden()
    group.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowDown")
    expect(group.get_by_role("status")).to_contain_text("Noted")
    page.reload()
    expect(group.get_by_role("radio", checked=True)).to_have_accessible_name("(b) About ten.")
    expect(said).to_have_text("You said (b) About ten.")
    other = page.get_by_role("group", name=re.compile("The threshold"))
    expect(other.get_by_role("radio", checked=True)).to_have_count(0)


def test_without_scripts_the_choices_are_a_plain_list(browser: Browser, site: Path) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        tab = context.new_page()
        tab.goto((site / "book/mini-batches.html").as_uri())
        expect(tab.locator("ul.choices").first.get_by_role("listitem")).to_have_count(3)
        expect(tab.get_by_role("radio")).to_have_count(0)


def test_a_formula_in_a_choice_has_its_width(browser: Browser, site: Path) -> None:
    with browser.new_context() as context:
        tab = context.new_page()
        tab.goto((site / "book/fitting-problem.html").as_uri())
        formula = tab.locator("fieldset.choices mjx-container").first
        formula.scroll_into_view_if_needed()
        box = formula.bounding_box()
        assert box is not None and box["width"] > 10
