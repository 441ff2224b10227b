"""A rebuild gives what a build from nothing gives, whatever happened before."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from book._ext.book_names import EDITIONS
from tests.book.small_books import (
    CELL,
    FRONT_MATTER,
    PAGES,
    build,
    build_command,
    digests,
    executed,
    html,
    make_book,
    replace_in_page,
    write_package,
)

LINE = """
```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-line
    caption: A line.
  image:
    alt: A rising line.
---
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.plot([0, 1]);
```
"""
THEOREM = "\n:::{prf:theorem}\n:label: thm-line\nA line rises.\n:::\n"
EXERCISE = """
:::{exercise}
:label: ex-line
Draw it.
:::

:::{solution-start} ex-line
:label: sol-line
:class: dropdown
:::

Done.

:::{solution-end}
:::
"""
GLUE = CELL.format(source='from myst_nb import glue\n\nglue("value", 41, display=False)')
DOUBLE = """\
def double(x):
    \"\"\"Double a number.\"\"\"
    return 2 * x
"""
COMPUTES = "from sgd_analysis import double\n\nprint('double of 21 is', double(21))"
HOLD = CELL.format(
    source="""\
import time
from pathlib import Path

Path("../executing").touch()
while Path("../hold").exists():
    time.sleep(0.02)"""
)
EXTRA = "# An extra page\n\n:::{prf:lemma}\nIt has one.\n:::\n"
OLD = {
    "start": "# A book\n\nSee [](measured.md), {numref}`fig-line`, and "
    "{glue:text}`measured.md::value:d`.\n",
    "extra": EXTRA,
    "measured": FRONT_MATTER + GLUE + LINE + THEOREM + EXERCISE + HOLD,
}


def renew(root: Path) -> None:
    """Another title, number and figure; a theorem less, an exercise less, a page less."""
    replace_in_page(root, "measured", "# A measured page", "# A page measured again")
    replace_in_page(root, "measured", '"value", 41', '"value", 42')
    replace_in_page(root, "measured", "ax.plot([0, 1])", "ax.plot([1, 0])")
    replace_in_page(root, "measured", THEOREM + EXERCISE, "")
    (root / "book/extra.md").unlink()
    contents = root / "_toc.yml"
    contents.write_text(contents.read_text("utf-8").replace("- file: book/extra\n", ""), "utf-8")


FOREIGN = (".git/HEAD", "CNAME", "_static/own.css", "_sources/book/own.whl", "book/own/page.html")


def add_foreign_files(root: Path) -> None:
    """Put files into the output folder as whoever publishes the book from there does."""
    for name in FOREIGN:
        path = root / "_build/html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not written by a build", "utf-8")


def take_foreign_files(root: Path) -> None:
    """Take these files away; they must be as they were."""
    for name in FOREIGN:
        path = root / "_build/html" / name
        assert path.read_text("utf-8") == "not written by a build", name
        path.unlink()


HALT = """\
import os
import signal
from pathlib import Path


