"""Leave out of the built book what no page loads, and write its figures with fewer letters."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from book_rebuild import written
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

# What MathJax asks for by itself, while it typesets: fonts, and what \color or \cancel need. The
# pages load tex-chtml.js alone; the menu that would ask for more, for speech for one, is off.
MATHJAX = (
    "tex-chtml.js",
    "output/chtml/fonts/woff-v2/*.woff",
    "input/tex/extensions/*.js",
)
# Source maps are for whoever debugs the theme; each .ttf is a second copy of a .woff2.
NEVER_LOADED = {".map", ".ttf"}

GEOMETRY = re.compile(r'(?<=[ (])(?:d|x|y|points)="[^"]*"|translate\([^)]*\)')
PATH = re.compile(r'(?<= d=")[^"]*')
STYLE = re.compile(r'(?<= style=")[^"]*')
GLYPH = re.compile(r'(<use href="[^"]*") transform="translate\(([^ )]+) ([^ )]+)\)"')
SIZE = re.compile(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"')  # in points
LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")


def rounded(number: re.Match[str]) -> str:
    return f"{round(float(number[0]), 1) + 0:.1f}".removesuffix(".0")  # + 0: no minus zero


def without_needless_ids(drawing: str) -> str:
    used = set(re.findall(r"#([\w-]+)", drawing))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", drawing)


def size_of(drawing: str) -> str:
    """Say in HTML's attributes how large a drawing is, so that a page keeps room for it."""
    if not (found := SIZE.search(drawing)):
        return ""
    width, height = (round(float(points) * 4 / 3) for points in found.groups())
    return f' width="{width}" height="{height}"'


def tidy_svg(drawing: str) -> str:
    """Write the same drawing shorter: to a tenth of a point, without a needless name or space."""
    drawing = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawing, flags=re.S)
    drawing = GEOMETRY.sub(lambda found: LONG_NUMBER.sub(rounded, found[0]), drawing)
    drawing = re.sub(r"(?<=>) (?=<)", "", re.sub(r"\s+", " ", drawing)).strip() + "\n"
    drawing = drawing.replace("xlink:href", "href").replace("DejaVuSans-", "D")
    drawing = GLYPH.sub(r'\1 x="\2" y="\3"', drawing).replace(' y="0"/>', "/>")
    drawing = PATH.sub(lambda found: re.sub(r" ?([a-zA-Z]) ?| $", r"\1", found[0]), drawing)
    return without_needless_ids(STYLE.sub(lambda found: found[0].replace("; ", ";"), drawing))


def tidy_figures(app: Sphinx, env: BuildEnvironment) -> None:
    """Shorten the figures that cells have drawn, before they are copied beside the pages."""
    for path in Path(env.mystnb_config.output_folder).rglob("*.svg"):
        drawing = path.read_text(encoding="utf-8")
        if (tidied := tidy_svg(drawing)) != drawing:
            # At once or not at all: a figure that is there is not written again.
            part = path.with_suffix(".part")
            part.write_text(tidied, encoding="utf-8")
            shutil.copystat(path, part)  # a page with a newer figure would be read again
            part.replace(path)


def mentioned(pages: Iterable[Path], files: Iterable[Path]) -> set[Path]:
    """Find the files whose names occur in the pages, or in a style or script that they mention."""
    found: set[Path] = set()
    unread, missing = list(pages), set(files)
    while unread:
        text = unread.pop().read_text(encoding="utf-8", errors="replace")
        new = {path for path in missing if path.name in text}
        missing -= new
        found |= new
        unread += [path for path in new if path.suffix in (".css", ".js")]
    return found


def loaded(site: Path) -> Iterator[Path]:
    """Yield what the pages of a built site can load from its folder of static files."""
    static, mathjax = site / "_static", site / "_static/mathjax"
    pages = [path for path in site.rglob("*.html") if static not in path.parents]
    others = [
        path
        for path in static.rglob("*")
        if path.is_file() and mathjax not in path.parents and path.suffix not in NEVER_LOADED
    ]
    yield from mentioned(pages, others)
    for pattern in MATHJAX:
        yield from mathjax.glob(pattern)


def prune(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        static = Path(app.outdir, "_static")
        needless = written(app) - set(loaded(Path(app.outdir)))
        for folder, _, names in os.walk(static, topdown=False):
            for path in (Path(folder, name) for name in names):
                if path in needless:
                    path.unlink()
            if not os.listdir(folder):
                os.rmdir(folder)


def leave_out_icon_script(head: str) -> str:
    """Drop the theme's script of 1.5 MB that draws each icon a second time, over the icon font."""
    return re.sub(r"<script [^>]*/fontawesome\.js[^>]*></script>", "", head)


def add_filter(app: Sphinx) -> None:
    if app.builder.format == "html":
        app.builder.templates.environment.filters["leave_out_icon_script"] = leave_out_icon_script


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("builder-inited", add_filter)
    app.connect("env-updated", tidy_figures)
    app.connect("build-finished", prune, priority=800)  # after MathJax was copied
    return {"parallel_read_safe": True, "parallel_write_safe": True}
