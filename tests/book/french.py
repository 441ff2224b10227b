"""What of a page is written in words, piece by piece, and of which piece the French says the same.

`python -m tests.book.french book/worksheet.md` shows each piece with the line that the French page
puts before its own: `% de PAGE HASH`. It names the English that the French was written from.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.book.contents import ROOT
from tests.book.markup import FRONT_MATTER, Page, emptied
from tests.book.markup import blocks as directives

SOURCE = re.compile(r"^% de (?P<page>\S+\.md) (?P<digest>[0-9a-f]{8})$")
CODE = re.compile(r"^(?P<fence>`{3,})(?P<name>\S*).*?^(?P=fence)[ \t]*$", re.M | re.S)
TITLE = re.compile(r"^:::+\{(?!solution|prf:ref)[\w:-]+\}[ \t]*(.*)$")
MACHINERY = re.compile(r"^:::+(?:\{.*)?$|^:[\w-]+:(?: .*)?$|^\([\w-]+\)=$")
WORD = re.compile(r"[^\W\d_]{2}")
FORMULA = re.compile(r"\$\$(?:(?!\\text).)*?\$\$(?:[ \t]*\([\w-]+\))?", re.S)
SETTINGS = {"caption", "alt", "code_prompt_show", "code_prompt_hide"}


@dataclass
class Piece:
    """A heading, a paragraph, a list, a table; or a cell's caption, alternative text, comments."""

    text: str
    line: int
    sources: list[tuple[str, str]] = field(default_factory=list)  # (page, digest)


def digest(text: str) -> str:
    """Return eight digits that change with the words, and not with where their lines end."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]


def said_by(settings: object) -> Iterator[str]:
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name in SETTINGS:
            yield str(value)
        else:
            yield from said_by(value)


def comments(code: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def words_of_cell(text: str) -> str:
    """Return what a reader of another language could not read of a cell."""
    (cell,) = directives(text)
    return "\n".join([*said_by(cell.settings), *comments(cell.code)])


def words(text: str) -> str:
    """Return a piece of text without what only the book reads."""
    lines = (TITLE.sub(r"\1", line) for line in text.split("\n"))
    return "\n".join(line for line in lines if not MACHINERY.match(line)).strip()


def chunks(text: str) -> Iterator[tuple[int, str]]:
    """Yield what stands between empty lines, and each cell as a whole, with its first line."""
    start, lines, fence = 1, [""], ""
    for number, line in enumerate([*text.split("\n"), ""], 1):
        ends = SOURCE.match(line) or SOURCE.match(lines[-1])
        if not fence and (not line.strip() or line.startswith("```") or ends):
            yield start, "\n".join(lines)
            start, lines = number, []
        lines.append(line)
        if fence and line.strip() == fence:
            fence = ""
            yield start, "\n".join(lines)
            start, lines = number + 1, [""]
        elif not fence and (opened := re.match("`{3,}", line)):
            fence = opened[0]
    yield start, "\n".join(lines)


def pieces(text: str) -> Iterator[Piece]:
    """Yield what is written in words, in order, each with the sources named before it."""
    sources: list[tuple[str, str]] = []
    for line, chunk in chunks(FRONT_MATTER.sub(emptied, text)):
        if named := SOURCE.match(chunk):
            sources.append((named["page"], named["digest"]))
            continue
        if chunk.startswith("```{code-cell}"):
            said = words_of_cell(chunk)
        elif chunk.startswith("```{"):
            said = "\n".join(said_by(next(directives(chunk)).options))
        else:
            said = words(chunk)
        if WORD.search(FORMULA.sub("", said)):
            yield Piece(said, line + (len(chunk) - len(chunk.lstrip("\n"))), sources)
            sources = []


def blocks(page: Page) -> list[Piece]:
    return list(pieces(page.text))


def show(page: Page) -> Iterator[str]:
    """Yield each piece of a page below the line that its French one needs."""
    for piece in blocks(page):
        yield f"{page}:{piece.line}\n% de {page} {digest(piece.text)}\n{piece.text}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(*show(Page(ROOT / name)), sep="\n\n")
