"""One epoch, step by step: what the figure says is what the library computes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from sgd_analysis import LeastSquares, batches, epoch_operator, quadratic_fit, train
from tests.book.live.conftest import Show

EPOCH = 48
READOUT = ".live-readout"
COORDINATES = re.compile(r"[ML]([\d.-]+) ([\d.-]+)")


@pytest.fixture(scope="module")
def library() -> dict[str, np.ndarray]:
    """Epoch 48 in sorted order: what each batch shows, and the model after each step."""
    fitting = quadratic_fit()
    exact = LeastSquares(fitting.features, fitting.features @ fitting.true_weights)
    settings = {"step_size": 0.0002, "batch_size": 10, "max_epochs": EPOCH, "order": "cyclic"}
    run = train(exact, gradient="closed form", **settings)
    operator = epoch_operator(exact, 0.0002, batches(range(2000), 10))
    loss = run.history[EPOCH - 1].loss
    return {
        "printed": np.cumsum(loss) / np.arange(1, 201),
        "model": exact.empirical_risk(operator.path(run.checkpoints[EPOCH - 1])),
    }


def said(page: Page, value: float) -> str:
    return str(page.evaluate("(value) => Live.number(value)", float(value)))


def curve(page: Page, panel: int, path: int) -> np.ndarray:
    drawn = page.locator("svg").nth(panel).locator("g[clip-path] path").nth(path)
    return np.array(COORDINATES.findall(drawn.get_attribute("d") or ""), dtype=float)


def lit(page: Page) -> Locator:
    return page.locator("svg").first.locator("path[stroke-linecap=round]")


@pytest.mark.parametrize("options", ["", "data-compact"])
def test_it_opens_on_what_the_sorted_loop_prints_and_what_its_model_has(
    show: Show, library: dict[str, np.ndarray], options: str
) -> None:
    page = show("epoch", options=options)
    printed, model = said(page, library["printed"][-1]), said(page, library["model"][-1])
    assert (printed, model) == ("87 million", "1.9")
    text = f"After epoch 48 (sorted): the loop prints {printed}; its model has {model}."
    expect(page.locator(READOUT)).to_have_text(text)
    expect(page.locator("svg")).to_have_count(2 if options else 3)


@pytest.mark.parametrize("step", [1, 16, 30])
def test_inside_the_epoch_it_says_what_would_be_printed_so_far(
    show: Show, library: dict[str, np.ndarray], step: int
) -> None:
    page = show("epoch", address=f"#step={step}")
    printed, model = said(page, library["printed"][step - 1]), said(page, library["model"][step])
    says = f"the loop would print {printed}; its model has {model}."
    expect(page.locator(READOUT)).to_have_text(f"After step {step} of epoch 48 (sorted): {says}")


def test_before_the_first_step_nothing_is_printed_and_no_batch_is_lit(
    show: Show, library: dict[str, np.ndarray]
) -> None:
    page = show("epoch", address="#step=0")
    expect(page.locator(READOUT)).to_contain_text("nothing is printed yet")
    expect(page.locator(READOUT)).to_contain_text(f"has {said(page, library['model'][0])}.")
    assert lit(page).get_attribute("d") == ""


def test_the_losses_are_drawn_up_to_the_present_step(
    show: Show, library: dict[str, np.ndarray]
) -> None:
    page = show("epoch", address="#step=50")
    model, printed = curve(page, 1, 1), curve(page, 1, 2)
    assert (len(model), len(printed)) == (51, 50)
    # Both are straight lines in the logarithms of the losses, the same one.
    for drawn, losses in ((model, library["model"][:51]), (printed, library["printed"][:50])):
        decade = np.polyfit(np.log10(losses), drawn[:, 1], 1)
        assert np.allclose(np.polyval(decade, np.log10(losses)), drawn[:, 1], atol=0.02)
        assert decade[0] < 0


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_ten_points_are_lit_neighbours_in_sorted_order(show: Show, order: str) -> None:
    page = show("epoch", address=f"#step=1&order={order}")
    places = re.findall(r"M([\d.]+)", lit(page).get_attribute("d") or "")
    spread = np.ptp(np.array(places, dtype=float))
    assert len(places) == 10
    assert (spread < 5) == (order == "sorted")


def test_the_parabola_says_where_it_is_once_it_has_left_the_panel(show: Show) -> None:
    page = show("epoch", address="#step=16")
    expect(page.get_by_text("at x =")).to_be_visible()
    page.get_by_role("slider", name="Step", exact=True).press("End")
    expect(page.get_by_text("at x =")).to_have_count(0)


def test_how_much_the_buffer_holds_is_asked_where_a_buffer_is_chosen(show: Show) -> None:
    page = show("epoch")
    held = page.get_by_role("combobox", name="K")
    expect(held).to_be_hidden()
    page.get_by_role("combobox", name="Order").select_option("buffer")
    expect(held).to_be_visible()
    held.select_option("1000")
    expect(page.locator(READOUT)).to_contain_text("(buffer of 1000)")


def test_weights_beyond_all_numbers_break_nothing_and_are_told_kindly(show: Show) -> None:
    page = show("epoch", address="#order=buffer&held=10&eta=0.00024")
    expect(page.locator(READOUT)).to_have_text(
        "After epoch 48 (buffer of 10): the loop prints more than 10³⁰⁸; "
        "its model has more than 10³⁰⁸. Epoch after epoch, the weights run away."
    )
    page.get_by_role("slider", name="Epoch").press("Home")
    expect(page.locator(READOUT)).to_contain_text("After epoch 1 ")
    drawn = page.locator("svg").evaluate_all("(all) => all.map((svg) => svg.outerHTML).join()")
    assert not re.search("NaN|Infinity|undefined", drawn)


def test_the_curvature_of_the_steepest_batches_is_twice_the_limit(show: Show) -> None:
    page = show("epoch")
    eta_lambda, limit = curve(page, 2, 1), curve(page, 2, 0)
    assert len(eta_lambda) == 200
    above = eta_lambda[:, 1] < limit[0, 1]  # an SVG counts from its top
    assert above[:16].all() and not above[17:183].any() and above[-16:].all()
