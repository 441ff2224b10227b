"""What all live figures share: numbers, controls, the state in the address, plots."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sgd_analysis import figures
from tests.book.live.conftest import Show

INK: dict[str, dict[str, Any]] = {
    "printed": figures.PRINTED,
    "model": figures.OF_THE_MODEL,
    "measured": figures.MEASURED,
    "predicted": figures.PREDICTED,
    "reference": figures.REFERENCE,
    "backdrop": figures.BACKDROP,
    "gd": figures.METHODS["gradient descent"],
    "sgd": figures.METHODS["SGD"],
    "momentum": figures.METHODS["momentum"],
    "rmsprop": figures.METHODS["RMSprop"],
    "adam": figures.METHODS["Adam"],
    "sorted": figures.ORDERS["cyclic"],
}
TOY = """
Live.define("toy", {
  defaults: { kind: "a", size: 0.001, count: 3, at: 0 },
  compact: ["kind"],
  controls: [
    Live.choice("kind", "Kind", { a: "first", b: "second" }),
    {
      ...Live.range("size", "Size", { min: 0.001, max: 0.012, log: true }),
      when: ({ kind }) => kind === "b",
    },
    Live.range("count", "Count", { min: 1, max: 9, step: 2 }),
    Live.player("at", "Place", { min: 0, max: 40, every: 5 }),
    Live.action("Back", () => ({ at: 0 })),
  ],
  build(stage) {
    const plot = Live.plot(stage, {
      title: [["one", Live.ink.printed], ["other", Live.ink.model]],
      x: { label: "x", domain: [0, 40] },
      y: { label: "y", domain: [1e-2, 1e8], log: true },
    });
    plot.describe("A toy.");
    globalThis.seen = [];
    return ({ kind, size, count, at }) => {
      globalThis.seen.push(at);
      const far = [[0, 1], [at, 0], [at, NaN], [at, Infinity], [40, 1e300]];
      plot.line("line", far, Live.ink.printed);
      plot.dots("dots", [[at, 1]], Live.ink.model);
      return `${kind} ${size} ${count} ${at}`;
    };
  },
});
"""
READOUT, STATUS = ".live-readout", "[role=status]"


@pytest.fixture
def toy(show: Show) -> Page:
    return show("toy", TOY)


# Numbers and colours


@pytest.mark.parametrize(
    ("value", "text"),
    {
        0: "0",
        0.0001: "10⁻⁴",
        0.00023: "2·10⁻⁴",
        0.0962: "0.096",
        1.89: "1.9",
        -1.89: "−1.9",
        96.4: "96",
        9340: "9340",
        12345: "12,300",
        87.04e6: "87 million",
        1.24e9: "1.2 billion",
        7.2e83: "7·10⁸³",
        float("inf"): "more than 10³⁰⁸",
        float("nan"): "more than 10³⁰⁸",
    }.items(),
)
def test_a_number_is_written_as_the_text_writes_it(script: Page, value: float, text: str) -> None:
    assert script.evaluate("(value) => Live.number(value)", value) == text


def test_a_colour_means_what_it_means_in_the_static_figures(script: Page) -> None:
    ink = script.evaluate("() => Live.ink")
    assert {name: style["stroke"].lower() for name, style in ink.items()} == {
        name: style["color"].lower() for name, style in INK.items()
    }
    solid = {name for name, style in INK.items() if style["linestyle"] == "-"}
    assert {name for name, style in ink.items() if "dash" not in style} - {"sgd"} == solid


# Controls


def test_every_control_is_named_and_the_drawing_is_described(toy: Page) -> None:
    figure = toy.get_by_role("group", name="A title")
    expect(figure.get_by_role("combobox", name="Kind")).to_have_value("a")
    expect(figure.get_by_role("slider", name="Count")).to_have_value("3")
    expect(figure.get_by_role("button", name="Play")).to_be_visible()
    expect(figure.get_by_role("img", name="A toy.")).to_be_visible()


def test_arrow_keys_move_a_slider_and_the_readout_follows(toy: Page) -> None:
    expect(toy.locator(READOUT)).to_have_text("a 0.001 3 0")
    toy.get_by_role("slider", name="Count").focus()
    toy.keyboard.press("ArrowRight")
    expect(toy.locator(READOUT)).to_have_text("a 0.001 5 0")
    for _ in range(5):
        toy.keyboard.press("ArrowRight")
    expect(toy.locator(READOUT)).to_have_text("a 0.001 9 0")


def test_a_screen_reader_hears_the_readout_once_the_hand_rests_and_not_before(toy: Page) -> None:
    expect(toy.locator(STATUS)).to_have_text("")
    toy.get_by_role("combobox", name="Kind").select_option("b")
    expect(toy.locator(READOUT)).to_have_text("b 0.001 3 0")
    assert toy.locator(STATUS).inner_text() == ""
    expect(toy.locator(STATUS)).to_have_text("b 0.001 3 0")


def test_a_logarithmic_slider_reaches_both_its_ends_by_keyboard(toy: Page) -> None:
    toy.get_by_role("combobox", name="Kind").select_option("b")
    toy.get_by_role("slider", name="Size").focus()
    toy.keyboard.press("End")
    expect(toy.locator(READOUT)).to_have_text("b 0.012 3 0")
    toy.keyboard.press("ArrowLeft")
    expect(toy.locator(READOUT)).to_have_text("b 0.0117 3 0")
    toy.keyboard.press("Home")
    expect(toy.locator(READOUT)).to_have_text("b 0.001 3 0")


def test_a_control_is_there_only_when_it_has_a_meaning(toy: Page) -> None:
    size = toy.get_by_role("slider", name="Size")
    expect(size).to_be_hidden()
    toy.get_by_role("combobox", name="Kind").select_option("b")
    expect(size).to_be_visible()


def test_a_compact_figure_has_only_the_controls_it_names(show: Show) -> None:
    page = show("toy", TOY, options="data-compact", address="#count=5&kind=b")
    expect(page.get_by_role("combobox", name="Kind")).to_be_visible()
    expect(page.get_by_role("slider")).to_have_count(0)
    expect(page.locator(READOUT)).to_have_text("b 0.001 3 0")


# Motion


def test_nothing_moves_unasked_and_play_runs_to_the_end_and_begins_again(toy: Page) -> None:
    place = toy.get_by_role("slider", name="Place")
    toy.wait_for_timeout(100)
    assert toy.evaluate("seen") == [0]
    toy.get_by_role("button", name="Play").click()
    expect(place).to_have_value("40")
    expect(toy.get_by_role("button", name="Play")).to_be_visible()
    toy.get_by_role("button", name="Play").click()
    toy.wait_for_function("seen.at(-1) < 40")
    expect(place).to_have_value("40")


def test_a_touch_of_the_slider_stops_what_plays(toy: Page) -> None:
    toy.get_by_role("button", name="Play").click()
    toy.get_by_role("slider", name="Place").press("Home")
    expect(toy.get_by_role("button", name="Play")).to_be_visible()
    expect(toy.locator(READOUT)).to_have_text("a 0.001 3 0")


def test_who_asks_for_less_motion_gets_few_long_strides(show: Show) -> None:
    page = show("toy", TOY, reduced_motion="reduce")
    page.clock.install(time=0)
    page.reload()
    page.clock.pause_at(1000)  # from here on, time passes where the test says so, not while it runs
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(850)
    expect(page.get_by_role("slider", name="Place")).to_have_value("0")
    page.clock.run_for(100)
    expect(page.get_by_role("slider", name="Place")).to_have_value("5")
    page.clock.run_for(10000)
    expect(page.get_by_role("slider", name="Place")).to_have_value("40")


# The address


def test_the_address_holds_the_state_and_gives_it_back(toy: Page) -> None:
    toy.get_by_role("combobox", name="Kind").select_option("b")
    toy.get_by_role("slider", name="Count").press("End")
    toy.wait_for_url("**#kind=b&count=9")
    toy.reload()
    expect(toy.locator(READOUT)).to_have_text("b 0.001 9 0")
    toy.get_by_role("combobox", name="Kind").select_option("a")
    toy.wait_for_url("**#count=9")


@pytest.mark.parametrize(
    ("address", "state"),
    {
        "#kind=toString&count=11&size=x": "a 0.001 3 0",
        "#count=4.4&at=7.6": "a 0.001 5 8",
        "#size=0.0042&other=1": "a 0.0042 3 0",
        "#a-section": "a 0.001 3 0",
    }.items(),
)
def test_only_what_a_control_allows_is_taken_from_the_address(
    show: Show, address: str, state: str
) -> None:
    expect(show("toy", TOY, address).locator(READOUT)).to_have_text(state)


def test_another_figures_state_stays_in_the_address(show: Show) -> None:
    page = show("toy", TOY, "#other=1&count=9")
    page.get_by_role("slider", name="Count").press("Home")
    page.wait_for_url("**#other=1&count=1")


# Plots


def test_what_is_infinite_or_no_number_leaves_the_panel_and_breaks_nothing(toy: Page) -> None:
    paths = toy.locator("svg path").evaluate_all(
        "(all) => all.map((path) => path.getAttribute('d'))"
    )
    assert len(paths) == 3
    assert not re.search("NaN|Infinity|undefined", " ".join(paths))
    height = [float(y) for y in re.findall(r"[ML][\d.-]+ ([\d.-]+)", paths[1])]
    assert min(height) < 0 and max(height) > 250  # above and below the drawing


def test_powers_of_ten_are_marked_with_raised_exponents(toy: Page) -> None:
    labels = toy.locator("svg text[text-anchor=end]").all_text_contents()
    assert labels == ["10−2", "1", "100", "104", "106", "108"]
    raised = toy.locator("svg tspan[dy]").all_text_contents()
    assert raised == ["−2", "4", "6", "8"]


def test_no_letter_in_a_drawing_is_under_11_pixels_on_a_phone(toy: Page) -> None:
    toy.set_viewport_size({"width": 390, "height": 800})
    sizes = toy.locator("svg :is(text, tspan)").evaluate_all(
        """(all) => all.map((text) => parseFloat(getComputedStyle(text).fontSize)
          * text.ownerSVGElement.getScreenCTM().a)"""
    )
    assert len(sizes) > 10 and min(sizes) >= 11


# On paper, and in place of a static figure


def test_a_live_figure_takes_the_place_of_a_static_one_on_a_screen_alone(show: Show) -> None:
    page = show("toy", TOY, options='data-figure="static"')
    expect(page.locator("#static")).to_be_hidden()
    expect(page.locator(".live")).to_be_visible()
    page.emulate_media(media="print")
    expect(page.locator("#static")).to_be_visible()
    expect(page.locator(".live")).to_be_hidden()
