"""The French page of answers has each chapter's: its numbers, one of its figures, the way to it."""

import re

import pytest

from tests.book.contents import CHAPTERS, ROOT
from tests.book.markup import Page

ANSWERS = Page(ROOT / "book/fr/reponses.md")
GLUED = re.compile(r"\{glue:text\}`(?:\.\./)?([\w/-]+\.md::\w+:[^`]+)`")
LINK = re.compile(r"\[ch\.\s(\d+)\]\((?:\.\./)?([\w-]+)\.md\)")
CHAPTER = {number: Page(ROOT / f"{chapter}.md") for number, chapter in enumerate(CHAPTERS, 1)}


def section(number: int) -> str:
    parts = re.split(r"^\(reponse-(\d+)\)=$", ANSWERS.text, flags=re.M)
    return dict(zip(map(int, parts[1::2]), parts[2::2], strict=True)).get(number, "")


def figures(text: str) -> list[str]:
    return re.findall(r"^ +name: (fig-[\w-]+)$", text, re.M)


@pytest.mark.parametrize("number", CHAPTER)
def test_an_answer_quotes_the_numbers_of_the_chapters_own(number: int) -> None:
    answer, *_ = section(number).split("```{code-cell}")
    assert GLUED.findall(answer) == GLUED.findall(CHAPTER[number].blocks[0].content)


@pytest.mark.parametrize("number", CHAPTER)
def test_an_answer_shows_a_figure_of_its_chapter_and_leads_there(number: int) -> None:
    chapter = CHAPTER[number]
    (figure,) = figures(section(number))
    assert figure.endswith("-fr")
    assert figure.removesuffix("-fr") in figures(chapter.text)
    link = f"[Lire le chapitre {number} (en anglais)](../{chapter.path.name})"
    assert section(number).count(link) == 1


def test_the_table_of_questions_is_that_of_the_first_page() -> None:
    english, french = (
        [line for line in page.text.splitlines() if LINK.search(line)]
        for page in (Page(ROOT / "book/index.md"), ANSWERS)
    )
    assert len(french) == len(english) == 6
    for there, here in zip(english, french, strict=True):
        assert LINK.findall(here) == LINK.findall(there)
        assert GLUED.findall(here) == GLUED.findall(there)
