"""Chapter 7's stopping epochs on the page: those of the library, at any threshold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from sgd_analysis import (
    Ensemble,
    empirical_risk_below,
    last_batch_loss_below,
    quadratic_fit,
    running_loss_below,
    train_ensemble,
)

LIVE = Path(__file__).parents[3] / "book/_assets/live"
NAMES = ("runs", "threshold")
SCRIPT = "".join((LIVE / f"{name}.js").read_text(encoding="utf-8") for name in NAMES)
N_SEEDS = 64
RULES = {
    "running": running_loss_below,
    "global": empirical_risk_below,
    "last": last_batch_loss_below,
}
# What the page offers, as far as it is quick; the number of epochs by which every run is through.
OFFERED = {
    (10, "shuffled"): 64,
    (10, "replacement"): 64,
    (2, "shuffled"): 16,
    (5, "replacement"): 34,
}
DRAWN = {"shuffled": "reshuffle", "replacement": "with_replacement"}

MAKE = """([size, order, n]) =>
  Array.from({ length: n }, (_, s) => Live.figures.threshold.make({ size, order }, s + 1))"""
Runs = list[dict[str, list[float]]]


@pytest.fixture(scope="module", params=OFFERED, ids=lambda offered: "-".join(map(str, offered)))
def both(request: pytest.FixtureRequest, script: Page) -> tuple[Runs, Ensemble]:
    """The page's runs and the library's, of one batch size and order."""
    size, order = request.param
    script.evaluate(SCRIPT)
    settings: dict[str, Any] = dict(step_size=0.0002, batch_size=size, gradient="closed form")
    settings |= dict(order=DRAWN[order], max_epochs=OFFERED[request.param])
    theirs = train_ensemble(quadratic_fit(), range(N_SEEDS), **settings)
    return script.evaluate(MAKE, [size, order, N_SEEDS]), theirs


def agree(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether the means over the seeds differ by no more than four of their standard errors."""
    spread = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / N_SEEDS)
    return bool((np.abs(one.mean(axis=0) - other.mean(axis=0)) <= 4 * spread).all())


def stops(runs: Runs, watched: str, epsilon: float) -> NDArray[np.int64]:
    return np.array([int(np.argmax(np.array(run[watched]) < epsilon)) + 1 for run in runs])


@pytest.mark.parametrize("watched", RULES)
@pytest.mark.parametrize("epsilon", [0.055, 0.1, 0.18])
def test_the_stopping_epochs_are_distributed_as_the_librarys(both, watched, epsilon) -> None:
    ours, theirs = stops(both[0], watched, epsilon), both[1].epochs_to(RULES[watched](epsilon))
    assert np.isfinite(theirs).all()
    assert agree(ours, theirs)
    quartiles = np.quantile(theirs, [0.1, 0.25, 0.5, 0.75, 0.9])
    assert agree(ours[:, None] <= quartiles, theirs[:, None] <= quartiles)


@pytest.mark.parametrize("watched", RULES)
def test_as_many_models_are_above_the_threshold_as_the_librarys(both, watched) -> None:
    runs, ensemble = both
    left = np.array(
        [run["global"][at - 1] for run, at in zip(runs, stops(runs, watched, 0.1), strict=True)]
    )
    at = ensemble.epochs_to(RULES[watched](0.1)).astype(int)
    others = ensemble.empirical_risk[np.arange(N_SEEDS), at - 1]
    assert agree(left >= 0.1, others >= 0.1)
    assert agree(np.log(left), np.log(others))
    if watched == "global":
        assert left.max() < 0.1


def test_a_run_goes_on_until_each_number_has_been_below_the_lowest_threshold(both) -> None:
    for run in both[0]:
        least = [np.minimum.accumulate(run[watched]) for watched in RULES]
        assert max(values[-1] for values in least) < 0.05 <= max(values[-2] for values in least)


def test_the_bands_are_the_thresholds_that_unite_all_seeds(both, script: Page) -> None:
    runs = both[0][:8]  # few enough to agree now and then, whatever the order
    stairs = script.evaluate("(runs) => Live.stairs(runs, 'running')", runs)
    bands = [(step["unites"], step["epoch"]) for step in stairs if step["unites"]]
    agreed = 0
    for epsilon in np.geomspace(0.05, 0.2, 301):
        at = np.unique(stops(runs, "running", epsilon))
        within = [epoch for (low, high), epoch in bands if low < epsilon <= (high or np.inf)]
        assert within == (at.tolist() if len(at) == 1 else [])
        agreed += len(within)
    assert 0 < agreed < 301


# On the page


def readout(page: Page):
    return page.locator(".live-readout")


def expect_seeds(page: Page, n: int) -> None:
    expect(readout(page)).to_contain_text(f"unites all {n} seeds", timeout=60_000)


