"""Tables that can be read on a phone, with the rows and columns that a screen reader knows."""

from __future__ import annotations

import re
from collections import Counter
from html import escape, unescape
from itertools import pairwise

HEADING_OR_TABLE = re.compile(
    r'<h[1-6]>(?P<heading>.*?)<a class="headerlink"|<div class="pst-scrollable-table-container">'
)
TABLE = re.compile(r'<table class="table[^>]*>.*?</table>', re.S)
ROW = re.compile(r"<tr\b.*?</tr>", re.S)
CELL = re.compile(r"<(?P<tag>t[hd])\b(?P<attributes>[^>]*)>(?P<content>.*?)</(?P=tag)>", re.S)
ROLES = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tr": "row"}
PART = re.compile(rf"<({'|'.join(ROLES)})\b")

# pandas gives the name of a table's index a row of its own, all else in it empty.
INDEX_NAME = re.compile(
    r"(?P<head><thead>\s*<tr[^>]*>\s*)<td></td>(?P<others>.*?)</tr>\s*"
    r"<tr>\s*(?P<index><th>[^<]*</th>)(?:\s*<td></td>)+\s*</tr>(?=\s*</thead>)",
    re.S,
)
PRINTED = re.compile(
    r'<div class="output (?P<kind>stream|text_plain)(?P<rest>[^>]*>(?:<div[^>]*>)*'
    r"<pre>(?P<text>.*?)</pre>)",
    re.S,
)
FORMULA = re.compile(r"\\\((.*?)\\\)")
MARK = re.compile(r"\\[^a-zA-Z]|[{}_^]")
EDGES = re.compile(r"(?:^ +| {2,})(\S+)")  # a word is in a column where a gap precedes it

LONGEST = 28  # characters that a narrow column of a table still holds


def text_of(content: str) -> str:
    """Return what is read of a piece of HTML, each command of TeX as one letter."""
    text = unescape(re.sub(r"<[^>]*>", "", content)).strip()
    return FORMULA.sub(lambda tex: re.sub(r"\\[a-zA-Z]+", "x", MARK.sub("", tex[1])), text)


def is_prose(heads: list[str], rows: list[list[str]]) -> bool:
    """Whether a phone is too narrow for a table: numbers go side by side, sentences do not."""
    if len(heads) < 3 or any("\\(" in head for head in heads[1:]):
        return False
    return any(len(text_of(cell)) > LONGEST for row in rows for cell in row[1:])


def cells(row: str) -> list[str]:
    return [cell["content"] for cell in CELL.finditer(row)]


def stack(table: re.Match[str]) -> str:
    """Let a narrow screen show each row of a table of sentences as a card, each cell labelled.

    A table that is not laid out as one keeps its meaning by explicit roles.
    """
    head, *rows = ROW.findall(table[0])
    labels = [text_of(content) for content in cells(head)]
    if not is_prose(cells(head), [cells(row) for row in rows]):
        return table[0]

    def label_cells(row: re.Match[str]) -> str:
        remaining = iter(["", *labels[1:]])  # the first cell is the name of its card

        def label(cell: re.Match[str]) -> str:
            text = next(remaining)
            if row[0] == head:
                added = ' role="columnheader"'
            else:
                named = text and text_of(cell["content"])
                added = ' role="cell"' + (f' data-label="{escape(text)}"' if named else "")
            tag, attributes, content = cell["tag"], cell["attributes"], cell["content"]
            return f"<{tag}{attributes}{added}>{content}</{tag}>"

        return CELL.sub(label, row[0])

    stacked = table[0].replace('class="table', 'class="table stacked', 1)
    stacked = ROW.sub(label_cells, stacked)
    return PART.sub(lambda part: f'{part[0]} role="{ROLES[part[1]]}"', stacked)


def name_tables(body: str) -> str:
    """Make each table, which scrolls by itself where it is too wide, a region with a name.

    The name is that of the section, since most tables stand alone in theirs.
    """
    counts: Counter[str] = Counter()
    heading = ""

    def name(match: re.Match[str]) -> str:
        nonlocal heading
        if match["heading"] is not None:
            heading = re.sub(r"<[^>]*>", "", match["heading"])
            return match[0]
        counts[heading] += 1
        number = f" ({counts[heading]})" if counts[heading] > 1 else ""
        label = f"Table: {heading}{number}"
        return f'{match[0][:-1]} tabindex="0" role="region" aria-label="{label}">'

    return HEADING_OR_TABLE.sub(name, body)


def in_columns(text: str) -> bool:
    """Whether words of one line stand below those of the line before, on purpose."""
    lines = text.split("\n")
    edges = [{edge for word in EDGES.finditer(line) for edge in word.span(1)} for line in lines]
    return any(above & below for above, below in pairwise(edges))


def keep_columns(output: re.Match[str]) -> str:
    """Mark what was printed in columns: other lines may be broken where a screen is narrow."""
    if not in_columns(unescape(re.sub(r"<[^>]*>", "", output["text"]))):
        return output[0]
    return f'<div class="output in-columns {output["kind"]}{output["rest"]}'


def mend_tables(body: str) -> str:
    body = INDEX_NAME.sub(r"\g<head>\g<index>\g<others></tr>", body)
    return PRINTED.sub(keep_columns, name_tables(TABLE.sub(stack, body)))
