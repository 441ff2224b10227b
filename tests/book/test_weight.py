import importlib
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser

from book._ext.book_names import EDITIONS
from tests.book.contents import LISTED, ROOT
from tests.book.small_books import BIBLIOGRAPHY, build, make_book, site_pages

sys.path.append(str(ROOT / "book/_ext"))
book_weight = importlib.import_module("book_weight")

MEGABYTE = 10**6
DRAWING = """\
<?xml version="1.0" encoding="utf-8" standalone="no"?>
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="446.4pt" viewBox="0 0 446.4 266.4">
 <metadata>
  <about>Matplotlib</about>
 </metadata>
 <g id="text_1">
  <!-- 0 -->
  <g transform="translate(50.642739 242.275619) scale(0.13 -0.13)">
   <path id="glyph" d="M 2034 4250
Q 1547 4250 -0.001234 3770
" transform="scale(0.015625)"/>
   <use xlink:href="#glyph" transform="translate(63.615723 0.753906)"/>
   <use xlink:href="#glyph" x="54.778364" y="-225.398666" style="fill: none; opacity: 0.123456"/>
  </g>
 </g>
</svg>
"""
MATHS = r"""
# Mathematics

```{bibliography}
```

$\cancel{x} + \color{red}{y}$, $\mathfrak{F}$, $\mathcal{L}$, $\boldsymbol{w}$ and $\ce{H2O}$

$$
\begin{aligned}
\mathbb{E}\, F(w) &= \bigl\lVert \nabla F \bigr\rVert^2 \\
\mathtt{w} &= \mathsf{w}
\end{aligned}
$$ (eq-fonts)
"""


# A figure


