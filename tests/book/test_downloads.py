import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.book.small_books import CELL, FIGURE, FRONT_MATTER, MEASURE, build, html, make_book

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "book/_ext"))
plain = importlib.import_module("plain_notebook")
solutions = importlib.import_module("notebook_solutions")

NAMES = plain.Names(
    numbers={
        "eq-line": ("displaymath", "4.1"),
        "fig-line": ("figure", "4.2"),
        "thm-line": ("theorem", "4.3"),
        "ex-line": ("exercise", "4.4"),
    },
    titles={"own-memory": "Large models"},
    citations={
        "robbins1951": ("Robbins and Monro", "1951"),
        "ma2018": ("Ma et al.", "2018"),
    },
    value={"page.md::value:,.1f": "1,234.5"}.__getitem__,
    address={"other": "other.ipynb", "api": None}.__getitem__,
)


def plain_markdown(text: str) -> str:
    return plain.plain_markdown(text, NAMES)


# Markdown that any Jupyter shows


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("{glue:text}`page.md::value:,.1f` steps", "1,234.5 steps"),
        ("by {eq}`eq-line` and {numref}`fig-line`", "by (4.1) and Fig. 4.2"),
        ("{prf:ref}`thm-line`, {prf:ref}`ex-line`", "Theorem 4.3, Exercise 4.4"),
        ("see {ref}`own-memory`, {ref}`below <own-memory>`", "see Large models, below"),
        ("{cite:t}`robbins1951` show", "Robbins and Monro (1951) show"),
        ("best {cite:p}`robbins1951,ma2018`", "best (Robbins and Monro, 1951; Ma et al., 2018)"),
        ("the {built}`wheel <wheel>`", "the wheel"),
        ("- {claim}`theorem` It falls.", "- *(theorem)* It falls."),
        ("so `` {eq}`eq-line` `` becomes {eq}`eq-line`", "so `` {eq}`eq-line` `` becomes (4.1)"),
        ("[chapter 2](other.md) and [the API](api.md)", "[chapter 2](other.ipynb) and the API"),
        ("(own-memory)=\n## Large models", "## Large models"),
    ],
)
def test_a_role_becomes_what_the_page_shows(written: str, shown: str) -> None:
    assert plain_markdown(written) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (
            ":::{admonition} What you will learn\n:class: learn\n\n- One thing.\n:::",
            "> **What you will learn**\n>\n> - One thing.",
        ),
        (
            ":::{prf:theorem} The floor\n:label: thm-line\n\nIt is flat.\n:::",
            "> **Theorem 4.3** (The floor)\n>\n> It is flat.",
        ),
        (":::{prf:proof}\nBy {eq}`eq-line`.\n:::", "> *Proof.* By (4.1). ∎"),
        (
            ":::{exercise} With code\n:label: ex-line\n\nDraw it.\n:::",
            "> **Exercise 4.4** (With code)\n>\n> Draw it.",
        ),
        (
            ":::{solution} ex-line\n:label: sol-line\n:class: dropdown\n\nDrawn.\n:::",
            "<details><summary>Solution of Exercise 4.4</summary>\n\nDrawn.\n\n</details>",
        ),
        (
            ":::{solution-start} ex-line\n:class: dropdown\n:::\n\nDrawn:",
            "**Solution of Exercise 4.4**\n\nDrawn:",
        ),
        (":::{solution-end}\n:::\n\nOn.", "On."),
    ],
)
def test_a_box_becomes_a_quotation(written: str, shown: str) -> None:
    assert plain_markdown(written) == shown


def test_an_equation_keeps_its_number_in_a_list_and_in_a_box_too() -> None:
    unlabelled = "$$\nx\n$$\n\n"
    assert plain_markdown(f"{unlabelled}$$\ny = x\n$$ (eq-line)") == (
        f"{unlabelled}$$\ny = x \\tag{{4.1}}\n$$"
    )
    item = "1. So\n\n   $$\n   y = x\n   $$ (eq-line)"
    assert plain_markdown(item).endswith("   $$\n   y = x \\tag{4.1}\n   $$")
    boxed = ":::{prf:proof}\nSo\n\n$$\ny = x\n$$ (eq-line)\n:::"
    assert "> $$\n> y = x \\tag{4.1}\n> $$ ∎" in plain_markdown(boxed)


