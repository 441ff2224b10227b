"""What a chapter must have besides: its parts, in the order of the template."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.book.markup import Page
from tests.book.page_checks import EXAMPLE, Check, Missing, n_bullets, required

OF_A_CHAPTER: list[Check] = []
OF_A_DEEP_PAGE: list[Check] = []

NEEDS = re.compile(r"\*\*It needs\*\* .*\. \*\*It runs in\*\* about .* on a CPU\.")
TAKES = re.compile(r"^\*\*It needs\*\* .* \*\*It takes\*\* about (\w+) minutes to read\. ", re.M)
MINUTES = {"five": 5, "six": 6, "eight": 8, "ten": 10, "twelve": 12, "fifteen": 15}
WORDS_A_MINUTE = 170  # of a text with formulas and figures


@required(OF_A_CHAPTER, "# Does twice")
def asks_a_question_in_its_title(page: Page) -> Iterator[Missing]:
    title = re.search(r"^# (.*)$", page.text, re.M)
    if not title:
        yield Missing("no title: a line that begins with # and one space")
    elif not title[1].endswith("?"):
        yield Missing(f"the title is no question: “{title[1]}”", page.line_of(title[0]))


@required(OF_A_CHAPTER, ":::{admonition} The short answer")
@required(OF_A_DEEP_PAGE, ":::{admonition} The short answer")
def begins_with_the_short_answer(page: Page) -> Iterator[Missing]:
    first = page.blocks[0] if page.blocks else None
    if not first or (first.name, first.argument) != ("admonition", "The short answer"):
        yield Missing("the first thing below the title should be the box “The short answer”")
    elif "{glue:text}`" not in first.content:
        yield Missing("the short answer should give a number", first.line)


@required(OF_A_CHAPTER, ":::{admonition} What you will learn")
def says_what_one_will_learn_and_what_it_needs(page: Page) -> Iterator[Missing]:
    boxes = [box for box in page.named("admonition") if box.options.get("class") == "learn"]
    if [box.argument for box in boxes] != ["What you will learn"]:
        yield Missing("not one box “What you will learn” of :class: learn")
        return
    (box,) = boxes
    if not 3 <= n_bullets(box.content) <= 5:
        what = "three to five bullets say what one will learn, not"
        yield Missing(f"{what} {n_bullets(box.content)}", box.line)
    if not NEEDS.fullmatch(box.content.strip().split("\n")[-1]):
        what = "the box “What you will learn” should end in one line, **It needs** …. "
        yield Missing(f"{what}**It runs in** about … on a CPU.", box.line)


@required(OF_A_CHAPTER, "## Predict")
def asks_for_a_prediction_before_it_measures(page: Page) -> Iterator[Missing]:
    parts = [heading.split()[0].rstrip(":") for heading in page.headings]
    if "Predict" not in parts:
        yield Missing("no section that begins with “## Predict”")
    elif "Measure" not in parts:
        yield Missing("no section that begins with “## Measure”")
    elif parts.index("Predict") > parts.index("Measure"):
        line = page.line_of("## Measure")
        yield Missing("it measures before it has asked for a prediction", line)


@required(OF_A_CHAPTER, "## Break it")
def breaks_an_assumption(page: Page) -> Iterator[Missing]:
    if not (page.section("Break it") or "").strip():
        yield Missing("no section “## Break it”, or nothing in it")


@required(OF_A_CHAPTER, "## Take-away")
def ends_with_three_to_five_take_aways_and_exercises(page: Page) -> Iterator[Missing]:
    if page.headings[-2:] != ["Take-away", "Exercises"]:
        found = " and ".join(f"“## {heading}”" for heading in page.headings[-2:]) or "none"
        what = "the last two sections should be “## Take-away” and “## Exercises”"
        last = page.headings[-1] if page.headings else ""
        yield Missing(f"{what}, they are {found}", page.line_of(f"## {last}"))
        return
    bullets = n_bullets(page.section("Take-away") or "")
    if not 3 <= bullets <= 5:
        line = page.line_of("## Take-away")
        yield Missing(f"a take-away has three to five bullets, this one has {bullets}", line)


@required(OF_A_CHAPTER, ":::{exercise} With a pencil")
def has_three_exercises_each_followed_by_its_folded_solution(page: Page) -> Iterator[Missing]:
    boxes = page.named("exercise", "solution", "solution-start")
    exercises = [box for box in boxes if box.name == "exercise"]
    if len(exercises) < 3:
        yield Missing(f"a chapter has three exercises or more, this one has {len(exercises)}")
    for box, after in zip(boxes, [*boxes[1:], None], strict=True):
        label = box.options.get("label")
        if box.name != "exercise":
            if box.options.get("class") != "dropdown":
                what = f"the solution of {box.argument} is not folded: it lacks :class: dropdown"
                yield Missing(what, box.line)
        elif not label:
            yield Missing("an exercise has no :label:", box.line)
        elif after is None or after.name == "exercise" or after.argument != label:
            yield Missing(f"the exercise {label} is not followed by its solution", box.line)


@required(OF_A_CHAPTER, ":::{solution-start} ex-template-pencil")
def executes_a_solution(page: Page) -> Iterator[Missing]:
    gated = re.findall(r"\{solution-start\}.*?\{solution-end\}", page.text, re.S)
    if not any("{code-cell}" in solution for solution in gated):
        yield Missing("no solution between {solution-start} and {solution-end} has a cell")


@required(OF_A_CHAPTER, "# Does twice")
def is_a_chapter_of_its_own(page: Page) -> Iterator[Missing]:
    same = {
        "title": re.search(r"^# .*$", EXAMPLE.text, re.M),
        "description": re.search("A chapter to copy", EXAMPLE.text),
    }
    for what, found in same.items():
        if found and found[0] in page.text and page.path != EXAMPLE.path:
            line = page.line_of(found[0])
            yield Missing(f"a chapter has its own question, and its {what} is the template's", line)


@required(OF_A_DEEP_PAGE, "# Does twice")
@required(OF_A_CHAPTER, "**It takes** about")
def keeps_within_its_budget(page: Page) -> Iterator[Missing]:
    words, figures = page.n_words_to_read, sum("figure" in cell.settings for cell in page.cells)
    if words > 2500:
        yield Missing(f"at most 2,500 words that are not folded, this page has {words}")
    if figures > 4:
        yield Missing(f"at most four figures that matter, this page has {figures}")


@required(OF_A_CHAPTER, "**It takes** about")
def says_how_long_it_takes_to_read(page: Page) -> Iterator[Missing]:
    words, found = page.n_words_to_read, TAKES.search(page.text)
    line = page.line_of("**It needs**")
    if not found or found[1] not in MINUTES:
        yield Missing(f"no “**It takes** about {' or '.join(MINUTES)} minutes to read.”", line)
    elif words > MINUTES[found[1]] * WORDS_A_MINUTE:
        minutes = -(-words // WORDS_A_MINUTE)
        yield Missing(f"{words} words take {minutes} minutes to read, not {found[1]}", line)


@required(OF_A_CHAPTER, "- {claim}`theorem`")
def says_of_each_take_away_what_kind_of_claim_it_is(page: Page) -> Iterator[Missing]:
    for bullet in re.findall(r"^- .*$", page.section("Take-away") or "", re.M):
        if not bullet.startswith("- {claim}`"):
            what = (
                "a take-away begins with its kind, {claim}`theorem`, measured, heuristic or cited"
            )
            yield Missing(f"{what}: “{bullet[:60]}”", page.line_of(bullet))


@required(OF_A_CHAPTER, ":::{exercise} Your turn")
def lets_the_reader_write_a_line_of_the_loop(page: Page) -> Iterator[Missing]:
    turn = next((box for box in page.named("exercise") if box.argument == "Your turn"), None)
    if not turn:
        yield Missing("no exercise “Your turn”: a cell with a hole, a check, a folded solution")
        return
    after = next((cell for cell in page.cells if cell.line > turn.line), None)
    if not after or not re.search(r"^\s*\.\.\.", after.content, re.M):
        yield Missing("no cell with … as three dots in a line after “Your turn”", turn.line)
    elif not re.search(r"\b(?:check|checks\.\w+)\(", after.content):
        what = "the reader's cell should print what check(…) says, or one of sgd_analysis.checks"
        yield Missing(what, after.line)


@required(OF_A_CHAPTER, "loss.backward()")
def writes_out_the_loop_before_train_stands_in_for_it(page: Page) -> Iterator[Missing]:
    shown = [cell for cell in page.cells if not re.search("hide-input|remove-cell", cell.tags)]
    loop = next((cell for cell in shown if ".backward()" in cell.content), None)
    library = next((cell for cell in page.cells if re.search(r"\btrain\(", cell.content)), None)
    if not loop:
        yield Missing("no cell that is not folded has a loop in plain PyTorch, with .backward()")
    elif library and library.line < loop.line:
        yield Missing("train(…) is called before the loop has been written out", library.line)


@required(OF_A_CHAPTER, "## One weight first")
def shows_the_idea_on_one_weight_and_reads_its_plot(page: Page) -> Iterator[Missing]:
    order = ["Predict", "One weight first", "Measure", "Read", "Break it"]
    starts = [line for part in order if (line := page.line_of(f"\n## {part}"))]
    for part in ("One weight first", "Read"):
        if page.section(part) is None:
            yield Missing(f"no section that begins with “## {part}”")
    if starts != sorted(starts):
        yield Missing(f"the sections should come in this order: {', '.join(order)}", min(starts))


@required(OF_A_CHAPTER, ":::{prf:theorem}")
def states_a_theorem_and_proves_it(page: Page) -> Iterator[Missing]:
    statements = [box for box in page.blocks if re.match("prf:(?!proof)", box.name)]
    if not statements:
        yield Missing("no theorem, lemma or corollary: :::{prf:theorem} and a title")
    proofs = [box for box in page.named("admonition") if box.argument == "Proof"]
    if not proofs and not page.named("prf:proof"):
        yield Missing("no proof: :::{prf:proof}, or a box “Proof” of :class: dropdown")
    for proof in proofs:
        if proof.options.get("class") != "dropdown":
            yield Missing("a box “Proof” is folded: it lacks :class: dropdown", proof.line)


@required(OF_A_CHAPTER, "assert measured == predicted")
def asserts_what_it_says(page: Page) -> Iterator[Missing]:
    if not any(re.search(r"^assert ", cell.content, re.M) for cell in page.cells):
        yield Missing("no cell asserts a number of the take-away")


@required(OF_A_CHAPTER, ":::{solution-start} ex-template-code")
def executes_every_solution(page: Page) -> Iterator[Missing]:
    solutions = re.findall(r"\{solution-start\} (\S+)(.*?)\{solution-end\}", page.text, re.S)
    executed = {label for label, text in solutions if "{code-cell}" in text}
    there = {label for label, _ in solutions}  # another check tells of those that are not
    for exercise in page.named("exercise"):
        label = exercise.options.get("label")
        if label in there - executed:
            what = f"no cell between {{solution-start}} {label} and {{solution-end}}"
            yield Missing(what, exercise.line)
