import hashlib
import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import matplotlib
import pytest
import yaml

ROOT = Path(__file__).parents[1]

FRONT_MATTER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
  language: python
---

# A measured page
"""
CELL = "\n```{{code-cell}} ipython3\n{source}\n```\n"
FIGURE = """
```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-line
    caption: >-
      The line ends at {glue:text}`measured.md::value:d`,
      see {cite:t}`robbins1951` and {eq}`eq-line`.
  image:
    alt: A rising line.
---
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.plot([0, 1], [0, VALUE]);
```

$$
y = x
$$ (eq-line)

:::{exercise} With code
:label: ex-line
Draw {numref}`fig-line` and {prf:ref}`thm-line`.
:::

:::{solution-start} ex-line
:label: sol-line
:class: dropdown
:::

```{code-cell} ipython3
print("solved", VALUE)
```

:::{solution-end}
:::

:::{prf:theorem}
:label: thm-line
A line rises.
:::
"""
MEASURE = CELL.format(
    source="""\
from myst_nb import glue

from sgd_analysis import VALUE

print("measured", VALUE)
glue("value", VALUE, display=False)
glue("quoted", 300, display=False)"""
)
PAGES = {
    "index": (
        "# A book\n\nMeasured {glue:text}`measured.md::value:d`, $x^2$.\n\n```{bibliography}\n```\n"
    ),
    "measured": FRONT_MATTER + MEASURE + FIGURE,
    "quoting": "# Another page\n\nElsewhere, {glue:text}`measured.md::quoted:d` was quoted.\n",
}
BIBLIOGRAPHY = """\
@article{robbins1951,
  author = {Robbins, Herbert and Monro, Sutton},
  title = {A stochastic approximation method},
  journal = {The Annals of Mathematical Statistics},
  year = {1951},
}
"""


def make_book(root: Path, pages: dict[str, str]) -> Path:
    book = root / "book"
    book.mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", root)
    for name in ("conftest.py", "matplotlibrc"):
        shutil.copy(ROOT / "book" / name, book)
    for name in ("_ext", "_assets"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "book" / name, book / name, ignore=ignored)
    for name, text in pages.items():
        (book / f"{name}.md").write_text(text, encoding="utf-8")
    (book / "references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    first, *others = (f"book/{name}" for name in pages)
    toc: dict[str, object] = {"format": "jb-book", "root": first}
    if others:
        toc["chapters"] = [{"file": page} for page in others]
    (root / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (root / "sgd_analysis").mkdir()
    write_package(root, value=41)
    return root


def write_package(root: Path, value: int) -> None:
    package = root / "sgd_analysis" / "__init__.py"
    package.write_text(f"VALUE = {value}\n", encoding="utf-8")


def replace_in_page(root: Path, page: str, old: str, new: str) -> None:
    path = root / "book" / f"{page}.md"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def run(root: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "BOOK_" not in name}
    environment |= {"PYTHONPATH": str(root), "SOURCE_DATE_EPOCH": "1700000000"}
    result = subprocess.run(
        [Path(sysconfig.get_path("scripts"), program), *arguments],
        cwd=root,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    result.stdout = re.sub(r"\x1b\[[\d;]*m", "", result.stdout)
    return result


def build(root: Path) -> subprocess.CompletedProcess[str]:
    return run(root, "jupyter-book", "build", ".", "-W", "-n", "--keep-going")


def html(root: Path, page: str) -> str:
    return (root / "_build/html/book" / f"{page}.html").read_text(encoding="utf-8")


def site_pages(root: Path) -> list[Path]:
    site = root / "_build/html"
    return [path for path in site.rglob("*.html") if site / "_static" not in path.parents]


def digests(root: Path) -> dict[str, str]:
    site = root / "_build/html"
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_book(tmp_path_factory.mktemp("built"), PAGES)
    result = build(root)
    assert result.returncode == 0, result.stdout
    assert "WARNING" not in result.stdout
    return root


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_book(tmp_path_factory.mktemp("edited"), PAGES)
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root


def test_a_page_and_a_page_without_code_show_the_same_measured_number(built: Path) -> None:
    assert '<span class="pasted-text">41</span>' in html(built, "measured")
    assert '<span class="pasted-text">41</span>' in html(built, "index")


def test_a_figure_is_an_svg_with_alt_text_and_a_numbered_caption(built: Path) -> None:
    figure = re.search(r'<figure[^>]*id="fig-line".*?</figure>', html(built, "measured"), re.S)
    assert figure
    assert re.search(r'<img alt="A rising line." src="[^"]*\.svg"', figure[0])
    assert "caption-number" in figure[0]


def test_figures_take_the_books_style(built: Path) -> None:
    (figure,) = (built / "_build/html/_images").glob("*.svg")
    drawing = figure.read_text(encoding="utf-8")
    style = matplotlib.rc_params_from_file(ROOT / "book/matplotlibrc", use_default_template=False)
    width, height = (f"{72 * inches:g}" for inches in style["figure.figsize"])
    assert f'viewBox="0 0 {width} {height}"' in drawing
    assert style["axes.prop_cycle"].by_key()["color"][0].lower() in drawing
    assert "<dc:date>" not in drawing


def test_a_folded_solution_is_executed(built: Path) -> None:
    solution = re.search(r'<div class="solution dropdown.*', html(built, "measured"), re.S)
    assert solution
    assert "solved 41" in solution[0]


def test_no_page_loads_anything_from_the_network(built: Path) -> None:
    assert len(site_pages(built)) > 4
    loading = re.compile(
        r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*"
    )
    for page in site_pages(built):
        assert not loading.findall(page.read_text(encoding="utf-8")), page.name


def test_every_local_file_a_page_loads_is_there(built: Path) -> None:
    loading = re.compile(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"([^\"#?]+)")
    for page in site_pages(built):
        for address in loading.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / address).exists(), (page.name, address)


def test_mathematics_is_typeset_without_the_network(built: Path) -> None:
    page = html(built, "index")
    assert "_static/mathjax/tex-chtml.js" in page
    assert (built / "_build/html/_static/mathjax/tex-chtml.js").exists()


def test_pages_carry_no_code_for_a_live_kernel(built: Path) -> None:
    assert "thebe" not in html(built, "measured").lower()


def test_the_executed_notebook_can_be_downloaded(built: Path) -> None:
    notebook = built / "_build/html/_sources/book/measured.ipynb"
    assert "measured 41" in notebook.read_text(encoding="utf-8")
    assert "_sources/book/measured.ipynb" in html(built, "measured")


def test_two_clean_builds_are_byte_identical(built: Path, tmp_path: Path) -> None:
    other = make_book(tmp_path / "elsewhere", PAGES)
    assert build(other).returncode == 0
    assert digests(other) == digests(built)


def test_editing_the_package_executes_the_pages_again(edited: Path) -> None:
    write_package(edited, value=42)
    assert build(edited).returncode == 0
    assert "measured 42" in html(edited, "measured")
    assert '<span class="pasted-text">42</span>' in html(edited, "index")


def test_editing_a_page_refreshes_the_pages_that_quote_it(edited: Path) -> None:
    replace_in_page(edited, "measured", "300", "301")
    result = build(edited)
    assert result.returncode == 0
    assert '<span class="pasted-text">301</span>' in html(edited, "quoting")
    assert "0 added, 1 changed, 0 removed" in result.stdout


def test_nothing_is_executed_when_nothing_changed(edited: Path) -> None:
    before = digests(edited)
    result = build(edited)
    assert result.returncode == 0
    assert "0 added, 0 changed, 0 removed" in result.stdout
    assert digests(edited) == before


def test_a_raising_cell_fails_the_build_and_names_the_page(tmp_path: Path) -> None:
    page = FRONT_MATTER + CELL.format(source="1 / 0")
    root = make_book(tmp_path / "raising", {"raising": page})
    result = build(root)
    assert result.returncode != 0
    assert "book/raising.md" in result.stdout
    assert "ZeroDivisionError" in result.stdout


def test_a_warning_in_a_cell_fails_the_build_until_it_is_cured(tmp_path: Path) -> None:
    page = FRONT_MATTER + CELL.format(source="import warnings\n\nwarnings.warn('look here')")
    root = make_book(tmp_path / "warning", {"warning": page})
    for _ in range(2):
        result = build(root)
        assert result.returncode != 0
        assert re.search(r"book/warning\.md:\d+: ERROR: stderr was found", result.stdout)
    replace_in_page(root, "warning", "warnings.warn('look here')", "pass")
    assert build(root).returncode == 0


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


NOTEBOOKS = {
    "sound": FRONT_MATTER
    + CELL.format(source="from sgd_analysis import VALUE\n\nassert VALUE == 41"),
    "raising": FRONT_MATTER + CELL.format(source="numerator = 1\nnumerator / 0"),
    "warning": FRONT_MATTER + CELL.format(source="import warnings\n\nwarnings.warn('look here')"),
    "slow": FRONT_MATTER.replace("---\n\n", "execution:\n  timeout: 1\n---\n\n")
    + CELL.format(source="import time\n\ntime.sleep(30)"),
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
