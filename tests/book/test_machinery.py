import json
import os
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import matplotlib
import pytest

from book._ext import book_claims
from tests.book.small_books import (
    CELL,
    FRONT_MATTER,
    PAGES,
    ROOT,
    build,
    digests,
    html,
    make_book,
    run,
    site_pages,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_book(tmp_path_factory.mktemp("built"), PAGES)
    result = build(root)
    assert result.returncode == 0, result.stdout
    assert "WARNING" not in result.stdout
    return root


def test_a_page_and_a_page_without_code_show_the_same_measured_number(built: Path) -> None:
    assert '<span class="pasted-text">41</span>' in html(built, "measured")
    assert '<span class="pasted-text">41</span>' in html(built, "index")


def test_a_numpy_scalar_can_be_glued_and_its_power_of_ten_is_written_as_one(built: Path) -> None:
    assert '<span class="pasted-text">3.0·10⁻⁷</span>' in html(built, "quoting")


def test_a_figure_is_an_svg_with_alt_text_and_a_numbered_caption(built: Path) -> None:
    figure = re.search(r'<figure[^>]*id="fig-line".*?</figure>', html(built, "measured"), re.S)
    assert figure
    assert re.search(r'<img alt="A rising line." src="[^"]*\.svg"', figure[0])
    assert "caption-number" in figure[0]


def test_figures_take_the_books_style(built: Path) -> None:
    drawings = (built / "_build/html/_images").glob("*.svg")
    (figure,) = (path for path in drawings if not path.name.endswith("-narrow.svg"))
    drawing = figure.read_text(encoding="utf-8")
    style = matplotlib.rc_params_from_file(ROOT / "book/matplotlibrc", use_default_template=False)
    width, height = (f"{72 * inches:g}" for inches in style["figure.figsize"])
    assert f'viewBox="0 0 {width} {height}"' in drawing
    assert style["axes.prop_cycle"].by_key()["color"][0].lower() in drawing
    assert "<dc:date>" not in drawing


def test_a_folded_solution_is_executed(built: Path) -> None:
    solution = re.search(r'<details class="solution.*?</details>', html(built, "measured"), re.S)
    assert solution
    assert "solved 41" in solution[0]
    assert '<summary class="admonition-title">Solution</summary>' in solution[0]


def test_a_claim_says_of_what_kind_it_is(built: Path) -> None:
    found = re.search(
        r'<span class="claim" title="(.*?)">measured, cited</span>', html(built, "quoting")
    )
    assert found and found[1].startswith("measured: cells of this book measure it")


def test_a_claim_of_no_known_kind_is_an_error() -> None:
    inliner = Mock()
    book_claims.claim("claim", "{claim}`proved`", "theorem, proved", 7, inliner)
    (message,) = inliner.reporter.error.call_args.args
    assert message.endswith("heuristic, cited in {claim}`proved`, got proved")


def test_a_table_is_a_region_that_says_where_it_stands(built: Path) -> None:
    tables = re.findall(
        r'<div class="pst-scrollable-table-container"[^>]*>', html(built, "quoting")
    )
    names = ["Another page", "Another page (2)", "Below"]
    for table, name in zip(tables, names, strict=True):
        assert f'tabindex="0" role="region" aria-label="Table: {name}"' in table


def test_a_page_tells_search_engines_and_link_previews_what_it_is(built: Path) -> None:
    page = html(built, "quoting")
    assert "<title>Another page &#8212; Stochastic gradient descent, measured</title>" in page
    assert '<meta content="Quotes a number." name="description" />' in page
    assert '<meta property="og:title" content="Another page" />' in page
    assert '<meta property="og:description" content="Quotes a number." />' in page
    assert (
        '<meta property="og:site_name" content="Stochastic gradient descent, measured" />' in page
    )


def test_addresses_are_given_only_where_the_site_has_one(built: Path, tmp_path: Path) -> None:
    for page in site_pages(built):
        assert not re.search(r"og:(?:url|image)|canonical", page.read_text(encoding="utf-8"))
    root = make_book(tmp_path / "published", {"quoted": "# A page\n"})
    assert build(root, {"BOOK_SITE_URL": "https://book.example/path"}).returncode == 0
    page = html(root, "quoted")
    assert '<meta property="og:url" content="https://book.example/path/book/quoted.html" />' in page
    image = re.search(r'property="og:image" content="https://book.example/path/(.*?)"', page)
    assert image
    picture = (root / "_build/html" / image[1]).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert "<title>A page</title>" in page  # of the root: not the book's title once more


def test_no_page_loads_anything_from_the_network(built: Path) -> None:
    assert len(site_pages(built)) > 4
    loading = re.compile(
        r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*"
    )
    for page in site_pages(built):
        assert not loading.findall(page.read_text(encoding="utf-8")), page.name


def test_every_local_file_a_page_loads_is_there(built: Path) -> None:
    loading = re.compile(
        r"<(?:script|link|img|source)\b[^>]*\b(?:src(?:set)?|href)=\"(?!data:)([^\"#?]+)"
    )
    for page in site_pages(built):
        for address in loading.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / address).exists(), (page.name, address)


