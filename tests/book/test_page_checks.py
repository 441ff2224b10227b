"""A page that lacks a part is told which, where, and where the template has it."""

import re
from pathlib import Path

import pytest

from tests.book.chapter_checks import OF_A_CHAPTER
from tests.book.look_checks import OF_WHAT_IS_SEEN
from tests.book.markup import Page
from tests.book.page_checks import EXAMPLE, OF_A_PAGE, PAGES, Check, labels_of_all_pages
from tests.book.test_pages import not_documented, not_in_contents, wrongly_numbered

CHECKS = {str(check): check for check in [*OF_A_PAGE, *OF_WHAT_IS_SEEN, *OF_A_CHAPTER]}

DRAWN = "```{code-cell}\n---\nmystnb:\n  figure:\n    name: fig-drawn\n---\n```\n\n"
# (check, what is taken away from a copy of the template, what is put in its place, what is said)
BROKEN = [
    ("has_settings_that_can_be_read", "^myst:", "myst: a:", "is no YAML of names and values"),
    ("has_a_description_of_one_sentence_or_two", "myst:", "mist:", "no description under myst:"),
    (
        "has_a_description_of_one_sentence_or_two",
        "When twice",
        "Whether, and if so up to where exactly, twice",
        "the description has 184 characters, not 80 to 160",
    ),
    (
        "has_a_description_of_one_sentence_or_two",
        "A chapter of its own.",
        "A chapter of its own",
        "the description ends without a full stop",
    ),
    (
        "has_a_description_of_one_sentence_or_two",
        "seven runs",
        "1,234 runs",
        "the description has 1,234, which no cell keeps true",
    ),
    ("describes_every_figure", "    caption: ", "    title: ", "a figure has no caption:"),
    ("describes_every_figure", "  figure:\n", "  figures:\n", "has no figure:"),
    ("describes_every_figure", "name: fig-copy-steps", "name: steps", "begins with fig-"),
    ("describes_every_figure", r'alt: "Number[^"]*"', 'alt: "Steps."', "60 characters or more"),
    ("describes_every_figure", r"\(copy\)=", "![](steps.svg)", "nothing between ![ and ]("),
    ("leaves_out_the_cells_that_glue", "remove-cell", "hide-cell", "has no :tags: [remove-cell]"),
    (
        "folds_imports_and_says_what_is_folded",
        r"tags: \[hide-input\]",
        "tags: [folded]",
        "a cell that imports has no tags: [hide-input]",
    ),
    (
        "folds_imports_and_says_what_is_folded",
        "code_prompt_hide: Hide the imports",
        "code_prompt_hide: Hide all imports",
        "a folded cell should have code_prompt_show: Show …",
    ),
    ("quotes_numbers_that_are_glued", r"copy\.md::small", "other.md::small", "is not there"),
    (
        "quotes_numbers_that_are_glued",
        "::small:.2f",
        "::little:.2f",
        'of copy.md has glue("little"',
    ),
    ("quotes_numbers_that_are_glued", "::small:.2f", "::small", "`page.md::key:format`"),
    ("types_no_number_by_hand", "Two runs", "Then 1,234 runs", "1,234 is typed by hand in “Then"),
    (
        "refers_to_what_is_there",
        "`eq-copy-loss`",
        "`eq-los`",
        "no page has the label eq-los of {eq}",
    ),
    ("starts_a_single_draw_from_seed_zero", "seed=0", "seed=4", "has seed 0, this one has 4"),
    (
        "keeps_no_line_of_the_template_for_its_writer",
        r"\(copy\)=",
        "% Here",
        "lines that begin with % (1)",
    ),
    (
        "claims_one_thing_in_each_caption",
        r"half the steps\.\*\*$",
        "half the steps.** The global loss, by step.",
        "a caption is one bold claim, **…**, and nothing else",
    ),
    (
        "claims_one_thing_in_each_caption",
        r"half the steps\.\*\*$",
        f"half {'of ' * 15}$w$.**",
        "at most twenty words, this one 21",
    ),
    (
        "takes_its_colours_from_the_register",
        r'color=figures\.MEASURED\["color"\]',
        'color="#2F9A72"',
        'has no colour of its own, it takes one of sgd_analysis.figures: color="',
    ),
    ("takes_its_colours_from_the_register", 'measured, "o"', 'measured, "C0o"', 'figures: "C0'),
    (
        "writes_code_that_fits_its_box",
        r"^    losses = \[\]",
        f"    losses = []  # {'a ' * 30}",
        "of 79 columns, 60 can be seen: “losses = []",
    ),
    (
        "writes_code_that_fits_its_box",
        r"^inputs = ",
        f"# {'a ' * 44}\ninputs = ",
        "of 90 columns, 88 can be seen",
    ),
    (
        "writes_code_that_fits_its_box",
        r"^## Take-away",
        f"```python\nrun()\n{'ab' * 31}\n```\n\n## Take-away",
        "of 62 columns, 60 can be seen: “abab",
    ),
    (
        "names_its_axes_in_mathematics",
        r'xlabel="step size \$.*?\$"',
        'xlabel="step size η"',
        "η on an axis should stand in a formula, $…$: “step size η”",
    ),
    (
        "names_its_axes_in_mathematics",
        r"^fig, ax = plt\.subplots\(\)",
        'fig, ax = plt.subplots()\nax.set_ylabel(f"${bound}$ of m_1")',
        "_ on an axis should stand in a formula",
    ),
    (
        "calls_panels_by_their_titles",
        "^Two runs",
        "The left panel has two runs, and two runs",
        "panels stand below each other on a phone, and have titles",
    ),
    ("calls_panels_by_their_titles", 'alt: "Number', 'alt: "Right, number', "titles to be called"),
    (
        "calls_panels_by_their_titles",
        r"\(\{numref\}`fig-copy-symptom`\)",
        "({numref}`fig-copy-symptom`, right)",
        "titles to be called",
    ),
    ("writes_numbers_for_reading", "^Two runs", "In 7e+83 runs", "is written 7·10⁸³: 7e+83"),
    ("writes_numbers_for_reading", "^Two runs", "From -10 on", "a minus is a −, not a hyphen: -10"),
    (
        "writes_numbers_for_reading",
        "^Two runs",
        "In 1,234 runs",
        "thousands are separated from five digits on: 1,234",
    ),
    ("says_how_long_it_takes_to_read", "about five minutes", "about an hour", "no “**It takes**"),
    (
        "says_how_long_it_takes_to_read",
        r"^Two runs",
        f"{'word ' * 900}Two runs",
        "minutes to read, not five",
    ),
    (
        "keeps_within_its_budget",
        r"^Two runs",
        f"{'word ' * 2500}Two runs",
        "at most 2,500 words that are not folded",
    ),
    (
        "keeps_within_its_budget",
        r"^## Take-away",
        f"{DRAWN * 4}## Take-away",
        "at most four figures that matter, this page has 6",
    ),
    (
        "says_of_each_take_away_what_kind_of_claim_it_is",
        r"^- \{claim\}`measured` ",
        "- ",
        "a take-away begins with its kind",
    ),
    ("asks_a_question_in_its_title", "half the steps\\?\n", "half.\n", "no question: “Does double"),
    ("asks_a_question_in_its_title", "^# Does", "Does", "no title"),
    (
        "says_what_one_will_learn_and_what_it_needs",
        "What you will learn",
        "You will learn",
        "not one box “What you will learn”",
    ),
    (
        "says_what_one_will_learn_and_what_it_needs",
        "^- How to write.*\n",
        "",
        "three to five bullets say what one will learn, not 2",
    ),
    (
        "says_what_one_will_learn_and_what_it_needs",
        r"\*\*It runs in\*\*",
        "It runs in",
        "should end in one line, **It needs** …",
    ),
    ("asks_for_a_prediction_before_it_measures", "^## Predict", "## Guess", "“## Predict”"),
    ("asks_for_a_prediction_before_it_measures", "^## Measure", "## Look", "“## Measure”"),
    (
        "asks_for_a_prediction_before_it_measures",
        "^## The loop",
        "## Measure: the loop",
        "it measures before it has asked for a prediction",
    ),
    ("breaks_an_assumption", "^## Break it", "## Further", "no section “## Break it”"),
    (
        "ends_with_three_to_five_take_aways_and_exercises",
        "^## Take-away",
        "## Summary",
        "they are “## Summary” and “## Exercises”",
    ),
    (
        "ends_with_three_to_five_take_aways_and_exercises",
        "^- .*Beyond that.*\n",
        "",
        "has three to five bullets, this one has 2",
    ),
    (
        "has_three_exercises_each_followed_by_its_folded_solution",
        "solution-start} ex-copy-open",
        "solution-start} ex-copy-code",
        "the exercise ex-copy-open is not followed by its solution",
    ),
    (
        "has_three_exercises_each_followed_by_its_folded_solution",
        ":label: sol-copy-code\n:class: dropdown\n",
        "",
        "the solution of ex-copy-code is not folded",
    ),
    (
        "has_three_exercises_each_followed_by_its_folded_solution",
        ":label: ex-copy-pencil\n",
        "",
        "an exercise has no :label:",
    ),
    (
        "has_three_exercises_each_followed_by_its_folded_solution",
        r"^:::\{exercise\} (?:With|Your)",
        ":::{hint} With",
        "three exercises or more, this one has 1",
    ),
    ("executes_a_solution", "solution-start", "solution-begin", "no solution between"),
    ("begins_with_the_short_answer", "The short answer", "In short", "the box “The short answer”"),
    ("begins_with_the_short_answer", "Yes, and(.*\n)*?:::", "Yes.\n:::", "should give a number"),
    ("lets_the_reader_write_a_line_of_the_loop", "Your turn", "Write", "no exercise “Your turn”"),
    (
        "lets_the_reader_write_a_line_of_the_loop",
        r"^    \.\.\.  # your line",
        "    pass",
        "three dots",
    ),
    (
        "lets_the_reader_write_a_line_of_the_loop",
        r"your line\n\n\nprint\(check\(update\)\)",
        "your line",
        "should print what check(…) says",
    ),
    (
        "writes_out_the_loop_before_train_stands_in_for_it",
        r"loss\.backward\(\)",
        "step()",
        "has a loop in plain PyTorch",
    ),
    (
        "writes_out_the_loop_before_train_stands_in_for_it",
        "losses = gradient_descent_risk",
        "losses = train",
        "train(…) is called before the loop has been written out",
    ),
    (
        "shows_the_idea_on_one_weight_and_reads_its_plot",
        "^## One weight first: what",
        "## What",
        "no section that begins with “## One weight first”",
    ),
    (
        "shows_the_idea_on_one_weight_and_reads_its_plot",
        "^## The loop",
        "## Read: the loop",
        "in this order: Predict, One weight first, Measure, Read, Break it",
    ),
    (
        "is_a_chapter_of_its_own",
        "A chapter of its own.",
        "A chapter to copy.",
        "and its description",
    ),
    ("is_a_chapter_of_its_own", "Does double", "Does twice", "and its title"),
    ("states_a_theorem_and_proves_it", r"^:::\{prf:theorem\}", ":::{note}", "no theorem, lemma"),
    ("states_a_theorem_and_proves_it", r"\{admonition\} Proof", "{note}", "no proof: "),
    ("states_a_theorem_and_proves_it", "Proof\n:class: dropdown", "Proof", "is folded: it lacks"),
    ("asserts_what_it_says", "^assert ", "print", "no cell asserts a number of the take-away"),
    (
        "executes_every_solution",
        r"The size \$1/(.*\n)*?:::\{solution-end",
        "All.\n\n:::{solution-end",
        "no cell between {solution-start} ex-copy-pencil and {solution-end}",
    ),
]


