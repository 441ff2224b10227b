"""Chapter 5's lottery on the page: its tickets are the library's, and so are its odds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from torch.optim import RMSprop

from sgd_analysis import quadratic_fit, train_ensemble

LIVE = Path(__file__).parents[3] / "book/_assets/live"
SCRIPT = "".join((LIVE / f"{name}.js").read_text(encoding="utf-8") for name in ("runs", "ticket"))
N_SEEDS, EPOCHS, EPSILON = 128, 50, 1e-7
WATCHED = {
    "last": "last_batch_loss",
    "running": "running_loss",
    "global": "empirical_risk",
}


@pytest.fixture(scope="module")
def ours(script: Page) -> dict[str, NDArray[np.float64]]:
    """(n_seeds, n_epochs) what the page's runs have, by what a rule may look at."""
    script.evaluate(SCRIPT)
    runs = script.evaluate(
        """(n) => Array.from({ length: n }, (_, s) => Live.figures.ticket.make(0.01, s + 1))""",
        N_SEEDS,
    )
    return {watched: np.array([run[watched] for run in runs]) for watched in WATCHED}


@pytest.fixture(scope="module")
def theirs() -> dict[str, NDArray[np.float64]]:
    settings = dict(step_size=0.01, batch_size=10, max_epochs=EPOCHS, gradient="closed form")
    ensemble = train_ensemble(quadratic_fit(), range(N_SEEDS), RMSprop, **settings)
    return {watched: getattr(ensemble, name) for watched, name in WATCHED.items()}


