"""The template, copied as the README says, is a page of a book that builds strictly."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.book.contents import ROOT
from tests.book.small_books import build, html, make_book


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = "# A book\n\n{numref}`fig-my-question-steps`\n\n```{bibliography}\n```\n"
    pages = {"index": index, "my-question": ""}
    root = make_book(tmp_path_factory.mktemp("copied"), pages)
    shutil.rmtree(root / "sgd_analysis")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sgd_analysis", root / "sgd_analysis", ignore=ignored)
    shutil.copy(ROOT / "book/template.md", root / "book")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^sed .*$", readme, re.M)
    subprocess.run(command, shell=True, cwd=root, check=True)
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root


def test_a_copy_of_the_template_builds_strictly_and_the_template_is_no_page(built: Path) -> None:
    page = html(built, "my-question")
    assert "Does twice the step size take half the steps?" in page
    assert page.count('<details class="solution') == 4
    assert not (built / "_build/html/book/template.html").exists()


def test_what_the_template_tells_its_writer_is_not_on_the_page(built: Path) -> None:
    source = (ROOT / "book/template.md").read_text(encoding="utf-8")
    for line in re.findall(r"^% (.{20})", source, re.M):
        assert line not in html(built, "my-question")


def test_the_readers_hole_is_found_and_its_solution_is_right(built: Path) -> None:
    page = html(built, "my-question")
    assert "not yet: w is what it was" in page
    assert re.search(r"<pre>(?:<span></span>)?right\n</pre>", page)
