"""How a page writes the numbers that its cells have computed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.book.small_books import CELL, FRONT_MATTER, ROOT, build, make_book

sys.path.append(str(ROOT / "book/_ext"))
numbers = importlib.import_module("book_numbers")


@pytest.mark.parametrize(
    ("glued", "form", "shown"),
    [
        ("9340", "d", "9340"),
        ("9340", ",d", "9340"),
        ("9340", "", "9340"),
        ("12000", "d", "12,000"),
        ("12000", ",d", "12,000"),
        ("1234567", "_d", "1,234,567"),
        ("np.float64(2000.0)", ",.0f", "2000"),
        ("np.int64(99999)", "d", "99,999"),
        ("1680.5", ",.1f", "1680.5"),
        ("9999.96", ".1f", "10,000.0"),
        ("0.0000123", ".7f", "0.0000123"),
        ("123.4567", ".1%", "12,345.7%"),
        ("-12345", "d", "−12,345"),
        ("12345.6", "+.1f", "+12,345.6"),
    ],
)
def test_thousands_are_separated_from_five_digits_on_whatever_the_format_says(
    glued: str, form: str, shown: str
) -> None:
    assert numbers.format_plain_text(glued, form) == shown


@pytest.mark.parametrize(
    ("glued", "form", "shown"),
    [
        ("-0.43", ".1f", "−0.4"),
        ("6.9e-12", ".0e", "7·10⁻¹²"),
        ("1.37225e43", ".3e", "1.372·10⁴³"),
        ("1e-06", ".1e", "1.0·10⁻⁶"),
        ("1e-06", ".1E", "1.0·10⁻⁶"),
        ("-7e-05", ".0e", "−7·10⁻⁵"),
        ("7e83", "", "7·10⁸³"),
    ],
)
def test_a_minus_is_a_minus_and_a_power_of_ten_is_written_as_one(
    glued: str, form: str, shown: str
) -> None:
    assert numbers.format_plain_text(glued, form) == shown


@pytest.mark.parametrize(
    ("glued", "shown"),
    [
        ("'made'", "made"),
        ("'2026-11-24'", "2026-11-24"),
        ("'-20000'", "-20000"),
        ("np.str_('1e+05')", "1e+05"),
    ],
)
def test_a_glued_string_stays_what_it_is(glued: str, shown: str) -> None:
    assert numbers.format_plain_text(glued, "s") == shown


PAGE = FRONT_MATTER + CELL.format(
    source="""\
from myst_nb import glue

glue("tiny", -7e-18, display=False)
glue("many", 123456789, display=False)
glue("name", "well-known", display=False)"""
)
QUOTED = (
    "{glue:text}`narrow.md::tiny:.1e` or {glue:text}`narrow.md::many:d`, "
    "{glue:text}`narrow.md::name:s`, "
)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_book(tmp_path_factory.mktemp("numbers"), {"narrow": f"{PAGE}\n{QUOTED * 20}\n"})
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root / "_build/html/book/narrow.html"


LINES = """(width) => {
    document.querySelector("article").style.width = `${width}px`;
    return [...document.querySelectorAll(".pasted-text")].map((n) => n.getClientRects().length);
}"""


def test_no_line_ends_inside_what_a_cell_has_computed(narrow: Path, browser: Browser) -> None:
    with browser.new_page() as tab:
        tab.goto(narrow.as_uri())
        for width in range(200, 400, 7):
            lines = tab.evaluate(LINES, width)
            assert len(lines) == 60
            assert set(lines) == {1}, width