@pytest.mark.parametrize("unknown", ["{term}`loss`", ":::{tip} Look\nHere.\n:::"])
def test_markup_without_a_plain_reading_is_an_error(unknown: str) -> None:
    with pytest.raises(plain.UnknownMarkupError, match=r"term|tip"):
        plain_markdown(unknown)


def test_a_cell_keeps_its_outputs_and_loses_what_the_book_told_it() -> None:
    drawing = {"image/svg+xml": ["<svg>\n", "</svg>"], "text/plain": ["<Figure>"]}
    glued = {"application/papermill.record/text/plain": "41"}
    cell = {
        "cell_type": "code",
        "execution_count": 3,
        "metadata": {
            "tags": ["hide-input"],
            "mystnb": {"figure": {"name": "fig-line", "caption": "As in {eq}`eq-line`."}},
        },
        "outputs": [
            {"output_type": "display_data", "data": data, "metadata": {"scrapbook": 1}}
            for data in (glued, drawing)
        ],
        "source": ["import numpy\n", "from myst_nb import glue\n", 'glue("value", 41)'],
    }
    notebook = {"cells": [cell], "metadata": {"kernelspec": {"name": "python3"}, "source_map": []}}
    made = plain.plain_notebook(notebook, NAMES, introduction="Hello", tidy_svg=str.upper)
    hello, glue, code, caption = made["cells"]
    assert (hello["source"], caption["source"]) == ("Hello", "**Fig. 4.2.** As in (4.1).")
    assert glue["source"].startswith("def glue(")
    assert code["source"] == 'import numpy\nglue("value", 41)'
    assert code["metadata"] == {"jupyter": {"source_hidden": True}}
    assert [output["data"]["image/svg+xml"] for output in code["outputs"]] == ["<SVG>\n</SVG>"]
    assert [cell["id"] for cell in made["cells"]] == [f"cell-{n}" for n in range(4)]
    assert made["metadata"] == {"kernelspec": {"name": "python3"}}


# With solutions and without


def markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": 7,
        "metadata": {"tags": ["hide-input"]},
        "outputs": [{"output_type": "stream", "text": source}],
        "source": source,
    }


EXERCISE = ":::{exercise} With code\n:label: ex-line\n\nDraw it.\n:::"
BEGINS = ":::{solution-start} ex-line\n:label: sol-line\n:class: dropdown\n:::"
SOLVED_CELLS = [
    markdown(f"It rises.\n\n{EXERCISE}\n\n{BEGINS}\n\nLike this:"),
    code("draw()"),
    code("assert drawn"),
    markdown("And:\n\n:::{solution-end}\n:::\n\nOn.\n\n:::{solution} ex-line\nOr.\n:::"),
    code("go_on()"),
]


