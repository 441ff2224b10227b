import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import sgd_analysis
from tests.book import contents

ROOT = contents.ROOT
BOOK = ROOT / "book"

FENCE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[^}\n]+)\}[ \t]*(?P<argument>[^\n]*)\n"
    r"(?P<content>.*?)^(?P=fence)[ \t]*$",
    re.M | re.S,
)
# What the source notebook itself says, quoted as such.
STOPPING_EPOCHS = {"9340", "48", "23"}
POINTS = {"2000", "0.01", "9.99", "9.990458", "0.3", "1.7", "2.5"}
SETTINGS = {"0.0002", "0.1", "10000", "10,000", "0.00001", "0.001", "100"}
SEEDS_OWN = STOPPING_EPOCHS | POINTS | SETTINGS
NUMBER = re.compile(r"(?<![\w.,])(?:\d+\.\d+|\d{1,3}(?:,\d{3})+|\d{3,})(?![\w-]|[.,]\d)")
REFERENCE = re.compile(r"\{(eq|numref|ref|prf:ref)\}`(?:[^`<]*<)?([^`>]+)>?`")
GLUED_TEXT = re.compile(r"\{glue:text\}`([^`]+)`")


@dataclass(frozen=True)
class Block:
    name: str
    argument: str
    options: dict[str, Any]
    content: str


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        content = match["content"]
        if header := re.match(r"---\n(.*?)^---\n", content, re.M | re.S):
            options = yaml.safe_load(header[1])
        else:
            options = dict(re.findall(r"^:([\w-]+):[ \t]*(.*)$", content, re.M))
        yield Block(match["name"], match["argument"].strip(), options, content)
        if match["name"] != "code-cell":
            yield from blocks(content)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path, *names: str) -> list[Block]:
    return [block for block in blocks(read(page)) if block.name in names]


def section(page: Path, title: str) -> str:
    found = re.search(rf"^## {title}[^\n]*\n(.*?)(?=^## |\Z)", read(page), re.M | re.S)
    return found[1] if found else ""


def figure_settings(cell: Block) -> dict[str, Any]:
    settings: dict[str, Any] = cell.options.get("mystnb", {})
    return settings


def prose(page: Path) -> str:
    """The sentences of a page, captions included, at their own lines."""

    def blank(match: re.Match[str]) -> str:
        block = next(blocks(match[0]))
        caption = str(figure_settings(block).get("figure", {}).get("caption", ""))
        return caption.replace("\n", " ") + "\n" * match[0].count("\n")

    text = re.sub(r"\A---\n.*?\n---\n", lambda m: "\n" * m[0].count("\n"), read(page), flags=re.S)
    code = r"^(`{3,})\{(?:code-cell|math|bibliography|eval-rst)\}.*?^\1[ \t]*$"
    text = re.sub(code, blank, text, flags=re.M | re.S)
    text = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S)
    text = re.sub(r"\$\$.*?\$\$", lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    text = re.sub(r"^:(?:alt|name|label|class):.*$", "", text, flags=re.M)
    return re.sub(r"\$[^$\n]*\$|`[^`\n]*`|\]\([^)]*\)|^\([\w-]+\)=$", "", text, flags=re.M)


def labels(text: str) -> set[str]:
    targets = re.findall(r"^\(([\w-]+)\)=", text, re.M)
    equations = re.findall(r"\$\$[ \t]*\(([\w-]+)\)", text)
    found = {*targets, *equations}
    for block in blocks(text):
        figure = figure_settings(block).get("figure", {})
        found |= {block.options.get("label"), block.options.get("name"), figure.get("name")}
    return found - {None}


def glued_keys(page: Path) -> re.Pattern[str]:
    """What a page's cells glue; a key built by an f-string stands for all it may become."""
    keys = []
    for f_string, key in re.findall(r"\bglue\(\s*(f?)\"([^\"]+)\"", read(page)):
        parts = re.split(r"\{[^}]*\}", key) if f_string else [key]
        keys.append(".+".join(re.escape(part) for part in parts))
    return re.compile("|".join(keys) or "(?!)")


PAGES = [ROOT / f"{page}.md" for page in contents.LISTED]
CHAPTERS = [ROOT / f"{page}.md" for page in contents.CHAPTERS]
LABELS = set().union(*(labels(read(page)) for page in PAGES if page.exists()))


def page_name(page: Path) -> str:
    return page.stem


each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)
each_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=page_name)


def test_every_page_is_in_the_table_of_contents_once() -> None:
    assert sorted(PAGES) == sorted(BOOK.rglob("*.md"))


def test_the_api_page_documents_every_public_name_once() -> None:
    documented = re.findall(r"^\.\. auto(?:class|function):: (\w+)$", read(BOOK / "api.md"), re.M)
    assert sorted(documented) == sorted(sgd_analysis.__all__)


@each_page
def test_a_page_has_a_description_of_one_sentence_or_two(page: Path) -> None:
    front_matter = re.match(r"---\n(.*?)\n---\n", read(page), re.S)
    assert front_matter
    description = yaml.safe_load(front_matter[1])["myst"]["html_meta"]["description"]
    assert 80 <= len(description) <= 160
    assert description.endswith((".", "?"))
    assert {found for found in NUMBER.findall(description)} <= SEEDS_OWN


@each_chapter
def test_the_title_is_a_question(page: Path) -> None:
    title = re.search(r"^# (.*)$", read(page), re.M)
    assert title
    assert title[1].endswith("?")


