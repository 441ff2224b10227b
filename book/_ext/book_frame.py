"""What stands around a page's text speaks the page's language, and marks what is in the other."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from french_words import FRAME, is_french
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

ARTICLE = re.compile(r"<article\b.*?</article>", re.S)
CAPTION = re.compile(r'(<span class="caption-text")(>(?:(?!caption-text).)*?href="([^"]*)")', re.S)
LINK = re.compile(r'<a class="([^"]*)" href="([^"]*)"')
SEEN = re.compile(r'(>\s*|(?:title|aria-label|placeholder)=")([^<>"]+?)(?=\s*<|")')


def language_of(page: str) -> str:
    return "fr" if is_french(page) else "en"


def mark_contents(contents: str, page: str) -> str:
    """Name the language of each title in the list of contents that is not in the page's own."""

    def other(address: str) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), address))
        language = language_of(page if address == "#" else target)
        return "" if language == language_of(page) else f'lang="{language}"'

    def caption(found: re.Match[str]) -> str:
        marked = other(found[3])
        return f"{found[1]} {marked}{found[2]}" if marked else found[0]

    def link(found: re.Match[str]) -> str:
        marked = other(found[2])
        return f"{found[0]} {marked} href{marked}" if marked else found[0]

    return LINK.sub(link, CAPTION.sub(caption, contents))


def neighbour(app: Sphinx, page: str, step: int) -> dict[str, str] | None:
    """Return the page before (1) or after (2) in the page's own language: its address and title."""
    relations: dict[str, list[str | None]] = app.builder.relations
    found = page if page in relations else None
    while found := relations[found][step] if found else None:
        if language_of(found) == language_of(page):
            title = app.builder.render_partial(app.env.titles[found])["title"]
            return {"link": app.builder.get_relative_uri(page, found), "title": title}
    return None


def speak(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    contents: Callable[..., str] = context["toctree"]
    context["toctree"] = lambda **settings: mark_contents(contents(**settings), page)
    context["language"] = language_of(page)
    for name, step in (("prev", 1), ("next", 2)):
        context[name] = neighbour(app, page, step)


def frame_in_french(html: str) -> str:
    """Say in French what the theme has written around a page's text."""

    def said(found: re.Match[str]) -> str:
        return found[1] + FRAME.get(found[2], found[2])

    article = ARTICLE.search(html)
    before, after = (html[: article.start()], html[article.end() :]) if article else (html, "")
    return SEEN.sub(said, before) + (article[0] if article else "") + SEEN.sub(said, after)


def frame_french_pages(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    for page in filter(is_french, app.env.found_docs):
        path = Path(app.builder.get_outfilename(page))
        path.write_text(frame_in_french(path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("html-page-context", speak)
    app.connect("build-finished", frame_french_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
