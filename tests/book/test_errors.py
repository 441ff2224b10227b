"""Whatever is broken in a book fails its build, with a message that names file and line."""

import re
from pathlib import Path

import pytest

from tests.book.small_books import CELL, FRONT_MATTER, build, make_book

FIGURE = """
```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-line
    caption: |
      It ends at {glue:text}`page.md::not_in_caption:d`.
  image:
    alt: A rising line.
---
import matplotlib.pyplot as plt

plt.subplots();
```
"""
WARNING_CELL = CELL.format(source="import warnings\n\nwarnings.warn('look here')")

# What is broken: the page's text; the line in it to be named, or the lines of its cell; and a part
# of the message.
BROKEN = {
    "reference": ("{ref}`no-section`", 1, "undefined label: 'no-section'"),
    "equation": ("{eq}`eq-none`", 1, "equation not found: eq-none"),
    "number": ("{numref}`fig-none`", 1, "undefined label: 'fig-none'"),
    "theorem": ("{prf:ref}`thm-none`", 1, "label 'thm-none' not found"),
    "document": ("{doc}`no-document`", 1, "unknown document: 'no-document'"),
    "object": ("{py:func}`no_function`", 1, "reference target not found: no_function"),
    "link to a page": ("[there](no-page.md)", 1, "target not found: 'no-page.md'"),
    "link within": ("[there](#no-anchor)", 1, "target not found: 'no-anchor'"),
    "link into a page": ("[there](index.md#no-part)", 1, "id not found in doc .*'no-part'"),
    "reference in a table": ("| a |\n| --- |\n| {ref}`no-cell` |", 3, "undefined label: 'no-cell'"),
    "image": ("![A line.](no-image.png)", 1, "image file not readable: book/no-image.png"),
    "citation": ("{cite:t}`nobody1951`", 1, 'could not find bibtex key "nobody1951"'),
    "own glue": ("{glue:text}`page.md::none:d`", 1, "'none' not found in doc 'book/page'"),
    "glue elsewhere": ("{glue:text}`index.md::key:d`", 1, "'key' not found in doc 'book/index'"),
    "glue nowhere": ("{glue:text}`no.md::key:d`", 1, "'key' not found in doc 'book/no'"),
    "glue format": ("{glue:text}`page.md::word:d`", 1, "Failed to format text/plain"),
    "glue without a page": ("{glue:text}`bare:d`", 1, "No key 'bare' found"),
    "glue in a caption": (FIGURE, range(2, 16), "'not_in_caption' not found in doc 'book/page'"),
    "glue in a box": (":::{note}\n{glue:text}`no.md::boxed:d`\n:::", 2, "'boxed' not found"),
    "directive": (":::{no-directive}\n:::", 1, "Unknown directive type: 'no-directive'"),
    "argument": (":::{admonition}\n:::", 1, r"'admonition': 1 argument\(s\) required"),
    "role": ("{no-role}`x`", 1, 'Unknown interpreted text role "no-role"'),
    "heading": ("#### Too deep", 1, "Non-consecutive header level increase; H1 to H4"),
    "second section": ("(sec-twice)=\n## Again", 2, "duplicate label sec-twice"),
    "second equation": ("$$\nx\n$$ (eq-twice)", 1, "duplicate label of equation eq-twice"),
    "second theorem": (":::{prf:lemma}\n:label: thm-twice\nx\n:::", 2, "label 'thm-twice'"),
    "second exercise": (":::{exercise}\n:label: ex-twice\nx\n:::", 2, "duplicate label: ex-twice"),
    "solution of nothing": (":::{solution} ex-none\n:label: sol-none\nx\n:::", 1, "'ex-none'"),
    "warning in a cell": (WARNING_CELL, range(2, 7), "stderr was found in the cell outputs"),
}
INDEX = """\
# A book

(sec-twice)=
## A section

$$
x
$$ (eq-twice)

:::{prf:theorem}
:label: thm-twice
x
:::

:::{exercise}
:label: ex-twice
x
:::

```{bibliography}
```
"""
GLUE = CELL.format(source='from myst_nb import glue\n\nglue("word", "one", display=False)')
BROKEN_PAGE = FRONT_MATTER + GLUE + "".join(f"\n{text}\n" for text, _, _ in BROKEN.values())


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> str:
    pages = {"index": INDEX, "page": BROKEN_PAGE, "listed": "# A page\n"}
    root = make_book(tmp_path_factory.mktemp("broken"), pages)
    (root / "book/listed.md").rename(root / "book/lost.md")
    result = build(root)
    assert result.returncode != 0
    return result.stdout


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_in_a_page_is_named_with_its_line(name: str, messages: str) -> None:
    text, lines, message = BROKEN[name]
    before = BROKEN_PAGE[: BROKEN_PAGE.index(text)].count("\n")
    found = re.search(rf"/book/page\.md:(\d+): (?:WARNING|ERROR): .*{message}", messages)
    assert found, messages
    assert int(found[1]) - before in (lines if isinstance(lines, range) else [lines])


def test_a_page_missing_from_the_table_of_contents_is_named(messages: str) -> None:
    assert "/book/lost.md:1: WARNING: this page is not in _toc.yml" in messages


def test_a_missing_page_is_named_where_the_table_of_contents_names_it(messages: str) -> None:
    assert re.search(r"/_toc\.yml:3: WARNING: there is no page book/listed\.md", messages)


FAILING = {
    "raising": (CELL.format(source="a = 0\n1 / a"), "ZeroDivisionError: division by zero"),
    "unreadable": ("\n```{code-cell} ipython3\n---\ntags: [\n---\n1\n```\n", "could not be read"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_cell_that_fails_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    cell, message = FAILING[name]
    page = FRONT_MATTER + GLUE * 2 + cell
    result = build(make_book(tmp_path / "failing", {"failing": page + GLUE}))
    assert result.returncode != 0
    fence = page[: page.index(cell)].count("\n") + 2
    where = re.search(rf"/book/failing\.md:(\d+): .*?{message}", result.stdout, re.S)
    assert where, result.stdout
    assert fence <= int(where[1]) <= fence + 1


def test_a_cell_that_takes_too_long_is_named_with_its_line(tmp_path: Path) -> None:
    # It stands first: any other cell could take longer than a second, too, on a busy machine.
    front_matter = FRONT_MATTER.replace("---\n\n", "execution:\n  timeout: 1\n---\n\n")
    page = front_matter + CELL.format(source="import threading\n\nthreading.Event().wait()")
    result = build(make_book(tmp_path / "slow", {"slow": page}))
    assert result.returncode != 0
    fence = front_matter.count("\n") + 2
    where = re.search(r"/book/slow\.md:(\d+): .*?timed out .* after 1 seconds", result.stdout, re.S)
    assert where, result.stdout
    assert fence <= int(where[1]) <= fence + 1


def test_a_dying_kernel_is_named_with_its_page(tmp_path: Path) -> None:
    page = FRONT_MATTER + CELL.format(source="import os\n\nos._exit(1)")
    result = build(make_book(tmp_path / "dying", {"dying": page}))
    assert result.returncode != 0
    assert re.search(r"/book/dying\.md:\d+: DeadKernelError: Kernel died", result.stdout)