def setup(app):
    if at := os.environ.get("HALT_AT"):
        event, priority, pattern = at.split()

        def halt(*_):
            last = max(Path("_build").glob(pattern), key=lambda path: path.stat().st_mtime_ns)
            os.truncate(last, last.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        app.connect(event, halt, priority=int(priority))
    return {}
"""


def add_halt(root: Path) -> None:
    """Let HALT_AT kill a build at an event, as if in the middle of a file written just before."""
    (root / "book/_ext/halt.py").write_text(HALT, "utf-8")
    config = root / "_config.yml"
    text = config.read_text("utf-8").replace(
        "local_extensions:", "local_extensions:\n    halt: book/_ext"
    )
    config.write_text(text, "utf-8")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Give a book that was built and then edited: the same folder, restored each time."""
    root, kept = (tmp_path_factory.mktemp("old") / name for name in ("book", "kept"))
    add_halt(make_book(root, OLD))
    result = build(root)
    assert result.returncode == 0, result.stdout
    root.rename(kept)

    def restore() -> Path:
        shutil.rmtree(root, ignore_errors=True)
        return shutil.copytree(kept, root, symlinks=True)

    return restore


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of the edited book, built from nothing."""
    root = make_book(tmp_path_factory.mktemp("new") / "elsewhere", OLD)
    add_halt(root)
    renew(root)
    result = build(root)
    assert result.returncode == 0, result.stdout
    return digests(root)


def test_a_rebuild_gives_what_a_build_from_nothing_gives(
    old: Callable[[], Path], new: dict[str, str]
) -> None:
    root = old()
    renew(root)
    add_foreign_files(root)
    result = build(root)
    assert result.returncode == 0, result.stdout
    assert "0 added, 2 changed, 1 removed" in result.stdout
    take_foreign_files(
        root
    )  # these were all removed once, a repository with its history among them
    assert digests(root) == new


def test_what_is_no_longer_there_is_missed_by_pages_that_did_not_change(
    old: Callable[[], Path],
) -> None:
    root = old()
    replace_in_page(root, "measured", GLUE + LINE, "")
    result = build(root)
    assert result.returncode != 0
    assert re.search(r"start\.md:3: WARNING: .*'fig-line'", result.stdout)
    assert re.search(r"start\.md:3: WARNING: .*'value' not found", result.stdout)


@pytest.mark.parametrize(
    "at",
    [
        "doctree-read 900 jupyter_execute/*.svg",  # a page is executed and read
        "env-updated 900 jupyter_execute/**/*.json",  # all are, and the old site is gone
        "env-updated 900 .doctrees/executed/**/*.json",
        "write-started 100 .doctrees/environment.pickle",
        "html-page-context 100 html/_static/*.css",
        "build-finished 890 html/*.js",
    ],
)
def test_a_build_killed_at_any_point_is_made_good_by_the_next(
    at: str, old: Callable[[], Path], new: dict[str, str]
) -> None:
    root = old()
    renew(root)
    assert build(root, {"HALT_AT": at}).returncode == -signal.SIGKILL
    add_foreign_files(root)
    result = build(root)
    assert result.returncode == 0, result.stdout
    take_foreign_files(root)
    assert digests(root) == new


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_a_build_stopped_while_a_cell_runs_is_made_good_by_the_next(
    stop: signal.Signals, old: Callable[[], Path], new: dict[str, str]
) -> None:
    root = old()
    renew(root)
    (root / "executing").unlink()
    (root / "hold").touch()
    with subprocess.Popen(
        **build_command(root), stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while not (root / "executing").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, stop)
    assert process.returncode != 0
    (root / "hold").unlink()
    result = build(root)
    assert result.returncode == 0, result.stdout
    assert digests(root) == new


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_book(tmp_path_factory.mktemp("edited"), PAGES)
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root


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


def test_a_warning_is_repeated_until_it_is_cured(tmp_path: Path) -> None:
    cell, reference = "warnings.warn('look here')", "{ref}`nowhere`"
    page = FRONT_MATTER + CELL.format(source=f"import warnings\n\n{cell}")
    root = make_book(tmp_path / "warning", {"start": f"# A book\n\n{reference}\n", "warning": page})
    for _ in range(2):
        result = build(root)
        assert result.returncode != 0
        assert "stderr was found in the cell outputs" in result.stdout
        assert "undefined label: 'nowhere'" in result.stdout
    replace_in_page(root, "warning", cell, "pass")
    result = build(root)
    assert result.returncode != 0
    assert "stderr was found" not in result.stdout
    assert "undefined label: 'nowhere'" in result.stdout
    replace_in_page(root, "start", reference, "")
    result = build(root)
    assert result.returncode == 0
    assert executed(result) == set()


def digests_from_nothing(root: Path, elsewhere: Path) -> dict[str, str]:
    ignored = shutil.ignore_patterns("_build", "__pycache__")
    result = build(shutil.copytree(root, elsewhere, ignore=ignored))
    assert result.returncode == 0, result.stdout
    return digests(elsewhere)


PRINTS = FRONT_MATTER + CELL.format(source="print('sound')")


@pytest.mark.parametrize("fault", ["import warnings; warnings.warn('look here')", "1 / 0"])
def test_only_a_page_that_warned_or_failed_is_executed_again(fault: str, tmp_path: Path) -> None:
    faulty = FRONT_MATTER + CELL.format(source=fault)
    pages = {"start": "# A book\n", "first": FRONT_MATTER + LINE, "second": PRINTS, "third": faulty}
    root = make_book(tmp_path / "faulty", pages)
    result = build(root)
    assert result.returncode != 0
    assert {"first", "second"} <= executed(result)
    result = build(root)
    assert result.returncode != 0
    assert "third.md" in result.stdout
    assert executed(result) <= {"third"}
    replace_in_page(root, "third", fault, "pass")
    result = build(root)
    assert result.returncode == 0
    assert executed(result) == {"third"}
    assert digests(root) == digests_from_nothing(root, tmp_path / "elsewhere")


def test_a_docstring_a_style_or_a_sentence_is_renewed_and_nothing_executed(tmp_path: Path) -> None:
    pages = {
        "start": "# A book\n\n```{eval-rst}\n.. autofunction:: sgd_analysis.double\n```\n",
        "computes": FRONT_MATTER + CELL.format(source=COMPUTES) + LINE,
    }
    root = make_book(tmp_path / "edits", pages)
    package, style = root / "sgd_analysis/__init__.py", root / "book/_assets/book.css"
    package.write_text(DOUBLE, "utf-8")
    assert executed(build(root)) == {"computes"}
    package.write_text(DOUBLE.replace("Double a number", "Add a number to itself"), "utf-8")
    with style.open("a", encoding="utf-8") as file:
        file.write(".new {color: red}\n")
    replace_in_page(root, "computes", "# A measured page", "# A page measured again")
    result = build(root)
    assert result.returncode == 0, result.stdout
    assert executed(result) == set()
    assert "Add a number to itself" in html(root, "start")
    assert "A page measured again" in html(root, "computes")
    assert ".new {color: red}" in (root / "_build/html/_static/book.css").read_text("utf-8")
    assert digests(root) == digests_from_nothing(root, tmp_path / "elsewhere")
    package.write_text(DOUBLE.replace("2 * x", "3 * x"), "utf-8")
    assert executed(build(root)) == {"computes"}
    assert "double of 21 is 63" in html(root, "computes")


def test_a_page_that_shows_a_traceback_is_executed_again_for_its_line_numbers(
    tmp_path: Path,
) -> None:
    cell = ":tags: [raises-exception]\n\nfrom sgd_analysis import fail\n\nfail()"
    root = make_book(tmp_path / "traceback", {"shows": FRONT_MATTER + CELL.format(source=cell)})
    package, text = root / "sgd_analysis/__init__.py", "def fail():\n    raise ValueError\n"
    package.write_text(text, "utf-8")
    assert executed(build(root)) == {"shows"}
    package.write_text(f"# A comment\n{text}", "utf-8")
    assert executed(build(root)) == {"shows"}


@pytest.mark.skipif(
    "CI" not in os.environ, reason="builds the whole book: minutes, where CI is set"
)
def test_two_clean_builds_of_the_whole_book_are_byte_identical(site: Path, tmp_path: Path) -> None:
    book, other = site.parents[1], tmp_path / "elsewhere"
    if not (book / "_config.yml").exists():
        pytest.skip(f"there are no pages of the book that was built to {site}")
    ignored = shutil.ignore_patterns("_build", ".venv", "venv", "__pycache__")
    shutil.copytree(book, other, ignore=ignored, symlinks=True)
    settings = {name: value for name, value in os.environ.items() if name.startswith("BOOK_")}
    result = build(other, settings)
    assert result.returncode == 0, result.stdout
    one, two = digests(book), digests(other)
    for printed in EDITIONS.values():  # by another program
        one.pop(printed, None)
    assert [name for name in sorted(one | two) if one.get(name) != two.get(name)] == []
