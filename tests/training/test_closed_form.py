"""The gradient of least squares by its formula, against autograd."""

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import (
    LeastSquares,
    empirical_risk_below,
    quadratic_fit,
    running_loss_below,
    train,
)
from sgd_analysis.training import closed_form
from tests.problem_strategies import least_squares

STEP_SIZE = 0.0002
COLUMNS = ("loss", "n_samples", "epoch", "step_size", "gradient", "gradient_norm", "skipped")
MOMENTUM = functools.partial(torch.optim.SGD, momentum=0.9)


def assert_same_run(run, expected, rtol):
    """Every number of a run, to a relative error in what it is a difference of."""
    problem_scale = np.abs(expected.checkpoints).max(initial=1)
    assert (run.reason, run.epochs, run.steps) == (expected.reason, expected.epochs, expected.steps)
    for name in ("n_samples", "epoch", "step_size", "skipped"):
        assert_array_equal(getattr(run.history, name), getattr(expected.history, name))
    for name in ("loss", "gradient", "gradient_norm", "path_gradient"):
        values = getattr(expected.history, name)
        scale = np.abs(values).max(initial=1)
        assert_allclose(getattr(run.history, name), values, rtol=rtol, atol=rtol * scale)
    assert_allclose(run.checkpoints, expected.checkpoints, rtol=rtol, atol=rtol * problem_scale)
    assert_array_equal(run.weights, run.checkpoints[-1])


@st.composite
def runs(draw):
    """A random problem, noisy, often rank-deficient, and settings with a ragged tail."""
    problem = draw(least_squares(max_samples=20, max_weights=6))
    samples = [problem.features[i : i + 1] for i in range(problem.n_samples)]
    steepest = max(2 * (sample**2).sum() for sample in samples)
    return problem, {
        "step_size": draw(st.floats(0.01, 0.9)) / steepest,
        "batch_size": draw(st.none() | st.integers(1, problem.n_samples)),
        "order": draw(st.sampled_from(["cyclic", "reshuffle", "with_replacement", "independent"])),
        "drop_last": draw(st.booleans()),
        "max_epochs": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 10**6)),
        "start": draw(
            st.none()
            | st.lists(
                st.floats(-3, 3), min_size=problem.n_parameters, max_size=problem.n_parameters
            )
        ),
    }


@settings(deadline=None)  # torch.optim imports much when it is first used
@given(runs(), st.sampled_from(["sgd", torch.optim.SGD, MOMENTUM, torch.optim.Adam]))
def test_it_is_autograd_to_rounding(case, optimizer):
    problem, chosen = case
    by_autograd = train(problem, optimizer, **chosen)
    by_formula = train(problem, optimizer, **chosen, gradient="closed form")
    # Adam divides each gradient by its own size, and so its rounding, too, where it is near zero.
    assert_same_run(by_formula, by_autograd, rtol=1e-8 if optimizer is torch.optim.Adam else 1e-12)


@settings(deadline=None)
@given(runs())
def test_a_decreasing_step_size_is_followed(case):
    problem, chosen = case
    first = chosen.pop("step_size")
    chosen["step_size"] = lambda k: first / (1 + k)
    assert_same_run(
        train(problem, **chosen, gradient="closed form"), train(problem, **chosen), rtol=1e-12
    )


@pytest.fixture(scope="module")
def gradient_descent():
    """The source notebook's gradient descent, to the end."""
    chosen = dict(step_size=STEP_SIZE, max_epochs=10_000, stop=running_loss_below(0.1))
    problem = quadratic_fit()
    return train(problem, **chosen), train(problem, **chosen, gradient="closed form")


def test_gradient_descent_of_the_source_notebook_stops_at_epoch_9340(gradient_descent):
    for run in gradient_descent:
        assert (run.epochs, run.steps, run.converged) == (9340, 9340, True)
        assert run.history.running_loss[-1] < 0.1 <= run.history.running_loss[-2]


def test_in_single_precision_it_is_autograd_to_a_few_roundings(gradient_descent):
    by_autograd, by_formula = gradient_descent
    assert_allclose(by_formula.history.loss, by_autograd.history.loss, rtol=1e-5)
    # One unit in the last place of weights between 2 and 4.
    assert_allclose(by_formula.checkpoints, by_autograd.checkpoints, rtol=0, atol=2.4e-7)
    assert by_formula.checkpoints.dtype == by_formula.history.gradient.dtype == np.float32
    assert by_formula.model.weights.dtype == torch.float32


def test_losses_are_those_that_item_gives_in_single_precision(gradient_descent):
    _, run = gradient_descent
    assert_array_equal(run.history.loss, run.history.loss.astype(np.float32))


@pytest.mark.parametrize("max_epochs", [1, 511, 512, 513, 1100])
def test_the_end_of_a_run_does_not_depend_on_how_many_steps_are_made_together(
    gradient_descent, max_epochs
):
    _, whole = gradient_descent
    run = train(quadratic_fit(), step_size=STEP_SIZE, max_epochs=max_epochs, gradient="closed form")
    assert (run.epochs, run.steps, run.reason) == (max_epochs, max_epochs, "max_epochs")
    assert_array_equal(run.checkpoints, whole.checkpoints[: max_epochs + 1])
    assert_array_equal(run.history.loss, whole.history.loss[:max_epochs])
    assert_array_equal(run.weights, run.checkpoints[-1])


