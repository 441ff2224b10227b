"""What a French page must have: what its English twin has, as new, and written as French is."""

from __future__ import annotations

import ast
import os.path
import re
from collections import Counter
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from itertools import groupby, zip_longest

from book._ext.french_words import ENGLISH
from tests.book.contents import ROOT
from tests.book.french import Piece, blocks, digest
from tests.book.letters import formulas
from tests.book.look_checks import sentences
from tests.book.markup import Page
from tests.book.page_checks import GLUED_TEXT, REFERENCE

LINK = re.compile(r"\]\(([^)\s]+)\)")
CITED = re.compile(r"\{cite:\w\}`([^`]+)`")

DRAWN = {"label", "title", "xlabel", "ylabel"}  # may be French, and replace a function's own words

THIN, FIXED = "\u202f", "\u00a0"
NO_TEXT = re.compile(
    r"^:{3,}(?:\{[\w:-]+\})?|^:[\w-]+:.*|^[|\s:-]+$|^: |\{[\w:]+\}|https?:\S+", re.M
)
WRONG = {
    rf"(?<![{THIN}?!])[;?!](?!\w)": "before ; ! ? stands a narrow no-break space, U+202F",
    rf"(?<!{FIXED}):(?=[\s*_]|$)": "before : stands a no-break space, U+00A0",
    rf"«(?!{THIN})|(?<!{THIN})»": "inside « » stands a narrow no-break space, U+202F",
    r'"': "what is quoted stands in « »",
    r"\d ?%": "before % stands a narrow no-break space, U+202F",
    r"\d\.\d": "a decimal has a comma",
    rf"\d[ {FIXED}]\d{{3}}\b|(?<![\d,])\d{{5,}}": (
        "thousands are separated by a narrow no-break space, U+202F, from five digits on"
    ),
}


def named(page: Page) -> str:
    return str(page).removesuffix(".md")


def twin_of(page: Page) -> Page:
    return Page(ROOT / f"{ENGLISH[named(page)]}.md")


def beginning(piece: Piece) -> str:
    return f"“{' '.join(piece.text.split())[:50]}”"


# Age


def quoted(page: Page) -> Iterator[tuple[Piece, str, str]]:
    """Yield the English that a French page says it was written from; a piece may stand for two."""
    for piece in blocks(page):
        for source, code in piece.sources:
            yield piece, source, code


def older(page: Page) -> Iterator[str]:
    """Name what was written from English that is no longer there, and what stands in its place."""
    for source in dict.fromkeys(name for _, name, _ in quoted(page)):
        pieces = [(piece, code) for piece, name, code in quoted(page) if name == source]
        english = Page(ROOT / source)
        if not english.path.exists():
            yield f"{page}:{pieces[0][0].line} was written from {source}, which is not there"
            continue
        now = blocks(english)
        codes = [digest(piece.text) for piece in now]
        matcher = SequenceMatcher(None, codes, [code for _, code in pieces], autojunk=False)
        for _, first, last, start, end in matcher.get_opcodes():
            for place, (piece, code) in enumerate(pieces[start:end]):
                if code not in codes:
                    there = now[max(min(first + place, last - 1, len(now) - 1), 0)]
                    yield (
                        f"{page}:{piece.line} is older than {source}:{there.line}: write what it "
                        f"says now, and above it % de {source} {digest(there.text)}"
                    )


def left_out(page: Page) -> Iterator[str]:
    """Name what a twin does not say, in its order, and what says from where in no line."""
    twin = twin_of(page)
    now = blocks(twin)
    codes = [digest(piece.text) for piece in now]
    mine = [code for code, _ in groupby(code for _, _, code in quoted(page))]
    for piece in blocks(page):
        if not piece.sources:
            yield f"{page}:{piece.line} has no line % de {twin} …: {beginning(piece)}"
    if any(code not in codes for code in mine):
        return  # what is older is told first
    for kind, first, last, start, end in SequenceMatcher(None, codes, mine, False).get_opcodes():
        if kind in ("delete", "replace"):
            for piece in now[first:last]:
                yield f"{page} says nothing of {twin}:{piece.line} at its place: {beginning(piece)}"
        if kind == "insert":
            yield f"{page} says in another order, or twice: % de {twin} {' '.join(mine[start:end])}"