def test_the_readout_says_what_the_runs_say(show, script: Page) -> None:
    script.evaluate(SCRIPT)
    runs = script.evaluate(MAKE, [10, "shuffled", N_SEEDS])
    page = show("threshold", SCRIPT)
    expect_seeds(page, N_SEEDS)
    above = {}
    for watched in ("running", "last"):
        at = stops(runs, watched, 0.1)
        above[watched] = np.mean(
            [run["global"][e - 1] >= 0.1 for run, e in zip(runs, at, strict=True)]
        )
    grid = np.geomspace(0.05, 0.2, 1001)
    united = np.mean([len(np.unique(stops(runs, "running", epsilon))) == 1 for epsilon in grid])
    said = readout(page).inner_text()
    assert said.startswith(
        f"By the running loss all 64 runs stop after epoch 48; {above['running']:.0%} of these "
        f"models have a global loss above 0.1, and {above['last']:.0%} of those"
    )
    share = re.search(r"for (\d+)% of these thresholds", said)
    assert abs(int(share[1]) / 100 - united) < 0.01  # rounded, and on a grid


def test_a_threshold_between_two_epochs_divides_the_seeds(show) -> None:
    page = show("threshold", SCRIPT)
    expect_seeds(page, N_SEEDS)
    slider = page.get_by_role("slider", name=re.compile("^Threshold"))
    slider.focus()
    for _ in range(3):
        if "all 64 runs" not in readout(page).inner_text():
            break
        page.keyboard.press("ArrowRight")
        page.evaluate("() => new Promise(requestAnimationFrame)")
    expect(readout(page)).to_contain_text(
        re.compile(r"loss (\d+) runs stop after epoch 47, (\d+) after 48")
    )


def test_dragging_over_the_panel_moves_the_threshold(show) -> None:
    page = show("threshold", SCRIPT, "#seeds=16")
    expect_seeds(page, 16)
    box = page.locator(".live-stage svg").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    slider = page.get_by_role("slider", name=re.compile("^Threshold"))
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], middle)
    page.mouse.move(box["x"] - 50, middle)
    expect(slider).to_have_attribute("aria-valuetext", "0.05")
    page.mouse.up()
    page.mouse.move(box["x"] + 0.6 * box["width"], middle)
    expect(slider).to_have_attribute("aria-valuetext", "0.05")


@pytest.mark.parametrize(("along", "says"), [("x", "0.05"), ("y", "0.1")])
def test_a_finger_that_scrolls_over_the_panel_leaves_the_threshold(show, along, says) -> None:
    page = show("threshold", SCRIPT, "#seeds=16")
    expect_seeds(page, 16)
    box = page.locator(".live-stage svg").first.bounding_box()
    session = page.context.new_cdp_session(page)
    at = {"x": box["x"] + 0.6 * box["width"], "y": box["y"] + 0.6 * box["height"]}
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
    for _ in range(10):
        at[along] -= box["width"] / 12
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.evaluate("() => new Promise(requestAnimationFrame)")
    slider = page.get_by_role("slider", name=re.compile("^Threshold"))
    expect(slider).to_have_attribute("aria-valuetext", says)


def test_the_address_brings_back_batches_seeds_and_order(show) -> None:
    page = show("threshold", SCRIPT, "#size=2&seeds=16&order=replacement&epsilon=0.08")
    expect_seeds(page, 16)
    expect(page.get_by_label("Batch size")).to_have_value("2")
    expect(page.get_by_label("Order")).to_have_value("replacement")
    expect(readout(page)).to_contain_text("global loss above 0.08")


def test_a_change_while_runs_are_made_leaves_those_of_the_new_setting(show, script: Page) -> None:
    page = show("threshold", SCRIPT)
    page.get_by_label("Seeds").select_option("128")
    page.get_by_label("Batch size").select_option("2")
    page.get_by_label("Seeds").select_option("16")
    expect_seeds(page, 16)
    expect(readout(page)).to_contain_text("after epoch 11")
    page.get_by_label("Batch size").select_option("10")
    expect(readout(page)).to_contain_text("all 16 runs stop after epoch 48")


def test_no_run_but_the_first_is_made_before_the_figure_is_on_screen(show) -> None:
    push = "document.body.style.paddingTop = '5000px'"
    page = show("threshold", f"{SCRIPT} addEventListener('DOMContentLoaded', () => {{ {push} }});")
    page.evaluate(
        """async () => {
          for (let i = 0; i < 5; i++) {
            await new Promise(requestAnimationFrame);
            await new Promise((done) => setTimeout(done));
          }
        }"""
    )
    assert "all 1 seeds" in readout(page).inner_text()
    page.locator(".live").scroll_into_view_if_needed()
    expect_seeds(page, N_SEEDS)
