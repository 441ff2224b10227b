"""What the search reads: the prose of each section of each written page, in one script.

Sphinx's own index tells which pages hold a word, but neither how often, nor where, nor in which
sentence; it leaves numbers out, and every page loads it. A script can be read from file://, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish
from sphinx.util.typing import ExtensionMetadata

INDEX = "search-index.js"
# What no sentence of the text is: marks, buttons, formulas on lines of their own.
NO_PROSE = "script, style, .headerlink, .section-number, .caption-number, summary, div.math"
PARTS = "section[id], dl.py"  # each with a heading of its own
BLOCKS = "p, li, dt, dd, th, td, figcaption"  # between two of them words end
CODE = re.compile(r"<pre>.*?</pre>", re.S)
SIMPLE_FORMULA = re.compile(r"[\w\s=+<>,.()/|*'-]*")
WORD = re.compile(r"\w+")


def flat(text: str) -> str:
    return " ".join(text.split())


def uncoloured(code: re.Match[str]) -> str:
    """Return code without its thousands of colours, which take the parser most of its time."""
    return f"<pre>{re.sub('<[^>]*>', '', code[0])}</pre>"


def formula(element: Tag) -> str:
    """Return an inline formula as text, or a gap where that takes TeX."""
    source = element.get_text().removeprefix(r"\(").removesuffix(r"\)").replace("{", "")
    source = source.replace("}", "")
    return source if SIMPLE_FORMULA.fullmatch(source) else "…"


def heading(part: Tag) -> tuple[str, str]:
    """Return the anchor and the heading of a section, or of what the API page documents."""
    if part.name == "dl":
        signature = part.find("dt", id=True)
        assert isinstance(signature, Tag)
        return str(signature["id"]), str(signature["id"]).removeprefix("sgd_analysis.")
    title = part.find(re.compile("h[1-6]"), recursive=False)
    return str(part.get("id", "")), flat(title.extract().get_text()) if title else ""


def sections(article: Tag) -> Iterator[list[str]]:
    """Yield anchor, heading, prose and the words of the code of each part, the last one first."""
    for element in article.select(NO_PROSE):
        element.decompose()
    for element in article.select("span.math"):
        element.replace_with(formula(element))
    for element in article.select(BLOCKS):
        element.append(": " if "admonition-title" in (element.get("class") or "") else " ")
    for part in reversed(article.select(PARTS)):  # so that what lies in another is gone from it
        anchor, title = heading(part.extract())
        code = [element.extract().get_text(" ") for element in part.select("pre, dt.sig")]
        words = sorted({word for text in code for word in WORD.findall(text)})
        yield [anchor, title, flat(part.get_text()), " ".join(words)]


def page_entry(address: str, html: str) -> dict[str, Any]:
    """Return what the search knows of a page."""
    page = BeautifulSoup(CODE.sub(uncoloured, html), "html.parser")
    said = {str(meta["name"]): str(meta["content"]) for meta in page.select("meta[name][content]")}
    article = page.find("article")
    assert isinstance(article, Tag) and page.html
    number = article.select_one("h1 .section-number")
    return {
        "address": address,
        "language": page.html["lang"],
        "number": number.get_text() if number else "",
        "about": said.get("description", ""),
        "keywords": said.get("keywords", ""),
        "sections": [*sections(article)][::-1],
    }


def write_index(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Write the index of the pages, which have been written, and ask for the page to search on."""
    if app.builder.name != "html":
        return
    pages = [
        page_entry(address, Path(app.outdir, address).read_text(encoding="utf-8"))
        for address in map(app.builder.get_target_uri, sorted(app.env.found_docs))
    ]
    data = json.dumps(pages, ensure_ascii=False, separators=(",", ":"))
    script = f"{SearchEnglish.js_stemmer_code}\nconst SEARCH_INDEX = {data};\n"
    Path(app.outdir, INDEX).write_text(script, encoding="utf-8")
    yield "search", {}, "search.html"


def leave_out_search_scripts(head: str) -> str:
    """Drop Sphinx's search, with its index, which the theme loads on every page."""
    scripts = r"<script [^>]*/?(?:searchtools|language_data|searchindex)\.js[^>]*></script>"
    return re.sub(scripts, "", head)


def replace_search(app: Sphinx) -> None:
    if app.builder.format == "html":
        app.builder.search = False
        filters = app.builder.templates.environment.filters
        filters["leave_out_search_scripts"] = leave_out_search_scripts


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("builder-inited", replace_search)
    app.connect("html-collect-pages", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
