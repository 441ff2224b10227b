"""The page of theorems lists each statement of the book once, in order, by its name."""

import re

from tests.book.contents import NUMBERED, ROOT
from tests.book.markup import Page

STATEMENT = re.compile(r"prf:(?:theorem|lemma|corollary|proposition)")
ROW = re.compile(r"^\| \{prf:ref\}`([\w-]+)` \| (.+?) \| (.+) \|$", re.M)


def test_the_page_of_theorems_lists_them_all_in_their_order() -> None:
    stated = [
        (block.options["label"], block.argument)
        for page in NUMBERED
        for block in Page(ROOT / f"{page}.md").blocks
        if STATEMENT.fullmatch(block.name)
    ]
    rows = ROW.findall((ROOT / "book/theorems.md").read_text(encoding="utf-8"))
    assert [(label, name) for label, name, _ in rows] == stated
    assert len(stated) > 30


def test_each_line_of_the_page_of_theorems_is_one_sentence() -> None:
    for _, name, line in ROW.findall((ROOT / "book/theorems.md").read_text(encoding="utf-8")):
        assert line.endswith(".") and len(line.split()) <= 30, name
