"""The bowl of chapter 2 computes what the library does."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from playwright.sync_api import Page, expect

from sgd_analysis import LeastSquares, gradient_descent_steps, quadratic_fit
from tests.book.live.conftest import LIVE, Show

PROBLEM = quadratic_fit()
EXACT = LeastSquares(PROBLEM.features, PROBLEM.features @ PROBLEM.true_weights)


@pytest.fixture(scope="module")
def bowl(script: Page) -> Page:
    script.add_script_tag(path=LIVE / "bowl.js")
    return script


@pytest.mark.parametrize("step_size", [1e-5, 2e-4, 4.9e-4])
def test_gradient_descent_goes_where_its_closed_form_says(bowl: Page, step_size: float) -> None:
    state = {"optimizer": "gd", "eta": step_size}
    path = np.array(bowl.evaluate("(state) => Live.bowl.path(state, 10000)", state))
    start = EXACT.eigenvectors.T @ (0 - EXACT.minimiser)
    factors = (1 - step_size * EXACT.eigenvalues) ** np.arange(10001)[:, None]
    expected = EXACT.minimiser + factors * start @ EXACT.eigenvectors.T
    assert_allclose(path, expected, rtol=0, atol=1e-9)


def test_it_stops_where_the_source_notebook_did(bowl: Page) -> None:
    state = {"optimizer": "gd", "eta": 0.0002}
    losses = bowl.evaluate("(state) => Live.bowl.path(state, 10000).map(Live.problem.loss)", state)
    assert int(np.argmax(np.array(losses) < 0.1)) == gradient_descent_steps(EXACT, 0.0002, 0.1)


def test_a_path_ends_where_it_has_diverged(bowl: Page) -> None:
    state = {"optimizer": "gd", "eta": 6e-4}
    path = np.array(bowl.evaluate("(state) => Live.bowl.path(state, 10000)", state))
    assert 10 < len(path) < 100 and np.isfinite(path).all()


def test_the_readout_says_what_the_steepest_direction_does(show: Show) -> None:
    page = show("bowl")
    readout = page.locator(".live-readout")
    expect(readout).to_contain_text("fades without ringing")
    size = page.get_by_role("slider", name=re.compile("Step size"))
    size.focus()
    for key, says in {"End": "the error grows", "Home": "fades without ringing"}.items():
        page.keyboard.press(key)
        expect(readout).to_contain_text(says)


def test_only_what_the_optimizer_has_can_be_set(show: Show) -> None:
    page = show("bowl")
    momentum = page.get_by_role("slider", name=re.compile("Momentum"))
    expect(momentum).to_have_count(0)
    page.get_by_label("Optimizer").select_option("Momentum")
    expect(momentum).to_have_count(1)