def test_mathematics_is_typeset_without_the_network(built: Path) -> None:
    page = html(built, "index")
    assert "_static/mathjax/tex-chtml.js" in page
    assert (built / "_build/html/_static/mathjax/tex-chtml.js").exists()


def test_a_line_does_not_break_between_a_formula_and_its_full_stop(built: Path) -> None:
    formula = r'<span class="math notranslate nohighlight">\(x^2\)</span>'
    assert f'<span class="unbroken">{formula}.</span>' in html(built, "index")


def test_pages_carry_no_code_for_a_live_kernel(built: Path) -> None:
    assert "thebe" not in html(built, "measured").lower()


def test_the_executed_notebook_can_be_downloaded(built: Path) -> None:
    notebook = built / "_build/html/_sources/book/measured-solved.ipynb"
    assert "measured 41" in notebook.read_text(encoding="utf-8")
    assert "_sources/book/measured-solved.ipynb" in html(built, "measured")


def test_two_clean_builds_are_byte_identical(built: Path, tmp_path: Path) -> None:
    other = make_book(tmp_path / "elsewhere", PAGES)
    assert build(other).returncode == 0
    assert digests(other) == digests(built)


def waiting_page(own: str, other: str) -> str:
    """Ends only if the other page's kernel is there at the same time."""
    source = f"""\
import time
from pathlib import Path

Path("{own}.begun").touch()
while not Path("{other}.begun").exists():
    time.sleep(0.05)
print("met", "the other")"""
    return FRONT_MATTER + CELL.format(source=source)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor executes page after page")
def test_pages_are_executed_side_by_side(tmp_path: Path) -> None:
    pages = {"first": waiting_page("first", "second"), "second": waiting_page("second", "first")}
    root = make_book(tmp_path / "meeting", pages)
    result = build(root)
    assert result.returncode == 0, result.stdout
    assert "met the other" in html(root, "first")
    assert "met the other" in html(root, "second")


def test_what_a_cell_prints_bit_by_bit_is_one_output(tmp_path: Path) -> None:
    source = (
        "import time\n\nfor i in range(4):\n    time.sleep(0.2)\n    print('line', i, flush=True)"
    )
    root = make_book(tmp_path / "printing", {"printing": FRONT_MATTER + CELL.format(source=source)})
    assert build(root).returncode == 0
    path = root / "_build/html/_sources/book/printing.ipynb"
    (*_, cell) = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (output,) = cell["outputs"]
    assert "".join(output["text"]) == "line 0\nline 1\nline 2\nline 3\n"


TYPED = """\
from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def double(x: ArrayLike | None) -> NDArray[np.float64]:
    \"\"\"Double a number.\"\"\"
"""


