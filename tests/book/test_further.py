"""A page in a folder of its own is executed, drawn and taken along as a chapter is."""

from pathlib import Path

import matplotlib
import nbformat
import pytest

from tests.book.small_books import CELL, FRONT_MATTER, PAGES, ROOT, build, html, make_book, run

STYLE = "import matplotlib.pyplot as plt\n\nprint(plt.rcParams['svg.hashsalt'])"
SALT = matplotlib.rc_params_from_file(ROOT / "book/matplotlibrc")["svg.hashsalt"]
DEEP = FRONT_MATTER + CELL.format(source=STYLE) + "\nBack to [the chapter](../measured.md).\n"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_book(tmp_path_factory.mktemp("deep"), PAGES | {"further/deep": DEEP})


@pytest.fixture(scope="module")
def built(book: Path) -> Path:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (book / name).write_bytes((ROOT / name).read_bytes())
    version = book / "sgd_analysis/_version.py"
    version.write_text('__version__ = "1.2.3"\n', encoding="utf-8")
    result = build(book)
    assert result.returncode == 0, result.stdout
    return book


def test_its_figures_have_the_style_of_the_book(built: Path) -> None:
    assert f"{SALT}\n</pre>" in html(built, "further/deep")


def test_they_have_it_where_nbmake_executes_the_page(book: Path) -> None:
    page = book / "book/further/deep.md"
    page.write_text(DEEP.replace("print(", f"assert {SALT!r} == ("), encoding="utf-8")
    result = run(book, "pytest", "--nbmake", "-q", str(page))
    page.write_text(DEEP, encoding="utf-8")
    assert result.returncode == 0, result.stdout


def test_its_notebook_finds_what_it_needs(built: Path) -> None:
    folder = built / "_build/html/_sources/book/further"
    introduction, installation, *_ = nbformat.read(folder / "deep.ipynb", as_version=4).cells
    wheel = "../sgd_analysis-1.2.3-py3-none-any.whl"
    assert f"[wheel]({wheel}) lies in the folder above" in introduction.source
    assert f'%pip install --quiet "{wheel}[notebooks]"' in installation.source
    assert (folder / wheel).is_file()
    assert (folder / "matplotlibrc").is_file()
