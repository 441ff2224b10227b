"""The worksheet can be done from the page alone, in either language, without its solutions."""

import re
from typing import Any

import pytest

from tests.book.contents import ROOT
from tests.book.markup import SOLUTION, Block, Page, blocks
from tests.book.test_your_turn import STEP, filled

PAGE = Page(ROOT / "book/worksheet.md")
FRENCH = Page(ROOT / "book/fr/feuille-de-travail.md")
RIGHTLY = {PAGE: "right", FRENCH: "juste"}
NOT_YET = {PAGE: "not yet: ", FRENCH: "pas encore\u00a0: "}
QUESTIONS = {PAGE: "Three questions", FRENCH: "Pour finir"}
each_language = pytest.mark.parametrize("page", [PAGE, FRENCH], ids=["English", "French"])
CHECKED = re.compile(r"^(?:print\(|said = )checks\.(\w+)\(", re.M)
RUNNING = "    running_loss += loss.item() * len(x)"
SHOW = """
    for j, (x, y) in enumerate(batch):
        print(i, j, x, y)
"""
# What fills the holes of each step rightly, in their order, in the order of the steps.
RIGHT = {
    "one_sample_at_a_time": ["loss = (y - f(w, x)) ** 2", STEP],
    "gradient_descent": [
        "loss = torch.mean((y - f(w, x)) ** 2)",
        STEP,
        "if loss.item() < epsilon:",
    ],
    "ready_made_loss": ["criterion = torch.nn.MSELoss()", "loss = criterion(f(w, x), y)", STEP],
    "printed_batches": [SHOW],
    "mini_batches": [
        "loader = DataLoader(t, batch_size=minibatch, shuffle=True)",
        STEP + RUNNING,
        "running_loss /= len(t)",
    ],
    "optimizer_step": [
        "optimizer = torch.optim.RMSprop([w], lr=lr)",
        "optimizer.zero_grad(); loss.backward(); optimizer.step()",
    ],
}
FIRST, SECOND, THIRD = range(3)
# (step, which hole, what is put there instead, what is said)
WRONG = [
    ("one_sample_at_a_time", FIRST, "loss = y - f(w, x)", "are not squared"),
    ("one_sample_at_a_time", SECOND, STEP.replace("zero_()", "sum()"), "still in w.grad; clear"),
    ("gradient_descent", FIRST, "loss = torch.sum((y - f(w, x)) ** 2)", "sum of the squares; take"),
    ("gradient_descent", SECOND, STEP.replace("-=", "+="), "w went uphill"),
    ("gradient_descent", THIRD, "if loss.item() > epsilon:", "it stops after epoch 1"),
    ("ready_made_loss", FIRST, "criterion = torch.nn.L1Loss()", "are not squared"),
    ("ready_made_loss", SECOND, "loss = torch.mean((y - f(w, x)) ** 2)", "MSELoss was not asked"),
    ("printed_batches", FIRST, "print(i, batch)", "this one has 3: 0 tensor("),
    ("mini_batches", FIRST, "loader = DataLoader(t, batch_size=minibatch)", "shuffle=True is"),
    ("mini_batches", SECOND, STEP + "    running_loss += loss.item()", "weigh each by its size"),
    ("mini_batches", THIRD, "running_loss /= len(loader)", "divide it by the number of samples"),
    ("optimizer_step", FIRST, "optimizer = torch.optim.Adam([w], lr=lr)", "a step of Adam"),
    ("optimizer_step", SECOND, "loss.backward(); optimizer.step()", "still in w.grad"),
]


def unsolved(page: Page) -> list[Block]:
    """The cells of a page without its solutions."""
    return [block for block in blocks(SOLUTION.sub("", page.text)) if block.name == "code-cell"]


def steps(page: Page) -> dict[str, str]:
    """The cells with holes, by their checks."""
    return {found[1]: cell.code for cell in unsolved(page) if (found := CHECKED.search(cell.code))}


def said_of(step: str, fillings: list[str], page: Page = PAGE) -> str:
    """Return what the check of a step says, with the holes of its cell filled."""
    names: dict[str, Any] = {}
    for cell in unsolved(page)[:2]:  # the imports and the data
        exec(cell.code, names)
    code = filled(steps(page)[step], fillings)
    exec(re.sub(r"^print\((checks.*)\)$", r"said = \1", code, flags=re.M), names)
    names["plt"].close("all")
    return str(names["said"])


@each_language
def test_the_steps_have_the_order_of_the_source_notebook(page: Page) -> None:
    assert [*steps(page)] == [*RIGHT]


@each_language
def test_no_cell_needs_what_only_a_solution_defines(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for cell in unsolved(page):
        exec(cell.code, names)
    answers = re.findall(rf"^(?:{NOT_YET[page]}|{RIGHTLY[page]}).*$", capsys.readouterr().out, re.M)
    assert len(answers) == len(RIGHT) and all(said.startswith(NOT_YET[page]) for said in answers)


@each_language
def test_every_step_and_question_has_a_solution_and_leads_to_a_chapter(page: Page) -> None:
    exercises = [block.options["label"] for block in page.named("exercise")]
    solved = [block.argument for block in page.named("solution-start")]
    assert exercises == solved and len(exercises) == len(RIGHT) + 1 + 3
    questions = SOLUTION.findall(page.section(QUESTIONS[page]) or "")
    for text in [*(page.section(step) or "" for step in page.headings[:-1]), *questions]:
        assert re.search(r"\]\([\w./-]+\.md\)", text), text


@each_language
def test_every_solution_is_tried_by_the_check_of_its_step(page: Page) -> None:
    tried = [name for text in SOLUTION.findall(page.text) for name in CHECKED.findall(text)]
    assert tried == [*RIGHT]


@each_language
@pytest.mark.parametrize("step", RIGHT)
def test_the_right_lines_are_right(step: str, page: Page) -> None:
    assert said_of(step, RIGHT[step], page).startswith(RIGHTLY[page])


def test_in_french_a_wrong_line_is_told_in_french_what_is_wrong() -> None:
    said = said_of("printed_batches", ["print(i, batch)"], FRENCH)
    assert said.startswith(NOT_YET[FRENCH]) and "quatre nombres" in said


@pytest.mark.parametrize(("step", "hole", "instead", "said"), WRONG)
def test_a_wrong_line_is_told_what_is_wrong(step: str, hole: int, instead: str, said: str) -> None:
    fillings = [*RIGHT[step]]
    fillings[hole] = instead
    answer = said_of(step, fillings)
    assert answer.startswith("not yet") and said in answer