def test_a_signature_reads_as_it_is_written(tmp_path: Path) -> None:
    page = "# A book\n\n```{eval-rst}\n.. autofunction:: sgd_analysis.double\n```\n"
    root = make_book(tmp_path / "typed", {"start": page})
    (root / "sgd_analysis/__init__.py").write_text(TYPED, encoding="utf-8")
    result = build(root)
    assert result.returncode == 0, result.stdout
    text = re.sub(r"<[^>]*>", "", html(root, "start"))
    assert "double(x: ArrayLike | None) &#x2192; NDArray[np.float64]" in text


NOTEBOOKS = {
    "sound": FRONT_MATTER
    + CELL.format(source="from sgd_analysis import VALUE\n\nassert VALUE == 41"),
    "raising": FRONT_MATTER + CELL.format(source="numerator = 1\nnumerator / 0"),
    "warning": FRONT_MATTER + CELL.format(source="import warnings\n\nwarnings.warn('look here')"),
    "slow": FRONT_MATTER.replace("---\n\n", "execution:\n  timeout: 1\n---\n\n")
    + CELL.format(source="import threading\n\nthreading.Event().wait()"),
    "prose": "# No code\n\nNothing runs here.\n",
}


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = make_book(tmp_path_factory.mktemp("tested"), NOTEBOOKS)
    shutil.copy(ROOT / "pyproject.toml", root)
    result = run(root, "pytest", "book", "-n", "2", "-p", "no:cacheprovider")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    return result.stdout


def test_each_page_with_code_is_one_test(tested: str) -> None:
    assert "3 failed, 1 passed" in tested


def test_a_raising_cell_fails_its_test_and_is_shown(tested: str) -> None:
    assert "FAILED book/raising.md" in tested
    assert "numerator / 0" in tested
    assert "ZeroDivisionError: division by zero" in tested


def test_a_warning_in_a_cell_fails_its_test_and_is_shown(tested: str) -> None:
    assert "FAILED book/warning.md" in tested
    assert "UserWarning: look here" in tested


def test_a_page_can_set_its_own_time_limit(tested: str) -> None:
    assert "FAILED book/slow.md" in tested
    assert "after 1 seconds" in tested


def test_overwrite_leaves_the_markdown_as_it_is(tmp_path: Path) -> None:
    root = make_book(tmp_path / "kept", {"sound": NOTEBOOKS["sound"]})
    shutil.copy(ROOT / "pyproject.toml", root)
    result = run(root, "pytest", "book", "--overwrite", "-p", "no:cacheprovider")
    assert result.returncode != 0
    assert "--overwrite would replace the Markdown of a page by JSON" in result.stdout
    assert (root / "book/sound.md").read_text(encoding="utf-8") == NOTEBOOKS["sound"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pages = {name: NOTEBOOKS[name] for name in ("sound", "prose")}
    root = make_book(tmp_path_factory.mktemp("pages") / "book", pages)
    shutil.copy(ROOT / "pyproject.toml", root)
    template = FRONT_MATTER.replace("jupytext:", "myst:\n  html_meta: {}\njupytext:", 1)
    (root / "book/template.md").write_text(template, encoding="utf-8")
    return root


@pytest.mark.parametrize("others", [(), ("book/sound.md",), ("-n", "2")], ids=str)
def test_a_page_named_on_the_command_line_that_is_no_notebook_is_told_what_makes_it_one(
    others: tuple[str, ...], pages: Path
) -> None:
    result = run(pages, "pytest", "book/prose.md", *others, "-p", "no:cacheprovider")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "prose.md is not executed: its front matter does not say that it is" in result.stdout
    assert FRONT_MATTER.split("\n\n")[0] in result.stdout.replace("ERROR: ", "")
    assert "no collectors" not in result.stdout


def test_pages_without_code_are_passed_over_where_their_folder_is_named(pages: Path) -> None:
    result = run(pages, "pytest", "book", "--collect-only", "-p", "no:cacheprovider")
    assert result.returncode == 0
    assert "sound.md" in result.stdout
    assert "prose.md" not in result.stdout
