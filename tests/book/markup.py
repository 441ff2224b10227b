"""A page of the book, read as what its tests ask for: blocks, sections, prose, labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.book.contents import ROOT

FENCE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[^}\n]+)\}[ \t]*(?P<argument>[^\n]*)\n"
    r"(?P<content>.*?)^(?P=fence)[ \t]*$",
    re.M | re.S,
)
SOLUTION = re.compile(r"^:::\{solution-start\}.*?^:::\{solution-end\}\n:::$", re.M | re.S)
FOLDED = re.compile(  # solutions, and boxes of :class: dropdown
    SOLUTION.pattern
    + r"|^:::\{solution\}.*?^:::$|^:::\{admonition\}[^\n]*\n:class: dropdown$.*?^:::$",
    re.M | re.S,
)
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.M | re.S)


class MarkupError(ValueError):
    """Settings that cannot be read, of what begins at a line."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def settings_in(text: str, line: int) -> dict[str, Any]:
    """Read what stands between two lines of three dashes."""
    try:
        return dict(yaml.safe_load(text) or {})
    except (ValueError, yaml.YAMLError) as error:
        what = f"what stands between --- and --- is no YAML of names and values: {error}"
        raise MarkupError(what, line) from error


@dataclass(frozen=True)
class Block:
    """A directive or a cell."""

    name: str
    argument: str
    options: dict[str, Any]
    content: str
    line: int

    @property
    def tags(self) -> str:
        return str(self.options.get("tags", ""))

    @property
    def settings(self) -> dict[str, Any]:
        """What the book is told about a cell."""
        return dict(self.options.get("mystnb", {}))

    @property
    def code(self) -> str:
        """What a cell executes: its content without what the book is told about it."""
        settings = r"\A---\n.*?^---\n|^:[\w-]+:[^\n]*$|^from myst_nb import glue$"
        return re.sub(settings, "", self.content, flags=re.M | re.S)


def emptied(match: re.Match[str]) -> str:
    """Return as many lines without text."""
    return "\n" * match[0].count("\n")


def blocks(text: str, first_line: int = 1) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        content = match["content"]
        line = first_line + text.count("\n", 0, match.start())
        if header := re.match(r"---\n(.*?)^---\n", content, re.M | re.S):
            options = settings_in(header[1], line)
        else:
            options = dict(re.findall(r"^:([\w-]+):[ \t]*(.*)$", content, re.M))
        yield Block(match["name"], match["argument"].strip(), options, content, line)
        if match["name"] != "code-cell":
            yield from blocks(content, line + 1)


@dataclass(frozen=True)
class Page:
    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path)

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        return list(blocks(self.text))

    def named(self, *names: str) -> list[Block]:
        return [block for block in self.blocks if block.name in names]

    @property
    def is_french(self) -> bool:
        return self.path.parent.name == "fr"

    @property
    def cells(self) -> list[Block]:
        return self.named("code-cell")

    @property
    def front_matter(self) -> dict[str, Any]:
        found = FRONT_MATTER.match(self.text)
        return settings_in(found[1], 1) if found else {}

    def line_at(self, position: int) -> int:
        """Return the line of a position in the text, counted from one."""
        return self.text.count("\n", 0, position) + 1

    def line_of(self, text: str) -> int | None:
        """Return the line on which a text begins first."""
        return self.line_at(self.text.index(text)) if text in self.text else None

    @cached_property
    def headings(self) -> list[str]:
        """The titles of the sections, without what stands in cells."""
        return re.findall(r"^## (.*)$", FENCE.sub("", self.text), re.M)

    def section(self, title: str) -> str | None:
        """Return what stands under the heading that begins with the title."""
        found = re.search(rf"^## {title}[^\n]*\n(.*?)(?=^## |\Z)", self.text, re.M | re.S)
        return found[1] if found else None

    @cached_property
    def prose(self) -> str:
        """The sentences of a page, captions included, at their own lines."""
        return self.sentences(self.text)

    @cached_property
    def n_words_to_read(self) -> int:
        """Count the words of the sentences that are not folded."""
        text = self.sentences(FOLDED.sub(emptied, self.text))
        text = re.sub(r"^:::.*$|^:[\w-]+:.*$|\{[a-z:]+\}", "", text, flags=re.M)
        return len(re.findall(r"\w+", text))

    def sentences(self, text: str) -> str:
        """Return the text of the page, or a part at its own lines, without code and formulas."""

        def caption(match: re.Match[str]) -> str:
            figure = settings[match.string.count("\n", 0, match.start()) + 1].get("figure", {})
            return str(figure.get("caption", "")).replace("\n", " ") + emptied(match)

        settings = {block.line: block.settings for block in self.blocks}

        code = r"^(`{3,})\{(?:code-cell|math|bibliography|eval-rst)\}.*?^\1[ \t]*$"
        text = FRONT_MATTER.sub(emptied, text)
        text = re.sub(code, caption, text, flags=re.M | re.S)
        text = re.sub(r"^```.*?^```", emptied, text, flags=re.M | re.S)
        text = re.sub(r"\$\$.*?\$\$", emptied, text, flags=re.S)
        text = re.sub(r"^:(?:alt|name|label|class):.*$|^%.*$", "", text, flags=re.M)
        return re.sub(r"\$[^$\n]*\$|`[^`\n]*`|\]\([^)]*\)|^\([\w-]+\)=$", "", text, flags=re.M)

    @cached_property
    def labels(self) -> set[str]:
        found = {*re.findall(r"^\(([\w-]+)\)=", self.text, re.M)}
        found |= {*re.findall(r"\$\$[ \t]*\(([\w-]+)\)", self.text)}
        for block in self.blocks:
            figure = block.settings.get("figure", {})
            found |= {block.options.get("label"), block.options.get("name"), figure.get("name")}
        return found - {None}

    @cached_property
    def glued_keys(self) -> re.Pattern[str]:
        """What its cells glue; a key built by an f-string stands for all it may become."""
        keys = []
        for f_string, key in re.findall(r"\bglue\(\s*(f?)\"([^\"]+)\"", self.text):
            parts = re.split(r"\{[^}]*\}", key) if f_string else [key]
            keys.append(".+".join(re.escape(part) for part in parts))
        return re.compile("|".join(keys) or "(?!)")
