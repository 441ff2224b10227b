"""The casebook: each case is whole, and a reader finds it."""

import re

import pytest

from tests.book.casebook_checks import Case, cases, indexed
from tests.book.contents import CASEBOOK, ROOT
from tests.book.markup import Page

PAGE = Page(ROOT / f"{CASEBOOK}.md")
CASES = cases(PAGE)
A_CASE = next(case for case in CASES if case.label == "case-norm-rises")

# (what is taken away from a case, what is put in its place, what is said)
BROKEN = [
    ("#596`", "#597`", "leads to allenai/OLMo/596"),
    (r"\(\[`allenai.*?\)\)", "", "no public report"),
    (
        "```{code-cell} ipython3\n([^:])",
        "```{code-cell} ipython3\n:tags: [hide-input]\n\\1",
        "no open",
    ),
    ("assert ", "print()  # ", "no hidden cell asserts"),
    (r"\*\*It is decided by\*\*", "It depends on", r"no paragraph that begins with \*\*It is dec"),
    (r"\*\*The way out\.\*\*", "", r"no paragraph that begins with \*\*The way out"),
    ("glue:text", "glue:png", "no measured number decides it"),
    ("    model = ", "    # " + 70 * "x" + "\n    model = ", "wider than"),
    ("A normalised layer", "One. Two. Three. A normalised layer", "the answer has 5 sentences"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_a_case_has_all_its_parts(case: Case) -> None:
    complaints = list(case.complaints())
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(("there", "instead", "said"), BROKEN)
def test_a_case_that_lacks_a_part_is_told_which(there: str, instead: str, said: str) -> None:
    broken = Case(A_CASE.label, A_CASE.title, re.sub(there, instead, A_CASE.text, flags=re.S))
    assert broken.text != A_CASE.text
    assert re.search(said, "\n".join(broken.complaints()))


def test_a_title_is_what_somebody_said() -> None:
    (said,) = Case(A_CASE.label, "Norms", A_CASE.text).complaints()
    assert "no sentence of a reporter" in said


def test_there_are_at_least_sixteen_and_the_index_has_each_at_its_place() -> None:
    assert len(CASES) >= 16
    assert indexed(PAGE) == [case.label for case in CASES]


@pytest.mark.parametrize("page", ["book/index.md", "book/which-number.md"])
def test_a_page_where_readers_arrive_leads_to_it(page: str) -> None:
    assert re.search(r"\]\(casebook\.md\b", (ROOT / page).read_text("utf-8"))
