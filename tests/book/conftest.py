"""What the tests of the site share: the built book, and a browser to read it in."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright

from book._ext.book_names import BROWSERS
from tests.book.small_books import build

ROOT = Path(__file__).parents[2]
ALONE = [
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole book as HTML: what BOOK_SITE names, or a build from nothing for all tests."""
    if built := os.environ.get("BOOK_SITE"):
        assert Path(built, "book/index.html").is_file(), f"BOOK_SITE is no built book: {built}"
        return Path(built).resolve()
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the one that all workers of this run share
    html = folder / "whole-book/_build/html"
    with FileLock(folder / "whole-book.lock"):
        if not html.exists():
            build_whole_book(folder / "whole-book")
    return html


def build_whole_book(folder: Path) -> None:
    copy_project(folder)
    result = build(folder)
    if result.returncode:
        shutil.rmtree(folder)
        pytest.fail(result.stdout, pytrace=False)


def copy_project(folder: Path) -> None:
    """Copy what git would, or else all but what is built or hidden."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "_build", "venv"))
        return
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def program_of(names: Sequence[str]) -> str:
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        reason = f"no browser to read the book in: none of {', '.join(names)} is on the PATH"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return program


@pytest.fixture(scope="session")
def browser_program() -> str:
    return program_of(BROWSERS)


@pytest.fixture(scope="session")
def firefox_program() -> str:
    return program_of(("firefox-esr", "firefox"))


@pytest.fixture(scope="module")
def addresses(site: Path) -> Iterator[dict[str, str]]:
    """The site's address, by kind of access."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {"file": site.as_uri(), "http": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")  # not longer: Playwright's event loop would be in nbmake's way
def browser(browser_program: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=browser_program, args=ALONE) as browser:
            yield browser


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table that the tests with axe-core fill, one row for each page."""
    reports = [r for name in ("passed", "failed") for r in terminalreporter.getreports(name)]
    rows = [row for report in reports for name, row in report.user_properties if name == "axe"]
    if rows:
        terminalreporter.section("axe-core: violations (rules applied)")
    for page, counts in rows:
        cells = (f"{view}: {count}" for view, count in counts.items())
        terminalreporter.write_line(f"{page:32}" + "".join(f"{cell:22}" for cell in cells))
