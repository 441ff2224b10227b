"""What the tests of the live figures share: pages with their scripts, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page

from book._ext.book_live import FOLDER as LIVE
from book._ext.book_live import SHARED

BARE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>A live figure</title>
<link rel="stylesheet" href="{live}/live.css">
{scripts}
<figure id="static">A static figure</figure>
<div class="live" data-live="{figure}" {options} hidden>
  <div class="live-title"><p>A title</p></div>
</div>
"""


@pytest.fixture(scope="module")
def script(browser: Browser) -> Iterator[Page]:
    """An empty page that can compute what the live figures compute."""
    with browser.new_page() as page:
        for name in SHARED:
            page.add_script_tag(path=LIVE / f"{name}.js")
        yield page


Show = Callable[..., Page]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Open a bare page with one live figure, whose script is given by name or as text."""
    errors: list[Error] = []
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:

        def open_page(
            figure: str, script: str = "", address: str = "", options: str = "", **media: str
        ) -> Page:
            names = SHARED if script else (*SHARED, figure)
            scripts = "".join(
                f'<script src="{LIVE.as_uri()}/{name}.js"></script>' for name in names
            )
            path = tmp_path / "page.html"
            filled = BARE.format(
                live=LIVE.as_uri(),
                scripts=f"{scripts}<script>{script}</script>",
                figure=figure,
                options=options,
            )
            path.write_text(filled, encoding="utf-8")
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(error))
            page.emulate_media(**media)
            page.goto(path.as_uri() + address)
            return page

        yield open_page
    assert not errors