@each_chapter
def test_a_chapter_says_what_one_will_learn(page: Path) -> None:
    boxes = [box for box in named(page, "admonition") if box.options.get("class") == "learn"]
    assert [box.argument for box in boxes] == ["What you will learn"]
    (box,) = boxes
    assert 3 <= len(re.findall(r"^- ", box.content, re.M)) <= 5
    last_line = box.content.strip().split("\n")[-1]
    assert re.fullmatch(r"\*\*It needs\*\* .*\. \*\*It runs in\*\* about .* on a CPU\.", last_line)


@each_chapter
def test_a_chapter_asks_for_a_prediction_before_it_measures(page: Path) -> None:
    headings = re.findall(r"^## (\w+)", read(page), re.M)
    assert headings.index("Predict") < headings.index("Measure")


@each_chapter
def test_a_chapter_breaks_an_assumption(page: Path) -> None:
    assert section(page, "Break it").strip()


@each_chapter
def test_a_chapter_ends_with_three_to_five_take_aways_and_exercises(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", read(page), re.M)
    assert headings[-2:] == ["Take-away", "Exercises"]
    bullets = re.findall(r"^- ", section(page, "Take-away"), re.M)
    assert 3 <= len(bullets) <= 5


@each_chapter
def test_each_exercise_is_followed_by_its_folded_solution(page: Path) -> None:
    found = named(page, "exercise", "solution", "solution-start")
    exercises, solutions = found[::2], found[1::2]
    assert len(exercises) >= 3
    assert [exercise.name for exercise in exercises] == ["exercise"] * len(exercises)
    assert [solution.argument for solution in solutions] == [
        exercise.options["label"] for exercise in exercises
    ]
    for solution in solutions:
        assert solution.options["class"] == "dropdown", solution.argument


@each_chapter
def test_a_chapter_has_a_solution_that_is_executed(page: Path) -> None:
    gated = re.findall(r"\{solution-start\}.*?\{solution-end\}", read(page), re.S)
    assert any("{code-cell}" in solution for solution in gated)


@each_page
def test_every_figure_has_a_caption_a_label_and_alt_text(page: Path) -> None:
    for cell in named(page, "code-cell"):
        settings = figure_settings(cell)
        if "plt.subplots" in cell.content and "glue(" not in cell.content:
            assert settings.get("figure"), cell.content
        if "figure" in settings:
            assert settings["figure"]["name"].startswith("fig-")
            assert settings["figure"]["caption"].strip()
            assert len(settings["image"]["alt"]) >= 60, settings["figure"]["name"]
    for figure in named(page, "glue:figure", "figure", "image"):
        assert len(figure.options["alt"]) >= 60, figure.argument
    assert not re.search(r"!\[\]\(", read(page))


@each_page
def test_cells_that_glue_are_left_out_and_folded_cells_say_what_they_hide(page: Path) -> None:
    for cell in named(page, "code-cell"):
        tags = str(cell.options.get("tags", ""))
        if re.search(r"^\s*glue\(", cell.content, re.M):
            assert "remove-cell" in tags, cell.content
        if "hide-input" in tags and "figure" not in figure_settings(cell):
            hidden = re.fullmatch(r"Show (.+)", figure_settings(cell)["code_prompt_show"])
            assert hidden
            assert figure_settings(cell)["code_prompt_hide"] == f"Hide {hidden[1]}"
        if re.search(r"^(?:import|from) ", cell.content, re.M):
            assert "hide-input" in tags or "remove-cell" in tags, cell.content


@each_page
def test_every_glued_number_names_its_page_and_is_glued_there(page: Path) -> None:
    for text in GLUED_TEXT.findall(read(page)):
        assert re.fullmatch(r"[\w/.-]+\.md::\w+:[^:]*[a-zA-Z%]", text), text
        source, key = text.rsplit(":", 1)[0].split("::")
        assert glued_keys(page.parent / source).fullmatch(key), text


@each_page
def test_no_number_in_the_prose_is_typed_by_hand(page: Path) -> None:
    typed = [
        f"{number}: {line.strip()[:80]}"
        for number, line in enumerate(prose(page).split("\n"), 1)
        for found in NUMBER.findall(line)
        if found not in SEEDS_OWN
    ]
    assert not typed


@each_page
def test_every_reference_has_a_target(page: Path) -> None:
    references = {label for _, label in REFERENCE.findall(read(page))}
    assert references <= LABELS


def test_the_bibliography_holds_what_the_pages_cite() -> None:
    cited = re.findall(r"\{cite:[a-z]+\}`([^`]+)`", "".join(read(page) for page in PAGES))
    entries = re.findall(r"^@\w+\{([\w-]+),", (BOOK / "references.bib").read_text("utf-8"), re.M)
    assert sorted(entries) == sorted({key.strip() for keys in cited for key in keys.split(",")})


def test_a_number_typed_by_hand_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    sentences = ["It took 9340 epochs.", "It took 9341 epochs, or 1,234.", "In $k = 9342$, `1.5`."]
    page.write_text("\n".join(["# A page", *sentences]), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"3: It took 9341") as raised:
        test_no_number_in_the_prose_is_typed_by_hand(page)
    assert "9342" not in str(raised.value)


@each_page
def test_a_single_draw_has_seed_zero(page: Path) -> None:
    seeds = re.findall(r"\b(?:manual_seed\(|default_rng\(|seed=)(\d*)", read(page))
    assert set(seeds) <= {"0", ""}  # "": a variable


def test_the_page_on_the_build_gives_the_readmes_command() -> None:
    command = re.search(r"^```sh\n(.*?)\n```$", read(ROOT / "README.md"), re.M)
    assert command
    assert command[1] in read(BOOK / "how-this-book-was-built.md")
