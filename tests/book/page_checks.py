"""What each page must have. A check yields a sentence for each thing it misses.

Each check names the text of the template that shows how it is done; `complaints` adds the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from book._ext.book_names import TEMPLATE
from tests.book.contents import LISTED, ROOT
from tests.book.french import SOURCE
from tests.book.markup import Block, MarkupError, Page

LISTED_PAGES = [Page(ROOT / f"{page}.md") for page in LISTED]
PAGES = [page for page in LISTED_PAGES if page.path.exists()]  # a test names the others
EXAMPLE = Page(ROOT / f"{TEMPLATE}.md")

# What the source notebook itself says, quoted as such.
STOPPING_EPOCHS = {"9340", "48", "23"}
POINTS = {"2000", "0.01", "9.99", "9.990458", "0.3", "1.7", "2.5"}
SETTINGS = {"0.0002", "0.1", "10000", "10,000", "0.00001", "0.001", "100"}
SEEDS_OWN = STOPPING_EPOCHS | POINTS | SETTINGS
NUMBER = re.compile(r"(?<![\w.,])(?:\d+\.\d+|\d{1,3}(?:,\d{3})+|\d{3,})(?![\w-]|[.,]\d)")
REFERENCE = re.compile(r"\{(eq|numref|ref|prf:ref)\}`(?:[^`<]*<)?([^`>]+)>?`")
GLUED_TEXT = re.compile(r"\{glue:text\}`([^`]+)`")
PROMPTS = {False: ("Show", "Hide"), True: ("Afficher", "Masquer")}  # in French
SEED = re.compile(r"\b(?:manual_seed\(|default_rng\(|seed=)(\d+)")


@dataclass(frozen=True)
class Missing:
    what: str
    line: int | None = None


Finder = Callable[[Page], Iterator[Missing]]


@dataclass(frozen=True)
class Check:
    find: Finder
    example: str

    def __str__(self) -> str:
        return self.find.__name__

    def complaints(self, page: Page) -> list[str]:
        """Say what the page misses, where, and where the template has it."""
        shown = f"see {EXAMPLE}:{EXAMPLE.line_of(self.example)}, “{self.example}”"
        try:
            found = list(self.find(page))
        except MarkupError:
            return []  # has_settings_that_can_be_read tells of it, once
        return [f"{page}:{missing.line or 1}: {missing.what} ({shown})" for missing in found]


OF_A_PAGE: list[Check] = []


def required(checks: list[Check], example: str) -> Callable[[Finder], Finder]:
    def register(find: Finder) -> Finder:
        checks.append(Check(find, example))
        return find

    return register


@cache
def labels_of_all_pages() -> set[str]:
    labels: set[str] = set()
    for page in PAGES:
        with suppress(MarkupError):  # of which that page's own tests tell
            labels |= page.labels
    return labels


def numbers_in_english(text: str) -> str:
    """Return French text with its numbers written as in English: 12,000 and 0.5."""
    text = re.sub(r"(?<=\d),(?=\d)", ".", text)
    return re.sub(r"(?<=\d)[\u202f\u00a0](?=\d{3})", ",", text)


def numbers_typed_in(text: str) -> list[str]:
    return [found for found in NUMBER.findall(text) if found not in SEEDS_OWN]


def n_bullets(text: str) -> int:
    return len(re.findall(r"^- ", text, re.M))


# Every page


@required(OF_A_PAGE, "mystnb:")
def has_settings_that_can_be_read(page: Page) -> Iterator[Missing]:
    try:
        _ = page.front_matter, page.blocks
    except MarkupError as error:
        yield Missing(str(error), error.line)


@required(OF_A_PAGE, "description: >-")
def has_a_description_of_one_sentence_or_two(page: Page) -> Iterator[Missing]:
    meta = page.front_matter.get("myst", {}).get("html_meta", {})
    description = str(meta.get("description", ""))
    if not description:
        yield Missing("no description under myst: html_meta: in the front matter", 1)
        return
    line = page.line_of("description:")
    if not 80 <= len(description) <= 160:
        yield Missing(f"the description has {len(description)} characters, not 80 to 160", line)
    if not description.endswith((".", "?")):
        yield Missing("the description ends without a full stop or a question mark", line)
    for number in numbers_typed_in(
        numbers_in_english(description) if page.is_french else description
    ):
        yield Missing(f"the description has {number}, which no cell keeps true", line)


@required(OF_A_PAGE, "alt: ")
def describes_every_figure(page: Page) -> Iterator[Missing]:
    for cell in page.cells:
        figure = cell.settings.get("figure")
        if figure is None:
            if "plt.subplots" in cell.content and "glue(" not in cell.content:
                yield Missing("a cell draws, and its mystnb: has no figure:", cell.line)
            continue
        if not figure.get("name", "").startswith("fig-"):
            yield Missing("a figure has no name: that begins with fig-", cell.line)
        if not figure.get("caption", "").strip():
            yield Missing("a figure has no caption:", cell.line)
        yield from short_alt(cell, cell.settings.get("image", {}).get("alt", ""))
    for image in page.named("glue:figure", "figure", "image"):
        yield from short_alt(image, image.options.get("alt", ""))
    if "![](" in page.text:
        yield Missing("a picture has nothing between ![ and ](", page.line_of("![]("))


def short_alt(figure: Block, alt: str) -> Iterator[Missing]:
    if len(alt) < 60:
        what = "a figure's alt: should say axes, trend and finding in 60 characters or more"
        yield Missing(f"{what}, it has {len(alt)}", figure.line)


@required(OF_A_PAGE, ":tags: [remove-cell]")
def leaves_out_the_cells_that_glue(page: Page) -> Iterator[Missing]:
    for cell in page.cells:
        if re.search(r"^\s*glue\(", cell.content, re.M) and "remove-cell" not in cell.tags:
            yield Missing("a cell that glues has no :tags: [remove-cell]", cell.line)


@required(OF_A_PAGE, "code_prompt_show:")
def folds_imports_and_says_what_is_folded(page: Page) -> Iterator[Missing]:
    showing, hiding = PROMPTS[page.is_french]
    for cell in page.cells:
        folded = "hide-input" in cell.tags
        if re.search(r"^(?:import|from) ", cell.content, re.M):
            if not folded and "remove-cell" not in cell.tags:
                yield Missing("a cell that imports has no tags: [hide-input]", cell.line)
        if folded and "figure" not in cell.settings:
            show = str(cell.settings.get("code_prompt_show", ""))
            hide = str(cell.settings.get("code_prompt_hide", ""))
            words = show.removeprefix(f"{showing} ")
            if words in ("", show) or hide != f"{hiding} {words}":
                what = f"a folded cell should have code_prompt_show: {showing} … and"
                what += f" code_prompt_hide: {hiding} … with the same words"
                yield Missing(what, cell.line)


@required(OF_A_PAGE, "glue(")
def quotes_numbers_that_are_glued(page: Page) -> Iterator[Missing]:
    for match in GLUED_TEXT.finditer(page.text):
        text, line = match[1], page.line_at(match.start())
        if not re.fullmatch(r"[\w/.-]+\.md::\w+:[^:]*[a-zA-Z%]", text):
            yield Missing(f"{{glue:text}}`{text}` should be `page.md::key:format`", line)
            continue
        source, key = text.rsplit(":", 1)[0].split("::")
        quoted = Page(page.path.parent / source)
        if quoted == EXAMPLE != page:
            what = "it quotes template.md, which is no page: copy it as README.md says"
            yield Missing(what, line)
            return  # what else is quoted is quoted from there, too
        if not quoted.path.exists():
            yield Missing(f"{{glue:text}}`{text}` quotes {source}, which is not there", line)
        elif not quoted.glued_keys.fullmatch(key):
            yield Missing(f'no cell of {source} has glue("{key}", …)', line)


@required(OF_A_PAGE, "{glue:text}`")
def types_no_number_by_hand(page: Page) -> Iterator[Missing]:
    prose = numbers_in_english(page.prose) if page.is_french else page.prose
    for line, text in enumerate(prose.split("\n"), 1):
        for number in numbers_typed_in(text):
            what = f"{number} is typed by hand in “{text.strip()[:80]}”: glue it from a cell"
            yield Missing(what, line)


@required(OF_A_PAGE, "{numref}`")
def refers_to_what_is_there(page: Page) -> Iterator[Missing]:
    for match in REFERENCE.finditer(page.text):
        role, label = match.groups()
        if label not in labels_of_all_pages() | page.labels:
            line = page.line_at(match.start())
            yield Missing(f"no page has the label {label} of {{{role}}}", line)


@required(OF_A_PAGE, "seed=0")
def starts_a_single_draw_from_seed_zero(page: Page) -> Iterator[Missing]:
    for match in SEED.finditer(page.text):
        if match[1] != "0":
            what = f"a single draw has seed 0, this one has {match[1]}"
            yield Missing(what, page.line_at(match.start()))


@required(OF_A_PAGE, "% ")
def keeps_no_line_of_the_template_for_its_writer(page: Page) -> Iterator[Missing]:
    lines = re.finditer("^% .*$", page.text, re.M)
    left = [line.start() for line in lines if not (page.is_french and SOURCE.match(line[0]))]
    if left and page.path != EXAMPLE.path:
        what = f"delete what the template tells its writer: lines that begin with % ({len(left)})"
        yield Missing(what, page.line_at(left[0]))
