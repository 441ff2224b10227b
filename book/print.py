"""Print the book, and its solutions apart: ``python book/print.py``, from the repository's root.

The pages that were built last are not executed again. The two PDFs lie beside the built HTML, whose
landing page links to them if BOOK_PDF was set when it was built. It takes Playwright, Chromium and
pikepdf.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from _ext.book_names import BROWSERS, EDITIONS, package_version

ROOT = Path(__file__).parents[1]
PRINTING = Path(__file__).parent / "_ext/printing"
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")

PAGE = """\
<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="_static/pygments.css">
<style>{style}</style>
<script>window.MathJax = {mathjax}</script>
<script defer src="_static/mathjax/tex-chtml.js"></script>
</head>
<body>
<header class="title-page">
<p class="title">{title}</p>
<p class="author">{author}</p>
<p class="licence">Version {version}. {licence}</p>
</header>
<nav aria-label="Contents"></nav>
<main><article>{body}</article></main>
</body>
</html>
"""


def build(root: Path) -> Path:
    """Build the book as one page, strictly, from what the last build has executed."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [program, "build", ".", "--builder", "singlehtml", "-W", "-n", "--keep-going"]
    subprocess.run(command, cwd=root, check=True)
    return root / "_build/singlehtml"


def page_to_print(root: Path, site: Path) -> Path:
    """Write the page that is printed: the book's text, without the site around it."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    first = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))["root"]
    built = (site / f"{first}.html").read_text(encoding="utf-8")
    found = re.search(r'<article class="bd-article">(.*)</article>', built, re.S)
    if not found:
        raise ValueError(f"expected an article in the page of the whole book, {site}/{first}.html")
    settings = re.search(r"<script>window\.MathJax = (.*?)</script>", built)
    mathjax = json.loads(settings[1]) if settings else {"options": {}}
    mathjax["startup"] = {"typeset": False}  # print.js does it
    mathjax["options"]["enableAssistiveMml"] = False  # print.js has another way
    page = site / "print.html"
    text = PAGE.format(
        title=config["title"],
        author=config["author"],
        version=package_version(root),
        licence=re.sub(r"</?p>", "", config["html"]["extra_footer"]).strip(),
        style=(PRINTING / "print.css").read_text(encoding="utf-8"),
        mathjax=json.dumps(mathjax),
        body=found[1].replace(f'href="{first}.html#', 'href="#'),
    )
    page.write_text(text, encoding="utf-8")
    return page


def captions(root: Path) -> list[str]:
    """Name the parts of the book, one for each list of chapters."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [part.get("caption", "") for part in toc.get("parts", [toc])]


def chapter_pages(document: bytes) -> Iterator[int]:
    """Yield the page, counted from one, on which each heading of the first level stands."""
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(document))
    for entry in reader.outline:
        if not isinstance(entry, list):
            number = reader.get_destination_page_number(entry)
            yield 0 if number is None else number + 1


def print_page(page: Path, parts: list[str], edition: str) -> bytes:
    """Print the page in Chromium, once to learn the chapters' page numbers, and once with them."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise FileNotFoundError(f"expected one of {', '.join(BROWSERS)} on the path, to print with")
    settings: dict[str, Any] = dict(prefer_css_page_size=True, outline=True, tagged=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        # As wide as the text of a page, so that what is too wide can be seen before it is printed.
        tab = browser.new_page(viewport={"width": 642, "height": 950})
        tab.emulate_media(media="print", color_scheme="light")
        tab.goto(page.as_uri())
        tab.evaluate((PRINTING / "print.js").read_text(encoding="utf-8"), [parts, edition])
        numbers = list(chapter_pages(tab.pdf(**settings)))
        tab.evaluate("numbers => fillPageNumbers(numbers)", numbers)
        document = tab.pdf(**settings, print_background=True)
        browser.close()
    if list(chapter_pages(document)) != numbers:
        raise RuntimeError("the page numbers of the contents have moved the pages they count")
    return document


def shorter(document: bytes) -> bytes:
    """Return the same document with its structure, for screen readers, compressed as well."""
    import pikepdf

    written, mode = BytesIO(), pikepdf.ObjectStreamMode.generate
    with pikepdf.open(BytesIO(document)) as pdf:
        pdf.save(written, object_stream_mode=mode, deterministic_id=True)
    return written.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the book, and its solutions apart.")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="the book's folder")
    root = parser.parse_args().root.resolve()
    page = page_to_print(root, build(root))
    for edition, name in EDITIONS.items():
        document = shorter(print_page(page, captions(root), edition))
        target = root / "_build/html" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(document)
        with (root / "_build/.doctrees/written-html").open("a", encoding="utf-8") as journal:
            journal.write(f"{name}\n")  # so that the next build knows whose it is
        print(f"printed: {target.relative_to(root)}, {len(document) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
