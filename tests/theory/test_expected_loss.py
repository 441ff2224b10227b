import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    expected_risk,
    expected_running_loss,
    gradient_descent_risk,
    mean_square_radius,
    mean_square_step_limit,
    quadratic_fit,
    running_loss_below,
)
from tests.problem_strategies import least_squares

STEP_SIZE = 0.0002
BOTH = (np.float32, np.float64)
ORDERS = ("independent", "with_replacement", "reshuffle")


def sizes_of(n_samples, batch_size):
    return [min(batch_size, n_samples - first) for first in range(0, n_samples, batch_size)]


def epochs_of(order, n_samples, batch_size):
    """All epochs that are possible in an order, equally likely, as lists of batches."""
    sizes = sizes_of(n_samples, batch_size)
    if order == "reshuffle":
        ends = np.cumsum(sizes)[:-1]
        return [np.split(np.array(p), ends) for p in itertools.permutations(range(n_samples))]
    draws = {
        "independent": itertools.combinations,
        "with_replacement": lambda samples, size: itertools.product(samples, repeat=size),
    }[order]
    return [
        [np.array(b) for b in epoch]
        for epoch in itertools.product(*(list(draws(range(n_samples), size)) for size in sizes))
    ]


def by_enumeration(problem, step_size, batch_size, epochs, start, order):
    """The means over every possible run: running losses and risks at the epochs' ends."""
    features, targets = problem.features, problem.targets.numpy().astype(float)
    reached, running, risks = np.array([start]), [], []
    for _ in range(epochs):
        ends, losses = [], []
        for epoch in epochs_of(order, *features.shape[:1], batch_size):
            w, total = reached, 0
            for batch in epoch:
                residual = w @ features[batch].T - targets[batch]
                total = total + (residual**2).sum(axis=1) / len(features)
                w = w - step_size * 2 / len(batch) * residual @ features[batch]
            ends.append(w)
            losses.append(total)
        reached = np.concatenate(ends)
        running.append(np.mean(losses))
        risks.append(np.mean((reached @ features.T - targets) ** 2))
    return np.array(running), np.array(risks)


@st.composite
def runs(draw, **options):
    options = {"max_samples": 4, "max_weights": 5, "dtypes": BOTH} | options
    problem = draw(least_squares(**options))
    batch_size = draw(st.integers(1, problem.n_samples))
    fraction = draw(st.floats(0.01, 1.2))
    start = np.random.default_rng(draw(st.integers(0, 10**6))).normal(size=problem.n_parameters)
    return problem, fraction * mean_square_step_limit(problem, batch_size), batch_size, start


@pytest.mark.parametrize("order", ["independent", "with_replacement"])
@given(run=runs(max_samples=3))
def test_it_is_the_mean_over_every_possible_run(order, run):
    problem, step_size, batch_size, start = run
    running, risk = by_enumeration(problem, step_size, batch_size, 2, start, order)
    arguments = (problem, step_size, batch_size, 2, start)
    predicted = expected_running_loss(*arguments, order=order)
    assert_allclose(predicted, running, rtol=1e-9, atol=1e-10)
    at_ends = expected_risk(*arguments, order=order)
    assert_allclose(at_ends, [problem.empirical_risk(start), *risk], rtol=1e-9, atol=1e-10)