def copied(text: str) -> str:
    """The template as a chapter of its own, with nothing left for its writer."""
    text = re.sub(r"^% .*\n", "", text, flags=re.M).replace("template", "copy")
    return text.replace("A chapter to copy", "A chapter of its own").replace(
        "# Does twice", "# Does double"
    )


@pytest.fixture
def copy(tmp_path: Path) -> Page:
    page = Page(tmp_path / "copy.md")
    page.path.write_text(copied(EXAMPLE.text), encoding="utf-8")
    return page


@pytest.mark.parametrize("check", CHECKS.values(), ids=str)
def test_a_copy_of_the_template_lacks_nothing(check: Check, copy: Page) -> None:
    assert check.complaints(copy) == []


@pytest.mark.parametrize(("name", "old", "new", "message"), BROKEN)
def test_what_a_page_lacks_is_said(name: str, old: str, new: str, message: str, copy: Page) -> None:
    broken, n = re.subn(old, new, copy.text, flags=re.M)
    assert n
    copy.path.write_text(broken, encoding="utf-8")
    complaints = CHECKS[name].complaints(Page(copy.path))
    assert any(message in complaint for complaint in complaints), complaints
    for complaint in complaints:
        assert re.match(rf"{copy}:\d+: ", complaint)
        place = re.search(r"\(see book/template\.md:(\d+), “(.+)”\)$", complaint, re.S)
        assert place
        assert place[2].split("\n")[0] in EXAMPLE.text.split("\n")[int(place[1]) - 1]