# Sameness


class InNoLanguage(ast.NodeTransformer):
    """Takes the words out of code; options, keys and what is glued are no words."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        values = [self.visit(part) for part in node.values if isinstance(part, ast.FormattedValue)]
        return ast.JoinedStr(values)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node.value = self.visit(node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if getattr(node.func, "id", "") == "glue":
            return node
        node.func, node.args = self.visit(node.func), [self.visit(value) for value in node.args]
        node.keywords = [word for word in node.keywords if word.arg not in {*DRAWN, "language"}]
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Pass over what a check is said to have said."""
        names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        return ast.Pass() if names == {"said"} else self.generic_visit(node)


def in_no_language(code: str) -> str:
    return ast.dump(InNoLanguage().visit(ast.parse(code)))


def other_cells(page: Page) -> Iterator[str]:
    """Name the first cell that does something else than that of the English twin."""
    twin = twin_of(page)
    for cell, same in zip_longest(page.cells, twin.cells):
        if cell is None or same is None:
            yield f"{page} has {len(page.cells)} cells, {twin} has {len(twin.cells)}"
        elif in_no_language(cell.code) != in_no_language(same.code):
            yield f"{page}:{cell.line} does something else than {twin}:{same.line}"
        elif cell.tags != same.tags:
            yield f"{page}:{cell.line} has other tags than {twin}:{same.line}"
        else:
            continue
        return


def place(page: Page, target: str) -> str:
    """Return where a link or a glued number leads, in English where it is a page of both."""
    path, mark, rest = re.match(r"([^:#]*)(::|#)?(.*)", target, re.S).groups()  # type: ignore[union-attr]
    there = os.path.relpath(os.path.normpath(page.path.parent / path), ROOT).removesuffix(".md")
    return f"{ENGLISH.get(there, there)}{mark or ''}{rest.removesuffix('-fr')}"


def in_english(label: str) -> str:
    return label.removesuffix("-fr")


def referred_to(page: Page) -> Counter[str]:
    """Count what a page leads to: numbers, figures, equations, pages, sites, sources."""
    glued = [place(page, text.rsplit(":", 1)[0]) for text in GLUED_TEXT.findall(page.text)]
    labels = [in_english(label) for _, label in REFERENCE.findall(page.text)]
    links = LINK.findall(page.text)
    outside = [link for link in links if "://" in link]
    inside = [place(page, link) for link in links if "://" not in link]
    return Counter([*glued, *labels, *outside, *inside, *CITED.findall(page.text)])


def lost(page: Page) -> Iterator[str]:
    """Name what one of two twins quotes, shows or leads to, and the other does not."""
    twin = twin_of(page)
    mine = referred_to(page) + Counter(in_english(label) for label in labels(page))
    there = referred_to(twin) + Counter(in_english(label) for label in labels(twin))
    yield from (f"{page} lacks {what}, which {twin} has" for what in sorted(there - mine))
    yield from (f"{page} has {what}, which {twin} lacks" for what in sorted(mine - there))


def labels(page: Page) -> set[str]:
    return {label for label in page.labels if re.match("(?:fig|eq|ex|sol|thm|lem)-", label)}


# Typography


def badly_set(page: Page) -> Iterator[str]:
    """Name what French typography writes otherwise, outside of code."""
    description = str(page.front_matter.get("myst", {}).get("html_meta", {}).get("description", ""))
    texts = [(page.line_of("description:") or 1, description), *sentences(page)]
    for line, text in texts:
        text = NO_TEXT.sub("", text)
        for pattern, what in WRONG.items():
            if found := re.search(pattern, text):
                around = text[max(0, found.start() - 25) : found.end() + 10].strip()
                yield f"{page}:{line}: {what}: “{around}”"
    for line, formula in formulas(page):
        if found := re.search(r"\d\.\d", formula):
            yield f"{page}:{line}: a decimal has a comma, 0{{,}}5 in a formula: “{formula}”"


OF_A_FRENCH_PAGE: list[Callable[[Page], Iterator[str]]] = [older, badly_set]
OF_A_TWIN: list[Callable[[Page], Iterator[str]]] = [left_out, other_cells, lost]