def test_a_notebook_to_do_has_no_solution_and_nothing_has_been_run() -> None:
    cells = list(solutions.to_do(SOLVED_CELLS))
    sources = [cell["source"] for cell in cells if cell["source"]]
    assert sources == [f"It rises.\n\n{EXERCISE}", solutions.ANSWER, "On.", "go_on()"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert cells[-1]["metadata"] == {"tags": ["hide-input"]}


def test_a_notebook_to_do_has_no_second_cell_where_the_exercise_gives_one() -> None:
    begins = markdown(f"{BEGINS}\n\nLike this:")
    cells = [markdown(EXERCISE), code("draw(...)"), begins, *SOLVED_CELLS[1:]]
    sources = [cell["source"] for cell in solutions.to_do(cells) if cell["source"]]
    assert sources == [EXERCISE, "draw(...)", "On.", "go_on()"]


def test_the_solutions_have_their_exercises_and_nothing_else() -> None:
    cells = [cell["source"] for cell in solutions.exercises_and_solutions(SOLVED_CELLS)]
    assert [source for source in cells if source] == [
        EXERCISE,
        f"{BEGINS}\n\nLike this:",
        "draw()",
        "assert drawn",
        "And:\n\n:::{solution-end}\n:::",
        ":::{solution} ex-line\nOr.\n:::",
    ]
    assert not solutions.has_exercises([markdown("It rises."), code("draw()")])


def test_a_name_that_the_book_does_not_know_is_an_error() -> None:
    with pytest.raises(KeyError):
        plain.plain_markdown("{eq}`eq-line`", replace(NAMES, numbers={}))


# A book to take along

READING = CELL.format(
    source="""\
import json
from pathlib import Path

print("read", json.loads(Path("_assets/measured.json").read_text())["value"])"""
)
LANDING = (
    "# A book\n\nMeasured {glue:text}`measured.md::value:d`, {built}`notebooks <notebooks>`, "
    "{built}`solved ones <solved>`, {built}`solutions <solutions>`, {built}`wheel <wheel>`.\n\n"
    ":::{only} book_pdf\nHere is {built}`a PDF <pdf>`.\n:::\n\n"
    "```{bibliography}\n```\n"
)


def make_book_with_package(root: Path) -> Path:
    make_book(root, {"index": LANDING, "measured": FRONT_MATTER + MEASURE + FIGURE + READING})
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    version = root / "sgd_analysis/_version.py"
    version.write_text('__version__ = "1.2.3"\n', encoding="utf-8")
    (root / "book/_assets/measured.json").write_text('{"value": 7}', encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_book_with_package(tmp_path_factory.mktemp("built"))
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root


def offered(site: Path) -> Path:
    return site / "_sources/book"


def links(root: Path, page: str) -> dict[str, str]:
    found = re.findall(r'<a class="[^"]*" href="([^"#]+)">([^<]+)</a>', html(root, page))
    return {text: address for address, text in found}


def test_the_landing_page_leads_to_what_can_be_taken_along(built: Path) -> None:
    addresses = links(built, "index")
    for text in ("notebooks", "solved ones", "solutions", "wheel"):
        assert (built / "_build/html/book" / addresses[text]).is_file()
    assert addresses["wheel"].endswith("/sgd_analysis-1.2.3-py3-none-any.whl")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book that is built to be printed, and that a BinderHub can open."""
    page = FRONT_MATTER + "\n:::{only} book_pdf\nHere is {built}`a PDF <pdf>`.\n:::\n"
    pages = {"index": page + CELL.format(source="print(1)") + "\n```{bibliography}\n```\n"}
    root = make_book(tmp_path_factory.mktemp("published"), pages)
    settings = {
        "BOOK_PDF": "1",
        "BOOK_BINDER_URL": "https://hub.example",
        "BOOK_REPOSITORY_URL": "https://github.com/someone/book",
        "BOOK_COLAB_URL": "https://colab.example/github/someone/book/blob/pages/_sources/",
        "BOOK_SITE_URL": "https://someone.example/book/",
    }
    result = build(root, settings)
    assert result.returncode == 0, result.stdout
    return root


def test_the_landing_page_leads_to_a_pdf_if_there_will_be_one(built: Path, published: Path) -> None:
    assert "a PDF" not in links(built, "index")
    assert links(published, "index")["a PDF"] == "../stochastic-gradient-descent-measured.pdf"


def test_a_page_offers_to_be_opened_on_the_binder_that_is_named(
    built: Path, published: Path
) -> None:
    address = "https://hub.example/v2/gh/someone/book/HEAD?urlpath=lab/tree/book/index.md"
    assert address in html(published, "index")
    assert "hub.example" not in html(built, "measured")
    notebook = nbformat.read(offered(published / "_build/html") / "index.ipynb", as_version=4)
    assert "%pip install" in notebook.cells[1].source  # the one to download, not the theme's copy


def test_a_page_offers_to_be_opened_on_colab_where_the_address_is_known(
    built: Path, published: Path
) -> None:
    address = "https://colab.example/github/someone/book/blob/pages/_sources/book/index.ipynb"
    assert f'href="{address}"' in html(published, "index")
    assert "olab" not in html(built, "measured")


def test_a_notebook_away_from_its_wheel_takes_that_of_the_site(
    built: Path, published: Path
) -> None:
    path = offered(published / "_build/html") / "index.ipynb"
    source = nbformat.read(path, as_version=4).cells[1].source
    wheel = "https://someone.example/book/_sources/book/sgd_analysis-0-py3-none-any.whl"
    assert f'package = "sgd-analysis[notebooks] @ {wheel}"' in source
    assert "https://" not in installation(built)


def installation(root: Path) -> str:
    path = offered(root / "_build/html") / "measured.ipynb"
    return str(nbformat.read(path, as_version=4).cells[1].source)


def test_the_menu_of_a_page_with_exercises_gives_both_notebooks(built: Path) -> None:
    for name, text in (("measured", "to do .ipynb"), ("measured-solved", "solved .ipynb")):
        assert re.search(
            rf'href="\.\./_sources/book/{name}\.ipynb"[^§]*?{text}', html(built, "measured")
        )
        assert (offered(built / "_build/html") / f"{name}.ipynb").is_file()


@pytest.mark.parametrize(
    ("archive", "notebooks"),
    [
        ("notebooks.zip", ["measured.ipynb"]),
        ("notebooks-solved.zip", ["measured-solved.ipynb", "solutions.ipynb"]),
    ],
)
def test_an_archive_holds_the_notebooks_and_what_they_need(
    built: Path, archive: str, notebooks: list[str]
) -> None:
    with zipfile.ZipFile(offered(built / "_build/html") / archive) as packed:
        names = ["_assets/measured.json", "matplotlibrc", *notebooks]
        names = sorted([*names, "sgd_analysis-1.2.3-py3-none-any.whl"])
        assert packed.namelist() == [f"sgd-measured/{name}" for name in names]


def test_the_solutions_are_a_notebook_of_their_own(built: Path) -> None:
    path = offered(built / "_build/html") / "solutions.ipynb"
    first, title, exercise, solution, cell = nbformat.read(path, as_version=4).cells
    assert "The exercises of" in first.source and title.source == "## A measured page"
    assert "Draw Fig. 1" in exercise.source and "Solution of Exercise 1" in solution.source
    assert cell.outputs[0].text == "solved 41\n"


def test_the_wheel_asks_for_what_notebooks_import(built: Path) -> None:
    (wheel,) = offered(built / "_build/html").glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        names = package.namelist()
        metadata = package.read("sgd_analysis-1.2.3.dist-info/METADATA").decode()
    assert "sgd_analysis/__init__.py" in names
    assert not [name for name in names if not name.startswith("sgd_analysis")]
    assert "Provides-Extra: notebooks" in metadata


def test_a_notebook_begins_with_how_to_run_it(built: Path) -> None:
    notebook = nbformat.read(offered(built / "_build/html") / "measured.ipynb", as_version=4)
    introduction = notebook.cells[0].source
    assert '%pip install --quiet "./sgd_analysis-1.2.3-py3-none-any.whl[notebooks]"' in (
        installation(built)
    )
    assert "`matplotlibrc` and `_assets/measured.json` have to be" in introduction
    assert "first install PyTorch alone" in introduction  # or gigabytes of CUDA come along
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "**Fig. 1.** The line ends at 41, see Robbins and Monro (1951) and (1)." in text


def test_two_books_offer_the_same_bytes(built: Path, tmp_path: Path) -> None:
    other = make_book_with_package(tmp_path / "elsewhere")
    assert build(other).returncode == 0
    for path in offered(built / "_build/html").iterdir():
        if path.is_file():
            twin = offered(other / "_build/html") / path.name
            assert path.read_bytes() == twin.read_bytes(), path.name


def run_as_a_reader(site: Path, folder: Path, page: str) -> nbformat.NotebookNode:
    """Execute a notebook with nothing but what the archive holds beside it."""
    name = "notebooks-solved.zip" if page.endswith("-solved") else "notebooks.zip"
    with zipfile.ZipFile(offered(site) / name) as archive:
        archive.extractall(folder)
    beside, library = folder / "sgd-measured", folder / "library"
    (wheel,) = beside.glob("*.whl")
    with zipfile.ZipFile(wheel) as package:
        package.extractall(library)
    notebook = nbformat.read(beside / f"{page}.ipynb", as_version=4)
    check = "import sys, sgd_analysis; print(sgd_analysis.__file__, 'myst_nb' in sys.modules)"
    notebook.cells.append(nbformat.v4.new_code_cell(check))
    settings: dict[str, Any] = {"resources": {"metadata": {"path": str(beside)}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(library))
        patch.setenv("JUPYTER_PATH", str(ROOT / "book/_ext"))  # no warnings, no progress bars
        NotebookClient(notebook, timeout=None, **settings).execute()
    assert notebook.cells[-1].outputs[0].text.split() == [
        str(library / "sgd_analysis/__init__.py"),
        "False",
    ]
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_a_notebook_runs_beside_what_the_archive_holds(built: Path, tmp_path: Path) -> None:
    notebook = run_as_a_reader(built / "_build/html", tmp_path, "measured-solved")
    assert printed(notebook).startswith("measured 41\nsolved 41\nread 7\n")


def test_a_notebook_to_do_runs_without_its_solutions(built: Path, tmp_path: Path) -> None:
    notebook = run_as_a_reader(built / "_build/html", tmp_path, "measured")
    assert printed(notebook).startswith("measured 41\nread 7\n")


# The whole book


def test_every_notebook_is_sound_and_plain(site: Path) -> None:
    notebooks = sorted(offered(site).glob("*.ipynb"))
    assert len(notebooks) >= 10
    for path in notebooks:
        text = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
        assert [cell.id for cell in notebook.cells] == [
            f"cell-{number}" for number in range(len(notebook.cells))
        ]
        if not path.with_stem(f"{path.stem}-solved").exists():  # which is the one that was run
            assert any(cell.get("outputs") for cell in notebook.cells), path.name
        assert not re.search(r"(?<![\w.$}:/])/(?:home|root|tmp|opt|mnt|work|Users)/\w", text)
        prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        shown = re.sub(r"``.*?``", "", "\n\n".join(prose), flags=re.S)  # what is quoted as it is
        for markup in (r"\{[a-z:]+\}`", r"^:::", r"^\([\w-]+\)=$", r"\.md[)#]", r"\$\$ \("):
            assert not re.search(markup, shown, re.M), (path.name, markup)


def test_the_notebooks_import_nothing_that_their_extra_leaves_out(site: Path) -> None:
    imported = set()
    for path in offered(site).glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                imported |= set(re.findall(r"^(?:import|from) (\w+)", cell["source"], re.M))
    theirs = {"matplotlib", "numpy", "sgd_analysis", "sklearn", "torch", "tqdm"}
    assert imported - theirs <= sys.stdlib_module_names


@pytest.mark.parametrize("page", ["fitting-problem-solved", "mini-batches-solved", "worksheet"])
def test_a_chapter_runs_beside_what_the_archive_holds(
    site: Path, page: str, tmp_path: Path
) -> None:
    as_built = nbformat.read(offered(site) / f"{page}.ipynb", as_version=4)
    again = run_as_a_reader(site, tmp_path, page)
    assert printed(again).startswith(printed(as_built))


# Binder


def test_binder_installs_the_locked_environment() -> None:
    (line,) = [
        line
        for line in (ROOT / ".binder/requirements.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    option, path = line.split()
    assert option == "-r"
    assert (ROOT / ".binder" / path).resolve() == ROOT / "requirements.txt"
    python = (ROOT / ".binder/runtime.txt").read_text("utf-8").strip()
    assert python == "python-3.11"  # what requirements.txt is compiled for
    assert "by the following command" in (ROOT / "requirements.txt").read_text("utf-8")
    assert "Python 3.11" in (ROOT / "requirements.txt").read_text("utf-8")


def test_binder_opens_markdown_as_a_notebook(tmp_path: Path) -> None:
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path), "PATH": scripts}
    script = ROOT / ".binder/postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run([script], env=environment, check=True, capture_output=True)
    (settings,) = tmp_path.rglob("*.json")
    assert json.loads(settings.read_text(encoding="utf-8")) == {
        "@jupyterlab/docmanager-extension:plugin": {
            "defaultViewers": {"markdown": "Jupytext Notebook"}
        }
    }


@pytest.mark.parametrize(
    ("hub", "repository", "offered"),
    [
        ("https://hub.example", "https://github.com/someone/book", True),
        (None, "https://github.com/someone/book", False),
        ("https://hub.example", "https://git.example/someone/book", False),
        ("https://hub.example", None, False),
    ],
)
def test_a_binder_is_offered_where_one_is_named_for_a_repository_on_github(
    hub: str | None, repository: str | None, offered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = importlib.import_module("book_downloads")
    for name, value in (("BOOK_BINDER_URL", hub), ("BOOK_REPOSITORY_URL", repository)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)

    class Config:
        html_theme_options: dict[str, Any] = {}  # noqa: RUF012

    downloads.add_binder(None, Config)
    assert ("launch_buttons" in Config.html_theme_options) == offered