def test_each_check_is_seen_to_miss_something() -> None:
    assert {name for name, *_ in BROKEN} == CHECKS.keys()


def test_the_line_that_is_named_is_the_one_to_change(copy: Page) -> None:
    lines = copy.text.replace("Two runs", "Then 1,234 runs").split("\n")
    copy.path.write_text("\n".join(lines), encoding="utf-8")
    (complaint,) = CHECKS["types_no_number_by_hand"].complaints(Page(copy.path))
    line = re.match(rf"{copy}:(\d+): ", complaint)
    assert line
    assert lines[int(line[1]) - 1].startswith("Then 1,234 runs")


def test_settings_that_cannot_be_read_are_named_once(copy: Page) -> None:
    copy.path.write_text(copy.text.replace("    name: fig-copy-steps", "- name"), encoding="utf-8")
    page = Page(copy.path)
    cell = next(n for n, line in enumerate(page.text.split("\n")) if line == "- name") - 4
    (complaint,) = [text for check in CHECKS.values() for text in check.complaints(page)]
    assert complaint.startswith(f"{copy}:{cell}: what stands between --- and --- is no YAML")


def test_a_copy_that_keeps_the_templates_name_is_told_how_to_copy_it() -> None:
    page = Page(EXAMPLE.path.with_name("copied-by-cp.md"))
    vars(page)["text"] = EXAMPLE.text  # as if it had been written there
    (complaint,) = CHECKS["quotes_numbers_that_are_glued"].complaints(page)
    assert "which is no page: copy it as README.md says" in complaint


