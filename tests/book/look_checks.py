"""How the figures, the numbers and the code of a page look: a sentence for each that does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.book.markup import SOLUTION, Block, Page
from tests.book.page_checks import Check, Missing, numbers_in_english, required

OF_WHAT_IS_SEEN: list[Check] = []

CLAIM = re.compile(r"\*\*[^*]+[.?!]\*\*")
ROLE_OR_FORMULA = re.compile(r"\{[\w:]+\}`[^`]*`|\$[^$]*\$")
ASCII_MATHEMATICS = re.compile("[‖Σ∇ηλ_]")
OWN_COLOUR = re.compile(
    r"""["'](?:\#[0-9A-Fa-f]{3,8}|C\d|tab:)|colou?rs?=["'](?!black|white|none)"""
)
# Of a picture, never of an equation: “the left-hand side of (3)”, or “from left to right”.
SIDE = re.compile(
    r"\b(?:left|middle|right)(?:-hand)? (?:panel|plot|picture|figure|histogram)s?\b"
    r"|\{numref\},? (?:on the |at the )?(?:left|middle|right)\b|\((?:left|right)[),]"
    r"|\bpanels? (?:on|to|at) the (?:left|right)\b|\b(?:Left|Middle|Right)[,:]"
)
SIDE_IN_FRENCH = re.compile(
    r"\b(?:panneau|graphique|figure|histogramme)x?s? (?:de|à|du) (?:gauche|droite|milieu)\b"
    r"|\{numref\},? à (?:gauche|droite)\b|\((?:gauche|droite)[),]|\b[ÀA] (?:gauche|droite)\b"
)
TYPED = {
    r"\d+e[+-]?\d+": "a power of ten is written 7·10⁸³",
    r"(?<![\w–-])-\d[\d.]*": "a minus is a −, not a hyphen",
    r"(?<![\d,.])\d,\d{3}(?![\d,])": "thousands are separated from five digits on",
}
FENCED = re.compile(r"^ *`{3,}python[^\n]*\n(.*?)^ *`{3,}$", re.M | re.S)  # shell lines wrap
SEEN, FOLDED = 60, 88


def sentences(page: Page) -> Iterator[tuple[int, str]]:
    """Yield the lines of the text and its captions, then what describes the pictures."""
    yield from enumerate(page.prose.split("\n"), 1)
    for block in page.blocks:
        alt = block.settings.get("image", {}).get("alt") or block.options.get("alt", "")
        yield block.line, str(alt)


@required(OF_WHAT_IS_SEEN, "caption: ")
def claims_one_thing_in_each_caption(page: Page) -> Iterator[Missing]:
    for cell in page.cells:
        caption = str(cell.settings.get("figure", {}).get("caption", "")).strip()
        words = len(re.findall(r"\S*\w\S*", ROLE_OR_FORMULA.sub("x", caption)))
        if caption and not CLAIM.fullmatch(caption):
            what = "a caption is one bold claim, **…**, and nothing else; panels have titles"
            yield Missing(f"{what}: “{caption[-60:]}”", cell.line)
        elif words > 20:
            yield Missing(f"a caption has at most twenty words, this one {words}", cell.line)


@required(OF_WHAT_IS_SEEN, 'color=figures.MEASURED["color"]')
def takes_its_colours_from_the_register(page: Page) -> Iterator[Missing]:
    for cell in page.cells:
        for line, text in lines_of(cell):
            if found := OWN_COLOUR.search(text):
                what = "a page has no colour of its own, it takes one of sgd_analysis.figures"
                yield Missing(f"{what}: {found[0]}", line)


@required(OF_WHAT_IS_SEEN, "def fit(step_size, most=100):")
def writes_code_that_fits_its_box(page: Page) -> Iterator[Missing]:
    solutions = [
        (page.line_at(found.start()), page.line_at(found.end()))
        for found in SOLUTION.finditer(page.text)
    ]
    for cell in page.cells:
        if re.search("remove-(?:cell|input)", cell.tags):
            continue
        folded = re.search("hide-(?:cell|input)", cell.tags)
        solves = any(start < cell.line < end for start, end in solutions)
        yield from too_wide(lines_of(cell), FOLDED if folded or solves else SEEN)
    for example in FENCED.finditer(page.text):
        first = page.line_at(example.start()) + 1
        yield from too_wide(enumerate(example[1].split("\n"), first), SEEN)


def lines_of(cell: Block) -> Iterator[tuple[int, str]]:
    """Yield the lines of a cell that it executes, and where they stand on the page."""
    settings = re.match(r"---\n.*?^---\n|(?::[\w-]+:[^\n]*\n)+", cell.content, re.M | re.S)
    skipped = settings[0] if settings else ""
    lines = cell.content.removeprefix(skipped).split("\n")
    yield from enumerate(lines, cell.line + 1 + skipped.count("\n"))


def too_wide(lines: Iterator[tuple[int, str]] | enumerate[str], most: int) -> Iterator[Missing]:
    for line, text in lines:
        if len(text) > most:
            what = f"of {len(text)} columns, {most} can be seen"
            yield Missing(f"{what}: “{text.strip()}”", line)


@required(OF_WHAT_IS_SEEN, 'xlabel="step size $\\\\eta$"')
def names_its_axes_in_mathematics(page: Page) -> Iterator[Missing]:
    for cell in page.cells:
        for label, line in axis_labels(ast.parse(cell.code)):
            if found := ASCII_MATHEMATICS.search(re.sub(r"\$[^$]*\$", "", label)):
                what = f"{found[0]} on an axis should stand in a formula, $…$"
                yield Missing(f"{what}: “{label}”", next(lines_of(cell))[0] + line - 1)


def axis_labels(code: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield what is written at axes, and at which line: of an f-string, what is the same always."""
    for node in ast.walk(code):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", "")
        written = [word.value for word in node.keywords if word.arg in ("xlabel", "ylabel")]
        if re.fullmatch("(?:set_|sup)?[xy]label", name):
            written += node.args[:1]
        for value in written:
            parts = value.values if isinstance(value, ast.JoinedStr) else [value]
            texts = [str(part.value) if isinstance(part, ast.Constant) else "0" for part in parts]
            yield "".join(texts), value.lineno


@required(OF_WHAT_IS_SEEN, 'alt: "')
def calls_panels_by_their_titles(page: Page) -> Iterator[Missing]:
    for line, text in sentences(page):
        if found := (SIDE_IN_FRENCH if page.is_french else SIDE).search(text):
            what = "panels stand below each other on a phone, and have titles to be called by"
            yield Missing(f"{what}: “{text[max(0, found.start() - 20) : found.end() + 30]}”", line)


@required(OF_WHAT_IS_SEEN, "1 − 0.1 · 3 is 0.7")
def writes_numbers_for_reading(page: Page) -> Iterator[Missing]:
    for line, text in sentences(page):
        text = numbers_in_english(text) if page.is_french else text
        for pattern, what in TYPED.items():
            if found := re.search(pattern, text):
                yield Missing(f"{what}: {found[0]}", line)
