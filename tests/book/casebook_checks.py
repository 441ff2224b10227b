"""What a case of the casebook must have: a report, a loop, the numbers that decide, an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.book.markup import FENCE, Page, blocks

CASE = re.compile(r"^\((case-[\w-]+)\)=\n### ([^\n]*)\n(.*?)(?=^\(case-|^## |\Z)", re.M | re.S)
INDEX = re.compile(r"^\(casebook-index\)=\n(.*?)(?=^## )", re.M | re.S)
THREAD = re.compile(r"\[`([\w.-]+/[\w.-]+)#(\d+)`\]\(https://github\.com/(\S+?)/\w+/(\d+)\)")
PARTS = ["It is decided by", "The answer.", "The way out."]
LINES, COLUMNS = 16, 66


@dataclass(frozen=True)
class Case:
    """One symptom of the page."""

    label: str
    title: str
    text: str

    @cached_property
    def prose(self) -> str:
        return FENCE.sub("", self.text)

    def part(self, name: str) -> str:
        found = re.search(rf"^\*\*{re.escape(name)}\*\* (.*?)(?=^\*\*|\Z)", self.prose, re.M | re.S)
        return found[1].strip() if found else ""

    def complaints(self) -> Iterator[str]:
        """Say what it lacks."""
        if not re.fullmatch("“.+”", self.title):
            yield "its title is no sentence of a reporter, in “ and ”"
        yield from self._about_its_report()
        yield from self._about_its_cells()
        yield from self._about_its_parts()

    def _about_its_report(self) -> Iterator[str]:
        threads = THREAD.findall(self.prose)
        if not threads:
            yield "no public report: [`owner/name#1`](https://github.com/owner/name/issues/1)"
        for name, number, address, of_address in threads:
            if (name, number) != (address, of_address):
                yield f"{name}#{number} leads to {address}/{of_address}"

    def _about_its_cells(self) -> Iterator[str]:
        cells = [block for block in blocks(self.text) if block.name == "code-cell"]
        shown = [cell for cell in cells if not re.search("hide-input|remove-cell", cell.tags)]
        if not shown:
            yield "no open cell reproduces it"
        for cell in shown:
            lines = cell.content.strip().split("\n")
            if len(lines) > LINES or max(map(len, lines)) > COLUMNS:
                yield f"a cell is longer than {LINES} lines, or wider than {COLUMNS} columns"
        checked = [cell.content for cell in cells if "remove-cell" in cell.tags]
        if not any(re.search(r"^\s*assert ", content, re.M) for content in checked):
            yield "no hidden cell asserts what it claims"

    def _about_its_parts(self) -> Iterator[str]:
        for name in PARTS:
            if not self.part(name):
                yield f"no paragraph that begins with **{name}**"
        if "{glue:text}`" not in self.part(PARTS[0]):
            yield "no measured number decides it"
        sentences = re.findall(r"[.?!](?=\s|\Z)", self.part(PARTS[1]))
        if len(sentences) > 3:
            yield f"the answer has {len(sentences)} sentences: two, or three at most"


def cases(page: Page) -> list[Case]:
    return [Case(*found) for found in CASE.findall(page.text)]


def indexed(page: Page) -> list[str]:
    """Return the cases that the index at the page's top leads to."""
    index = INDEX.search(page.text)
    return re.findall(r"\{ref\}`(case-[\w-]+)`", index[1]) if index else []