def test_what_stands_in_code_and_in_formulas_is_no_number_typed_by_hand(copy: Page) -> None:
    copy.path.write_text("# A page\n\nIn $k = 9342$, `1.5`, 9340 epochs.\n", encoding="utf-8")
    assert CHECKS["types_no_number_by_hand"].complaints(Page(copy.path)) == []


def test_what_is_no_side_of_a_picture_and_no_number_for_reading_is_let_pass(copy: Page) -> None:
    text = "The left-hand side of {eq}`eq-risk`, its right end, from left to right: right.\n"
    text += "In `-1` and $-1$, epochs 45-51, 2·10⁻⁵, 12,000 and 1,234,567 may stand.\n"
    copy.path.write_text(f"# A page\n\n{text}", encoding="utf-8")
    page = Page(copy.path)
    assert [text for check in OF_WHAT_IS_SEEN for text in check.complaints(page)] == []


def test_what_is_folded_or_solves_may_be_wider_and_what_is_left_out_as_wide_as_it_likes(
    copy: Page,
) -> None:
    wide = f"# {'a ' * 43}"
    places = r"^(?=import torch$|assert check\(|assert measured == predicted)"
    text, n = re.subn(places, f"{wide}\n", copy.text, flags=re.M)
    assert n == 3
    text, n = re.subn(r"^(?=assert measured == predicted)", f"{wide * 2}\n", text, flags=re.M)
    assert n == 1
    copy.path.write_text(text, encoding="utf-8")
    assert CHECKS["writes_code_that_fits_its_box"].complaints(Page(copy.path)) == []


def test_the_labels_of_all_pages_are_known() -> None:
    assert len(PAGES) > 10
    assert {"thm-modes", "fig-descent-symptom", "eq-risk", "own-loop"} <= labels_of_all_pages()


def test_a_page_that_the_contents_lack_is_named() -> None:
    assert not_in_contents(
        ["book/a", "book/b", "book/b", "book/c"], ["book/b", "book/c", "book/d"]
    ) == [
        "_toc.yml lacks `- file: book/d` among the chapters of a part",
        "_toc.yml has book/a, which is not there",
        "_toc.yml has book/b twice",
    ]


def test_a_chapter_cited_by_a_number_that_is_not_its_own_is_named(copy: Page) -> None:
    copy.path.write_text("# A page\n\nAs [chapter 2](mini.md) has it.\n", encoding="utf-8")
    page = Page(copy.path)
    assert wrongly_numbered(page, ["book/start", "book/mini"]) == []
    (complaint,) = wrongly_numbered(page, ["book/mini", "book/start"])
    assert complaint.startswith(f"{copy}:3: [chapter 2](mini.md) is chapter 1 in _toc.yml: ")


def test_a_public_name_without_documentation_is_named() -> None:
    (complaint,) = not_documented(["train"], ["train", "new_measure"])
    assert complaint.startswith("book/api.md lacks `.. autofunction:: new_measure`")
