"""The API page: all names at a glance, signatures to read, examples to copy."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

import sgd_analysis
from sgd_analysis import checks
from tests.book.contents import ROOT
from tests.book.test_reading import View, reader_of

SOURCE = (ROOT / "book/api.md").read_text(encoding="utf-8")
GLANCE, *ROOMS = re.split(r"^## ", SOURCE, flags=re.M)[1:]


@pytest.fixture(scope="module")
def page(site: Path) -> str:
    return (site / "book/api.html").read_text(encoding="utf-8")


def names_at_a_glance() -> dict[str, list[str]]:
    parts = re.split(r"^\.\. rubric:: (.*)\n", GLANCE, flags=re.M)[1:]
    tables = zip(parts[::2], parts[1::2], strict=True)
    return {room: re.findall(r"^   ~?([\w.]+)$", table, re.M) for room, table in tables}


def test_every_public_name_is_at_a_glance_once() -> None:
    listed = [name for names in names_at_a_glance().values() for name in names]
    public = {*sgd_analysis.__all__, *(f"checks.{name}" for name in checks.__all__)}
    assert sorted(set(listed)) == sorted(listed)
    assert public - set(listed) == set()


def test_the_names_at_a_glance_are_those_of_each_section_in_its_order() -> None:
    at_a_glance = names_at_a_glance()
    assert list(at_a_glance) == [room.partition("\n")[0] for room in ROOMS]
    for room in ROOMS:
        documented = re.findall(
            r"^\.\. auto(?:class|function):: (?:sgd_analysis\.)?(.*)", room, re.M
        )
        if documented:  # the last two list all that a module has
            assert at_a_glance[room.partition("\n")[0]] == documented


def test_each_name_at_a_glance_leads_to_its_documentation_and_says_what_it_is(page: str) -> None:
    rows = re.findall(r"<tr[^>]*><td>(.*?)</td>\s*<td>(.*?)</td>", page[: page.index("<dl ")], re.S)
    assert len(rows) == sum(map(len, names_at_a_glance().values()))
    for name, said in rows:
        target = re.search(r'href="#(sgd_analysis\.[\w.]+)"', name)
        assert target, name
        assert f'id="{target[1]}"' in page
        assert len(re.sub("<[^>]*>", "", said).split()) > 3, name


def test_the_signature_of_a_history_has_a_line_for_each_field_and_its_default(page: str) -> None:
    assert "factory&gt;" not in page
    start = page.index('id="sgd_analysis.History"')
    signature = page[start : page.index("</dt>", start)]
    assert signature.count('class="sig-parameter"') == 18
    text = re.sub("<[^>]*>", "", signature)
    assert "metadata: Mapping[str, Any] = {}," in text


# Examples


@pytest.fixture(params=[1280, 390])
def opened(
    request: pytest.FixtureRequest, browser: Browser, addresses: dict[str, str]
) -> Iterator[Page]:
    with reader_of(browser, View(request.param), addresses["http"]) as reader:
        yield reader.open("book/api")


LEAVE = """(examples) => {
    const { right } = document.querySelector("article").getBoundingClientRect();
    const leaves = (pre) =>
        pre.scrollWidth > pre.clientWidth || pre.getBoundingClientRect().right > right;
    return examples.filter(leaves).map((pre) => pre.textContent);
}"""


def test_examples_stay_in_their_box(opened: Page) -> None:
    examples = opened.locator(".doctest pre")
    assert examples.count() > 50
    assert examples.evaluate_all(LEAVE) == []


def copied(box: Locator) -> str:
    """What a reader has to paste who has pressed the button of some code."""
    box.hover()
    box.locator(".copybtn").click()
    tab = box.page
    tab.evaluate("() => document.body.append(document.createElement('textarea'))")
    tab.locator("body > textarea").last.focus()
    tab.keyboard.press("ControlOrMeta+v")
    return tab.locator("body > textarea").last.input_value()


def test_an_example_is_copied_without_its_prompts_and_what_it_prints(opened: Page) -> None:
    example = opened.locator(".doctest", has_text="with record_all(").first
    assert ">>> " in example.inner_text()
    code = copied(example)
    assert "with record_all(steps_per_epoch=3, n_samples=5) as recorders:\n    train()" in code
    assert ">>>" not in code and "..." not in code and "[(6, 2)]" not in code
    ast.parse(code)


def test_a_cell_is_copied_as_it_is(browser: Browser, addresses: dict[str, str]) -> None:
    with reader_of(browser, View(), addresses["http"]) as reader:
        cell = reader.open("book/own-loop").locator("div.cell_input:visible .highlight").first
        code = cell.locator("pre").inner_text()
        assert len(code.splitlines()) > 3
        assert copied(cell).strip() == code.strip()