def test_a_rule_on_the_global_loss_stops_where_the_checkpoints_say(gradient_descent):
    _, whole = gradient_descent
    problem = quadratic_fit()
    risk = problem.empirical_risk(whole.checkpoints)
    run = train(
        problem,
        step_size=STEP_SIZE,
        max_epochs=10_000,
        stop=empirical_risk_below(1.0),
        gradient="closed form",
    )
    assert run.epochs == np.argmax(risk < 1.0)
    assert run.history.n_steps == run.epochs


def test_a_step_size_function_is_not_asked_about_steps_after_the_end():
    table = [STEP_SIZE] * 7
    run = train(quadratic_fit(), step_size=table.__getitem__, max_epochs=7, gradient="closed form")
    assert run.steps == 7


@pytest.mark.parametrize("batch_size", [None, 10, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_run_that_diverges_ends_at_the_same_loss(batch_size, dtype):
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(40, 3))).to(dtype)
    problem = LeastSquares(features, torch.from_numpy(rng.normal(size=40)).to(dtype))
    chosen = dict(
        step_size=3 * problem.largest_stable_step_size, batch_size=batch_size, max_epochs=1000
    )
    expected = train(problem, **chosen)
    run = train(problem, **chosen, gradient="closed form")
    assert expected.reason == run.reason == "diverged"
    assert run.history.n_steps == run.steps + 1 == expected.history.n_steps
    assert run.epochs == expected.epochs == run.history.n_epochs
    assert len(run.checkpoints) == run.epochs + 1
    assert np.isfinite(run.history.loss[:-1]).all()
    assert not np.isfinite(run.history.loss[-1])
    # A relative error grows by as much as the numbers do.
    assert_allclose(run.weights, expected.weights, rtol=1e-10 if dtype == torch.float64 else 1e-2)


def test_gradients_that_do_not_fit_leave_the_norms_and_the_last_path(monkeypatch):
    chosen = dict(step_size=STEP_SIZE, batch_size=300, max_epochs=4, gradient="closed form")
    whole = train(quadratic_fit(), **chosen).history
    monkeypatch.setattr(closed_form, "_MEMORY", 10 * 3 * 4)
    history = train(quadratic_fit(), **chosen).history
    assert_array_equal(history.gradients.kept, whole.gradient[:10])
    assert_array_equal(history.gradient_norm, whole.gradient_norm)
    assert_allclose(history.path_gradient_norm, whole.path_gradient_norm, rtol=1e-12)
    assert_allclose(history[-1].path_gradient[0], whole.path_gradient[-1], rtol=1e-6)
    with pytest.raises(ValueError, match="kept for the first 10 of these 28 steps only"):
        _ = history.gradient


def test_the_last_path_of_an_epoch_cut_short_by_divergence_is_that_of_its_own_steps(monkeypatch):
    problem = LeastSquares(np.ones((40, 1), "f"), np.zeros(40, "f"))
    chosen = dict(step_size=20, batch_size=10, max_epochs=50, start=[1.0], gradient="closed form")
    whole = train(problem, **chosen)
    assert whole.history.n_epochs < whole.history.epoch[-1] + 1
    monkeypatch.setattr(closed_form, "_MEMORY", 4)
    bounded = train(problem, **chosen)
    assert_array_equal(bounded.history.gradient_norm, whole.history.gradient_norm)
    last = whole.history[-1].gradient.astype(float)
    with np.errstate(invalid="ignore"):
        assert_allclose(bounded.history.gradients.last_path, last.mean(axis=0), rtol=1e-6)


def test_the_history_says_what_the_run_was_made_with_as_the_recorder_does():
    problem = quadratic_fit()
    for step_size in (STEP_SIZE, lambda k: STEP_SIZE / (k + 1)):
        metadata = [
            train(problem, step_size=step_size, max_epochs=3, gradient=gradient).history.metadata
            for gradient in ("autograd", "closed form")
        ]
        assert metadata[0] == metadata[1]


def test_an_own_order_may_visit_another_number_of_samples_each_epoch():
    def growing(n_samples, batch_size, generator):
        for n in itertools.count(1):
            yield torch.arange(n)

    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(9, 2)), rng.normal(size=9))
    chosen = dict(step_size=0.05, batch_size=3, order=growing, max_epochs=9)
    assert_same_run(
        train(problem, **chosen, gradient="closed form"), train(problem, **chosen), rtol=1e-12
    )


def test_a_model_of_ones_own_is_trained_whatever_the_shape_of_its_weights():
    class Column(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
            torch.nn.init.constant_(self.layer.weight, 0.5)

        def forward(self, features):
            return self.layer(features)[:, 0]

    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(11, 3)), rng.normal(size=11), model=Column())
    for optimizer in ("sgd", MOMENTUM):
        chosen = dict(step_size=0.05, batch_size=4, max_epochs=3)
        run = train(problem, optimizer, **chosen, gradient="closed form")
        assert_same_run(run, train(problem, optimizer, **chosen), rtol=1e-12)
        assert run.model.layer.weight.shape == (1, 3)


@pytest.mark.parametrize("optimizer", ["sgd", torch.optim.SGD])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_refused(dtype, optimizer):
    problem = LeastSquares(torch.ones(3, 1, dtype=dtype), torch.ones(3, dtype=dtype))
    with pytest.raises(ValueError, match="needs weights in float32 or float64, got torch"):
        train(problem, optimizer, step_size=0.1, max_epochs=1, gradient="closed form")


def test_the_random_state_stays_as_it_was():
    state = torch.random.get_rng_state()
    train(quadratic_fit(), step_size=1e-5, batch_size=10, max_epochs=2, gradient="closed form")
    assert torch.equal(torch.random.get_rng_state(), state)