def agree(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether the means over the seeds differ by no more than four of their standard errors."""
    spread = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / N_SEEDS)
    return bool((np.abs(one.mean(axis=0) - other.mean(axis=0)) <= 4 * spread).all())


def stops(values: NDArray[np.float64], epsilon: float = EPSILON) -> NDArray[np.float64]:
    """The first epoch below the threshold, or infinity."""
    below = values < epsilon
    return np.where(below.any(axis=1), below.argmax(axis=1) + 1.0, np.inf)


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("epsilon", [1e-7, 1e-5, 1e-3])
def test_a_ticket_is_as_likely_to_win_as_the_librarys(ours, theirs, watched, epsilon) -> None:
    won = [(runs[watched][:, 3:] < epsilon).mean(axis=1) for runs in (ours, theirs)]
    assert agree(*won)


@pytest.mark.parametrize("watched", ["last", "global"])
def test_the_stopping_epochs_are_distributed_as_the_librarys(ours, theirs, watched) -> None:
    both = [stops(runs[watched]) for runs in (ours, theirs)]
    by = np.array([4, 8, 13, 23, 35, EPOCHS])
    assert agree(*((at[:, None] <= by).astype(float) for at in both))
    assert agree(*(np.minimum(at, EPOCHS + 1) for at in both))


@pytest.mark.parametrize("watched", WATCHED)
def test_the_losses_are_distributed_as_the_librarys(ours, theirs, watched) -> None:
    logs = [np.log10(runs[watched]) for runs in (ours, theirs)]
    assert agree(*(log[:, [0, 1, 2, 3, 9, 24, 49]] for log in logs))
    assert agree(*(log[:, 5:].mean(axis=1) for log in logs))


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("epsilon", [1e-7, 1e-3])
def test_the_predicted_curve_is_that_of_chapter_5(script: Page, ours, watched, epsilon) -> None:
    rows = [{watched: row} for row in ours[watched].tolist()]
    found = script.evaluate("(given) => Live.lottery(...given)", [rows, watched, epsilon])
    at = stops(ours[watched], epsilon)
    if np.isinf(at).all():
        assert found is None
        return
    first = int(at.min())
    share = (ours[watched][:, first - 1 :] < epsilon).mean()
    assert found["first"] == first and found["share"] == pytest.approx(share, rel=1e-12)
    if (watched, epsilon) == ("last", EPSILON):
        assert first == 4  # as in the chapter


def test_stops_and_their_counts_are_what_the_runs_say(script: Page, ours) -> None:
    rows = [{"last": row} for row in ours["last"].tolist()]
    found = script.evaluate(
        """([rows, epsilon]) => {
          const stops = Live.stops(rows, "last", epsilon);
          return [stops.map((at) => (at === Infinity ? null : at)), Live.counts(stops)];
        }""",
        [rows, EPSILON],
    )
    at = stops(ours["last"])
    assert np.array_equal(np.array(found[0], dtype=float), np.where(np.isinf(at), np.nan, at), True)
    epochs, counts = np.unique(at[np.isfinite(at)], return_counts=True)
    assert found[1] == [[e, n] for e, n in zip(epochs, counts, strict=True)]


# On the page


def readout(page: Page):
    return page.locator(".live-readout")


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_each_seed_says_when_it_stopped(show, ours) -> None:
    page, at = show("ticket", SCRIPT), stops(ours["last"])
    for seed in (1, 2, 3):
        expect(readout(page)).to_contain_text(f"Seed {seed} stopped after epoch {at[seed - 1]:.0f}")
        press(page, "Next seed")
    expect(page).to_have_url(re.compile(r"#seeds=4$"))


def test_one_more_epoch_shows_what_would_have_come(show, ours) -> None:
    page, stop = show("ticket", SCRIPT), int(stops(ours["last"])[0])
    dots = page.locator(".live-stage path[stroke-linecap]")
    press(page, "One more epoch")
    after = page.evaluate("(value) => Live.number(value)", float(ours["last"][0, stop]))
    expect(readout(page)).to_contain_text(f"; one epoch later it is {after}.")
    press(page, "One more epoch")
    expect(readout(page)).to_contain_text("2 epochs later")
    assert [path.count("M") for path in (dots.nth(i).get_attribute("d") for i in (0, 1))] == [
        stop,
        2,
    ]
    press(page, "Next seed")
    expect(readout(page)).not_to_contain_text("later")


def test_a_hundred_seeds_fill_the_histogram_and_tell_the_odds(show, ours) -> None:
    page, at = show("ticket", SCRIPT), stops(ours["last"][:101])
    press(page, "100 seeds more")
    expect(readout(page)).to_contain_text("Of 101 seeds", timeout=60_000)
    half, never = int(np.sort(at)[50]), int(np.isinf(at).sum())
    share = (ours["last"][:101, 3:] < EPSILON).mean()
    expect(readout(page)).to_contain_text(f"half stopped by epoch {half}; {never} did not stop")
    expect(readout(page)).to_contain_text(
        f"From epoch 4 on, an epoch wins with a probability of {share:.0%}"
    )
    bars = page.locator(".live-stage path[fill='#2F9A72']").get_attribute("d")
    assert bars.count("M") == len(np.unique(at[np.isfinite(at)]))
    heard = page.locator("[role=status]")
    expect(heard).to_contain_text("Of 101 seeds")


def test_a_rule_that_hardly_ever_holds_says_so(show) -> None:
    page = show("ticket", SCRIPT)
    page.get_by_label("The rule looks at").select_option("running")
    expect(readout(page)).to_have_text("Seed 1 did not stop within 50 epochs.")
    expect(page).to_have_url(re.compile("#rule=running$"))


def test_arrow_keys_move_the_threshold(show) -> None:
    page = show("ticket", SCRIPT)
    slider = page.get_by_role("slider", name=re.compile("^Threshold"))
    before = slider.get_attribute("aria-valuetext")
    slider.focus()
    page.keyboard.press("Home")
    expect(readout(page)).to_have_text("Seed 1 did not stop within 50 epochs.")
    assert slider.get_attribute("aria-valuetext") != before


def test_the_address_brings_back_seed_rule_threshold_and_the_epochs_after(show) -> None:
    address = "#seeds=3&rule=global&epsilon=0.001&more=2"
    page = show("ticket", SCRIPT, address)
    expect(readout(page)).to_contain_text("Seed 3 stopped after epoch", timeout=30_000)
    expect(readout(page)).to_contain_text("its global loss at")
    expect(readout(page)).to_contain_text("2 epochs later")
    expect(page.get_by_label("The rule looks at")).to_have_value("global")
