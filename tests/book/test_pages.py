"""The pages have what a page and a chapter must have; where one does not, the message says what."""

import ast
import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

import sgd_analysis
from book._ext.book_names import TEMPLATE
from tests.book import contents
from tests.book.chapter_checks import OF_A_CHAPTER, OF_A_DEEP_PAGE
from tests.book.look_checks import OF_WHAT_IS_SEEN
from tests.book.markup import SOLUTION, Page
from tests.book.page_checks import EXAMPLE, OF_A_PAGE, PAGES, Check

ROOT = contents.ROOT
BOOK = ROOT / "book"


def name_of(page: Page) -> str:
    return str(page).removesuffix(".md")


CHAPTERS = [page for page in PAGES if name_of(page) in contents.CHAPTERS]


def each(name: str, values: Iterable[object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, values, ids=lambda value: str(value).removeprefix("book/"))


def fail_with(complaints: list[str]) -> None:
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def differences(
    name: str, found: Iterable[str], expected: Iterable[str], *, to_add: str, unknown: str
) -> list[str]:
    times, wanted = Counter(found), set(expected)
    return [
        *(f"{name} lacks {to_add.format(entry)}" for entry in sorted(wanted - times.keys())),
        *(f"{name} has {entry}, {unknown}" for entry in sorted(times.keys() - wanted)),
        *(f"{name} has {entry} twice" for entry, n in times.items() if n > 1),
    ]


not_in_contents = partial(
    differences,
    "_toc.yml",
    to_add="`- file: {}` among the chapters of a part",
    unknown="which is not there",
)
not_documented = partial(
    differences,
    "book/api.md",
    to_add="`.. autofunction:: {0}` or `.. autoclass:: {0}`",
    unknown="which `__all__` in sgd_analysis/__init__.py lacks",
)
not_in_bibliography = partial(
    differences, "book/references.bib", to_add="an entry {}", unknown="which no page cites"
)


CHAPTER_CITED = (
    r"\[(?:chapter|(?:[Ll]ire le )?[Cc]hapitre|ch\.) (\d+)[^]]*\]\((?:\.\./)?([\w-]+)\.md\b[^)]*\)"
)


def wrongly_numbered(page: Page, chapters: list[str]) -> list[str]:
    """Say which chapters a page cites by a number that is not theirs."""
    numbers = {Path(chapter).name: n for n, chapter in enumerate(chapters, 1)}
    return [
        f"{page}:{page.line_at(cited.start())}: {cited[0]} is chapter {n} in _toc.yml: change the "
        "number here, or move the chapter there (a new one comes last)"
        for cited in re.finditer(CHAPTER_CITED, page.text)
        if (n := numbers.get(cited[2])) not in (None, int(cited[1]))
    ]


@each("page", PAGES)
def test_a_page_cites_chapters_by_their_numbers(page: Page) -> None:
    fail_with(wrongly_numbered(page, contents.NUMBERED))


def names_that_only_solutions_define(page: Page) -> set[str]:
    """Return what cells use that nothing defines once a page's solutions are left out."""
    folded = [found.span() for found in SOLUTION.finditer(page.text)]
    spans = [(page.line_at(start), page.line_at(end)) for start, end in folded]
    used: set[str] = set()
    defined: dict[bool, set[str]] = {True: set(), False: set()}
    for cell in page.cells:
        solves = any(start < cell.line < end for start, end in spans)
        for node in ast.walk(ast.parse(cell.code)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used |= set() if solves else {node.id}
            else:
                for field in ("id", "name", "asname", "arg"):
                    defined[solves] |= {str(getattr(node, field, "")).split(".")[0]}
    return used & (defined[True] - defined[False])


@each("page", [*PAGES, EXAMPLE])
def test_a_page_without_its_solutions_lacks_no_name(page: Page) -> None:
    assert not names_that_only_solutions_define(page)


def test_a_name_that_only_a_solution_defines_is_found(tmp_path: Path) -> None:
    page = Page(tmp_path / "page.md")
    gates = ":::{{solution-start}} ex-a\n:::\n{}\n:::{{solution-end}}\n:::\n"
    cells = [f"```{{code-cell}} ipython3\n{line}\n```\n" for line in ("a = b = 1", "a; c = 2", "c")]
    page.path.write_text(gates.format(cells[0]) + cells[1] + cells[2], encoding="utf-8")
    assert names_that_only_solutions_define(page) == {"a"}


def test_every_page_is_in_the_table_of_contents_once() -> None:
    there = {path.relative_to(ROOT).with_suffix("").as_posix() for path in BOOK.rglob("*.md")}
    fail_with(not_in_contents(contents.LISTED, there - {TEMPLATE}))


def test_the_api_page_documents_every_public_name_once() -> None:
    text = (BOOK / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. auto(?:class|function):: (\S+)$", text, re.M)
    types = [  # what something is or may be given as, not for calling
        "sgd_analysis.history.evaluated.Measured",
        "sgd_analysis.history.fingerprints.Fingerprints",
        "sgd_analysis.history.vectors.Vectors",
    ]
    fail_with(not_documented(documented, [*sgd_analysis.__all__, *types]))


def test_the_bibliography_holds_what_the_pages_cite() -> None:
    cited = re.findall(r"\{cite:[a-z]+\}`([^`]+)`", "".join(page.text for page in PAGES))
    entries = re.findall(r"^@\w+\{([\w-]+),", (BOOK / "references.bib").read_text("utf-8"), re.M)
    keys = {key.strip() for keys in cited for key in keys.split(",")}
    fail_with(not_in_bibliography(entries, keys))


def test_the_page_on_the_build_gives_the_readmes_command() -> None:
    command = re.search(r"^```sh\n(.*?)\n```$", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert command
    assert command[1] in (BOOK / "how-this-book-was-built.md").read_text("utf-8")


@each("check", OF_A_PAGE)
@each("page", [*PAGES, EXAMPLE])
def test_a_page(page: Page, check: Check) -> None:
    fail_with(check.complaints(page))


@each("check", OF_WHAT_IS_SEEN)
@each("page", [*PAGES, EXAMPLE])
def test_what_is_seen_of_a_page(page: Page, check: Check) -> None:
    fail_with(check.complaints(page))


@each("check", OF_A_DEEP_PAGE)
@each("page", [page for page in PAGES if page.path.parent.name == "further"])
def test_a_deep_page(page: Page, check: Check) -> None:
    fail_with(check.complaints(page))


@each("check", OF_A_CHAPTER)
@each("page", [*CHAPTERS, EXAMPLE])
def test_a_chapter(page: Page, check: Check) -> None:
    fail_with(check.complaints(page))