@given(runs())
def test_two_disjoint_batches_have_the_running_loss_of_every_possible_shuffle(run):
    """A loss is a sum over its samples, so that to first order is exact for the second batch."""
    problem, step_size, _, start = run
    batch_size = -(-problem.n_samples // 2)
    running, _ = by_enumeration(problem, step_size, batch_size, 1, start, "reshuffle")
    predicted = expected_running_loss(problem, step_size, batch_size, 1, start, order="reshuffle")
    assert_allclose(predicted, running, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("n_samples", "batch_size"), [(4, 1), (5, 2), (6, 2)])
def test_what_is_left_out_for_shuffled_epochs_is_of_third_order(n_samples, batch_size):
    problem, start = noisy_problem(n_samples, 2)
    step_size = 0.005 * mean_square_step_limit(problem, batch_size)
    missed = {"independent": [], "reshuffle": []}
    for eta in (step_size, step_size / 2):
        arguments = (problem, eta, batch_size, 1, start)
        _, risk = by_enumeration(*arguments, "reshuffle")
        for order in missed:
            missed[order].append(abs(expected_risk(*arguments, order=order)[1] - risk[0]))
    assert_allclose(missed["independent"][0] / missed["independent"][1], 4, rtol=0.05)
    assert_allclose(missed["reshuffle"][0] / missed["reshuffle"][1], 8, rtol=0.05)


@pytest.mark.parametrize(("n_samples", "batch_size"), [(6, 1), (6, 2), (6, 3), (7, 2), (7, 3)])
def test_the_floor_that_shuffled_noise_leaves_is_predicted_however_small_the_step(
    n_samples, batch_size
):
    # The second order cancelled, and what was left out of the third grew as 1/η against the rest.
    problem, _ = noisy_problem(n_samples, 2)
    limit = mean_square_step_limit(problem, batch_size)
    shares = []
    for eta in (1e-2 * limit, 1e-3 * limit):
        arguments = (problem, eta, batch_size, 1, problem.minimiser)
        _, risk = by_enumeration(*arguments, "reshuffle")
        predicted = expected_risk(*arguments, order="reshuffle")
        shares.append((predicted[1] - problem.least_risk) / (risk[0] - problem.least_risk))
    n_batches = -(-n_samples // batch_size)
    assert_allclose(shares, 1, atol=3 / n_batches)
    assert_allclose(shares[1], shares[0], rtol=0.05)


@given(runs(max_samples=12), st.sampled_from(ORDERS[::2]))
def test_one_batch_of_all_samples_is_gradient_descent(run, order):
    problem, step_size, _, start = run
    risk = gradient_descent_risk(problem, step_size, 5, start)
    arguments = (problem, step_size, problem.n_samples, 5, start)
    rounding = 1e-13 * risk.max()  # of second moments, which a step may all but remove
    running = expected_running_loss(*arguments, order=order)
    assert_allclose(running, risk[:-1], rtol=1e-8, atol=rounding)
    assert_allclose(expected_risk(*arguments, order=order), risk, rtol=1e-8, atol=rounding)


def simulated(problem, step_size, batch_size, epochs, start, order, n_seeds):
    """An ensemble of runs: running losses and risks at the ends, (n_seeds, epochs) each."""
    features, targets = problem.features, problem.targets.numpy().astype(float)
    n_samples, rng = len(features), np.random.default_rng(0)
    everything = np.tile(np.arange(n_samples), (n_seeds, 1))
    w, running, risks = np.tile(start, (n_seeds, 1)), [], []
    for _ in range(epochs):
        total, shuffled, first = 0, rng.permuted(everything, axis=1), 0
        for size in sizes_of(n_samples, batch_size):
            batch = shuffled[:, first : first + size]
            if order == "independent":
                batch = rng.permuted(everything, axis=1)[:, :size]
            residual = (features[batch] @ w[:, :, None])[:, :, 0] - targets[batch]
            total = total + (residual**2).sum(axis=1) / n_samples
            w = w - step_size * 2 / size * (residual[:, None] @ features[batch])[:, 0]
            first += size
        running.append(total)
        risks.append(((w @ features.T - targets) ** 2).mean(axis=1))
    return np.array(running).T, np.array(risks).T


def standard_errors_off(predicted, samples):
    errors = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.abs(predicted - samples.mean(axis=0)) / errors


def noisy_problem(n_samples, d, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_samples, d)) * rng.uniform(0.3, 2, size=d)
    targets = features @ rng.normal(size=d) + 0.5 * rng.normal(size=n_samples)
    return LeastSquares(features, targets), 2 * rng.normal(size=d)


@pytest.mark.parametrize(("n_samples", "d", "batch_size"), [(30, 3, 4), (23, 8, 5), (12, 2, 1)])
def test_a_thousand_seeds_of_independent_batches_agree_within_three_standard_errors(
    n_samples, d, batch_size
):
    problem, start = noisy_problem(n_samples, d)
    step_size = 0.3 * mean_square_step_limit(problem, batch_size)
    arguments = (problem, step_size, batch_size, 6, start)
    running, risk = simulated(*arguments, "independent", 1024)
    assert (standard_errors_off(expected_running_loss(*arguments), running) < 3).all()
    assert (standard_errors_off(expected_risk(*arguments)[1:], risk) < 3).all()


class TestReshuffling:
    """Batches of one epoch are disjoint: the bias of taking them as independent, and its cure."""

    problem, start = noisy_problem(200, 3)
    step_size = 0.1 * mean_square_step_limit(problem, 10)

    def test_taking_its_batches_as_independent_is_off_by_what_many_seeds_detect(self):
        arguments = (self.problem, self.step_size, 10, 5, self.start)
        running, risk = simulated(*arguments, "reshuffle", 4096)
        assert standard_errors_off(expected_running_loss(*arguments), running).max() > 5
        assert standard_errors_off(expected_risk(*arguments)[1:], risk).max() > 5

    def test_the_covariance_of_disjoint_batches_removes_the_bias(self):
        arguments = (self.problem, self.step_size, 10, 5, self.start)
        running, risk = simulated(*arguments, "reshuffle", 4096)
        predicted = expected_running_loss(*arguments, order="reshuffle")
        assert (standard_errors_off(predicted, running) < 3).all()
        predicted = expected_risk(*arguments, order="reshuffle")[1:]
        assert (standard_errors_off(predicted, risk) < 3).all()

    @pytest.mark.parametrize("fraction", [1e-3, 1e-2, 1])
    def test_the_floor_that_noise_leaves_is_that_of_many_seeds(self, fraction):
        # It was 59 times too large at the first of these step sizes, 7 times at the second.
        arguments = (self.problem, fraction * self.step_size, 10, 2, self.problem.minimiser)
        _, risk = simulated(*arguments, "reshuffle", 4096)
        excess = risk - self.problem.least_risk
        predicted = expected_risk(*arguments, order="reshuffle")[1:] - self.problem.least_risk
        error = excess.std(axis=0, ddof=1) / np.sqrt(len(excess))
        left_out = excess.mean(axis=0) / 20  # a share of order 1/m
        assert (np.abs(predicted - excess.mean(axis=0)) < left_out + 3 * error).all()

    @pytest.mark.parametrize(("n_samples", "batch_size"), [(40, 4), (43, 4), (30, 1)])
    def test_at_larger_steps_it_still_removes_most_of_the_bias(self, n_samples, batch_size):
        problem, start = noisy_problem(n_samples, 3)
        step_size = 0.3 * mean_square_step_limit(problem, batch_size)
        arguments = (problem, step_size, batch_size, 5, start)
        running, _ = simulated(*arguments, "reshuffle", 8192)
        bias = standard_errors_off(expected_running_loss(*arguments), running)
        left = standard_errors_off(expected_running_loss(*arguments, order="reshuffle"), running)
        assert bias.max() > 20
        assert left.max() < bias.max() / 2


class TestTheSourceNotebooksProblem:
    @pytest.mark.parametrize("order", ORDERS)
    def test_its_48_epochs_are_predicted_before_running(self, order):
        predicted = expected_running_loss(quadratic_fit(), STEP_SIZE, 10, 60, order=order)
        stops = running_loss_below(0.1).stops({"running_loss": predicted})
        assert int(stops.argmax()) + 1 == 48

    def test_the_first_epochs_agree_with_a_thousand_shuffled_runs(self):
        problem = quadratic_fit()
        arguments = (problem, STEP_SIZE, 10, 3, problem.start)
        running, risk = simulated(*arguments, "reshuffle", 1024)
        predicted = expected_running_loss(*arguments, order="reshuffle")
        assert (standard_errors_off(predicted, running) < 3).all()
        predicted = expected_risk(*arguments, order="reshuffle")[1:]
        assert (standard_errors_off(predicted, risk) < 3).all()

    def test_the_running_loss_is_the_global_loss_half_an_epoch_late(self):
        problem, m = quadratic_fit(), 200
        rho = mean_square_radius(problem, STEP_SIZE, 10)
        running = expected_running_loss(problem, STEP_SIZE, 10, 48)[-1]
        risk = expected_risk(problem, STEP_SIZE, 10, 48)
        assert_allclose(running / risk[-1], (rho**-m - 1) / (m * (1 - rho)), rtol=1e-6)
        assert_allclose(running / risk[-2], (1 - rho**m) / (m * (1 - rho)), rtol=1e-6)
        assert_allclose(running / risk[-1], rho ** (-m / 2), rtol=1e-3)


def test_means_that_diverge_grow_up_to_infinity_without_a_warning():
    problem = quadratic_fit()
    for order in ORDERS:
        running = expected_running_loss(problem, 1.5 * STEP_SIZE, 1, 3, order=order)
        risk = expected_risk(problem, 1.5 * STEP_SIZE, 1, 3, order=order)
        assert np.isposinf(running).all()
        assert np.isfinite(risk[0])
        assert np.isposinf(risk[1:]).all()


def test_without_features_the_loss_stays():
    flat = LeastSquares(np.zeros((4, 2)), np.arange(4.0))
    for order in ORDERS:
        assert_allclose(expected_running_loss(flat, 0.1, 3, 2, order=order), 3.5)
        assert_allclose(expected_risk(flat, 0.1, 3, 2, order=order), 3.5)


@pytest.mark.parametrize("n_samples", [1, 2])
def test_the_smallest_problems_have_a_prediction(n_samples):
    problem, start = noisy_problem(n_samples, 1)
    for order in ORDERS:
        running, _ = by_enumeration(problem, 0.01, 1, 2, start, order)
        predicted = expected_running_loss(problem, 0.01, 1, 2, start, order=order)
        assert_allclose(predicted[0], running[0], rtol=1e-9)


def test_second_moments_of_many_weights_are_refused_before_their_memory_is_asked_for():
    problem = LeastSquares(np.random.default_rng(0).normal(size=(200, 150)), np.ones(200))
    for call in (expected_risk, expected_running_loss):
        with pytest.raises(ValueError, match=r"fewer independent columns than 151.*about 13 GB"):
            call(problem, 1e-3, 10, 1)
    with pytest.raises(ValueError, match=r"fewer independent columns than 150.*GB"):
        mean_square_step_limit(problem, 10)
    some = LeastSquares(np.random.default_rng(0).normal(size=(2000, 25)), np.ones(2000))
    with pytest.raises(ValueError, match=r"fewer than 25 and 2000 for a reshuffled.*GB"):
        expected_risk(some, 1e-3, 10, 1, order="reshuffle")


@pytest.mark.parametrize("function", [expected_running_loss, expected_risk])
class TestRefusals:
    def test_a_problem_that_is_not_quadratic(self, function):
        p = quadratic_fit()
        other = FiniteSum(p.model, torch.nn.L1Loss(), p.inputs, p.targets)
        with pytest.raises(TypeError, match=r"problem must be a LeastSquares.*got FiniteSum"):
            function(other, STEP_SIZE, 10, 5)

    @pytest.mark.parametrize("step_size", [0, -1e-4, np.inf, np.nan])
    def test_a_step_size_that_is_not_positive(self, function, step_size):
        with pytest.raises(ValueError, match="step_size must be positive and finite"):
            function(quadratic_fit(), step_size, 10, 5)

    def test_sizes_out_of_range(self, function):
        with pytest.raises(ValueError, match=r"batch_size must be between 1 and 2000.*got 0"):
            function(quadratic_fit(), STEP_SIZE, 0, 5)
        with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
            function(quadratic_fit(), STEP_SIZE, 10, 0)

    def test_a_start_of_another_shape(self, function):
        with pytest.raises(ValueError, match=r"start must have shape \(3,\).*got \(2,\)"):
            function(quadratic_fit(), STEP_SIZE, 10, 5, [1.0, 2.0])

    @pytest.mark.parametrize("order", ["cyclic", "Reshuffle", None])
    def test_an_order_without_a_prediction(self, function, order):
        with pytest.raises(ValueError, match=r"order must be one of \['independent', 'reshuffle'"):
            function(quadratic_fit(), STEP_SIZE, 10, 5, order=order)

    def test_a_step_past_the_range_of_a_float(self, function):
        with pytest.raises(ValueError, match="step_size must be small enough for the second"):
            function(quadratic_fit(), 1e200, 10, 5)