def numbers(drawing: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", drawing)]


def test_a_shorter_figure_draws_the_same_to_a_tenth_of_a_point() -> None:
    needless = r'<metadata>.*?</metadata>|<!--.*?-->| id="text_1"'
    plain = re.sub(needless, "", DRAWING, flags=re.S).replace("xlink:href", "href")
    plain = re.sub(r'transform="translate\((\S+) (\S+)\)"/', r'x="\1" y="\2"/', plain)
    tidied = book_weight.tidy_svg(DRAWING)
    assert len(tidied) < 0.8 * len(DRAWING)
    assert numbers(tidied) == pytest.approx(numbers(plain), abs=0.05)
    for old, new in zip(
        ElementTree.fromstring(plain).iter(), ElementTree.fromstring(tidied).iter(), strict=True
    ):
        assert (old.tag, old.attrib.keys()) == (new.tag, new.attrib.keys())


def test_only_coordinates_are_rounded() -> None:
    tidied = book_weight.tidy_svg(DRAWING)
    assert 'x="54.8" y="-225.4"' in tidied
    assert "translate(50.6 242.3) scale(0.13 -0.13)" in tidied
    assert 'd="M2034 4250Q1547 4250 0 3770"' in tidied
    for kept in ("scale(0.015625)", "fill: none;opacity: 0.123456", 'viewBox="0 0 446.4 266.4"'):
        assert kept in tidied


def test_a_short_figure_is_left_as_it_is() -> None:
    tidied = book_weight.tidy_svg(DRAWING)
    assert book_weight.tidy_svg(tidied) == tidied


# What is left out


def test_a_file_is_kept_that_a_page_names_or_a_style_that_a_page_names(tmp_path: Path) -> None:
    texts = {
        "page.html": '<link href="_static/a.css">',
        "_static/a.css": "url(b.woff2), url(b.ttf), url(c.svg)",
        "_static/b.woff2": "",
        "_static/b.ttf": "",
        "_static/c.svg": "d.svg",
        "_static/d.svg": "",
        "_static/a.css.map": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    kept = {path.name for path in book_weight.loaded(tmp_path)}
    assert kept == {"a.css", "b.woff2", "c.svg"}


@pytest.fixture(scope="module")
def maths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book of one page that uses what MathJax loads on demand."""
    root = make_book(tmp_path_factory.mktemp("maths"), {"index": MATHS})
    (root / "book/references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root


def test_the_site_around_the_pages_is_light(maths: Path) -> None:
    static = maths / "_build/html/_static"
    assert weight(static) < 3.5 * MEGABYTE
    assert not list(static.rglob("*.map"))
    for folder in ("locales", "mathjax/sre", "mathjax/a11y", "mathjax/output/svg"):
        assert not (static / folder).exists()


def test_the_first_file_of_every_font_is_there(maths: Path) -> None:
    styles = list((maths / "_build/html/_static").rglob("*.css"))
    assert len(styles) > 5
    for style in styles:
        for source in re.findall(r"src:url\(([^)]+)\)", style.read_text(encoding="utf-8")):
            assert (style.parent / source).exists(), source


def test_icons_are_not_drawn_twice(maths: Path) -> None:
    for page in site_pages(maths):
        assert "fontawesome.js" not in page.read_text(encoding="utf-8"), page.name


@pytest.fixture(scope="module")
def opened(maths: Path, browser: Browser) -> dict[str, Any]:
    """The page as Chromium shows it, after a click with the right button on a formula."""
    failed: list[str] = []
    with browser.new_page() as page:
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.goto((maths / "_build/html/book/index.html").as_uri())
        page.evaluate("() => MathJax.startup.promise")
        page.hover("mjx-container")
        page.click("mjx-container", button="right")
        page.evaluate(
            "() => new Promise((shown) => requestAnimationFrame(() => setTimeout(shown)))"
        )
        count = "selector => document.querySelectorAll(selector).length"
        selectors = ("mjx-container", "mjx-merror", "mjx-assistive-mml math", "[tabindex] mjx-math")
        return {selector: page.evaluate(count, selector) for selector in selectors} | {
            "failed": failed,
            "menus": page.evaluate(count, ".CtxtMenu_MenuFrame"),
        }


def test_nothing_that_mathjax_asks_for_is_missing(opened: dict[str, Any]) -> None:
    assert not opened["failed"]
    assert opened["mjx-container"] >= 6
    assert not opened["mjx-merror"]


def test_screen_readers_get_every_formula(opened: dict[str, Any]) -> None:
    assert opened["mjx-assistive-mml math"] == opened["mjx-container"]


def test_no_menu_offers_what_is_left_out(opened: dict[str, Any]) -> None:
    assert not opened["menus"]
    assert not opened["[tabindex] mjx-math"]  # a stop on the way for whoever uses the keyboard


# The whole book


def weight(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def own_files(site: Path, page: str) -> set[Path]:
    """A page, its pictures and the notebooks that it offers."""
    html = site / f"{page}.html"
    pictures = r'<(?:img|source) [^>]*src(?:set)?="([^"]+)"'
    sources = re.findall(pictures, html.read_text(encoding="utf-8"))
    files = {(html.parent / source).resolve() for source in sources}
    notebooks = (site / "_sources" / f"{page}{suffix}.ipynb" for suffix in ("", "-solved"))
    return {html.resolve(), *files, *(path.resolve() for path in notebooks if path.exists())}


def test_a_page_with_its_figures_and_its_notebooks_is_under_a_megabyte_and_a_half(
    site: Path,
) -> None:
    weights = {page: sum(f.stat().st_size for f in own_files(site, page)) for page in LISTED}
    assert max(weights.values()) < 1.5 * MEGABYTE, weights
    assert max(weights.values()) > 0.3 * MEGABYTE, weights  # the figures are counted


def test_the_whole_site_is_under_twenty_two_megabytes(site: Path) -> None:
    """Twenty for the book in English, and two for what it says again in French."""
    on_paper = [site / name for name in EDITIONS.values()]  # the same once more, if it was printed
    printed = sum(path.stat().st_size for path in on_paper if path.exists())
    assert weight(site) - printed < 22 * MEGABYTE
    assert printed < 6 * MEGABYTE
