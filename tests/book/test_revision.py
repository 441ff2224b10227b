import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.book.small_books import CELL, FRONT_MATTER, ROOT, build, executed, html, make_book

SHOWS = FRONT_MATTER + CELL.format(
    source='import os\n\nprint("this is", os.environ["BOOK_REVISION"])'
)
IDENTITY = ["-c", "user.name=A reader", "-c", "user.email=reader@example.org"]


def git(root: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, *arguments]
    return subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(root: Path) -> str:
    (root / ".gitignore").write_text("_build/\n__pycache__/\n", encoding="utf-8")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message=A book")
    return git(root, "log", "-1", "--format=%H of %cs")


def revision(root: Path) -> str:
    code = "import book_revision, pathlib; print(book_revision.revision(pathlib.Path.cwd()))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "book/_ext")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, check=True, capture_output=True
    )
    return result.stdout.decode().strip()


def test_only_the_page_that_shows_the_commit_is_executed_again_after_a_commit(
    tmp_path: Path,
) -> None:
    root = make_book(tmp_path / "committed", {"start": "# A book\n", "shows": SHOWS})
    first = commit(root)
    assert build(root).returncode == 0
    assert f"this is {first}\n" in html(root, "shows")
    second = commit(root)
    assert second != first
    result = build(root)
    assert executed(result) == {"shows"}
    assert f"this is {second}\n" in html(root, "shows")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "page.md").touch()
    (tmp_path / "within").mkdir()
    return tmp_path


def test_changes_since_the_commit_are_told(repository: Path) -> None:
    committed = commit(repository)
    assert revision(repository) == committed
    (repository / "new.md").touch()
    assert revision(repository) == f"{committed}, with changes"


def test_without_a_repository_of_its_own_a_folder_has_no_commit(repository: Path) -> None:
    assert revision(repository) == ""
    commit(repository)
    assert revision(repository / "within") == ""


def test_without_git_there_is_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(repository)
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    import book_revision

    monkeypatch.setenv("PATH", "")
    assert book_revision.revision(repository) == ""
