import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    batches,
    epoch_operator,
    fixed_point_expansion,
    quadratic_fit,
)
from tests.problem_strategies import least_squares, visits

BOTH = (np.float32, np.float64)


@st.composite
def epochs(draw, **options):
    problem = draw(least_squares(max_weights=8, dtypes=BOTH, **options))
    return problem, draw(visits(problem.n_samples))


def small_step(problem, order):
    """A step size at which an epoch hardly moves the weights."""
    return 1 / np.linalg.eigvalsh(problem.batch_hessians(order).sum(axis=0)).max()


def errors(problem, order, step_sizes):
    """How far the fixed points are from what the expansion says."""
    limit, slope = fixed_point_expansion(problem, order)
    return [
        np.linalg.norm(epoch_operator(problem, eta, order).fixed_point - limit - eta * slope)
        for eta in step_sizes
    ]


@given(epochs())
def test_what_the_expansion_leaves_out_is_of_second_order(epoch):
    problem, order = epoch
    step_size = small_step(problem, order) * 1e-3
    coarse, fine = errors(problem, order, (step_size, step_size / 2))
    limit, slope = fixed_point_expansion(problem, order)
    # Only where the epoch is well conditioned is the third order small at this step size.
    assume(coarse < 0.05 * step_size * np.linalg.norm(slope) or coarse < 1e-10)
    assert fine < coarse / 3.5 or fine < 1e-11 * (1 + np.linalg.norm(limit))


@given(epochs())
def test_the_limit_minimises_the_plain_mean_of_the_batches_losses(epoch):
    problem, order = epoch
    features, targets = problem.features, problem.targets.numpy().astype(float)
    rows = np.concatenate([features[batch] / np.sqrt(len(batch)) for batch in order])
    values = np.concatenate([targets[batch] / np.sqrt(len(batch)) for batch in order])
    limit, _ = fixed_point_expansion(problem, order)
    assert_allclose(limit, np.linalg.pinv(rows) @ values, rtol=1e-7, atol=1e-8)


@given(least_squares(max_weights=8, max_samples=24), st.data())
def test_equal_batches_tend_to_the_minimiser_itself(problem, data):
    sizes = [n for n in range(1, problem.n_samples + 1) if problem.n_samples % n == 0]
    size = data.draw(st.sampled_from(sizes))
    limit, _ = fixed_point_expansion(problem, batches(range(problem.n_samples), size))
    assert_allclose(limit, problem.minimiser, rtol=1e-8, atol=1e-9)


@given(epochs())
def test_an_order_and_its_reverse_have_a_mean_slope_that_all_orders_share(epoch):
    problem, order = epoch
    assume(problem.condition_number < 1e3)
    limit, slope = fixed_point_expansion(problem, order)
    _, reverse = fixed_point_expansion(problem, order[::-1])
    rotated = [*order[1:], order[0]]
    shared = slope + reverse
    _, one = fixed_point_expansion(problem, rotated)
    _, other = fixed_point_expansion(problem, rotated[::-1])
    scale = 1 + max(np.abs(x).max() for x in (slope, reverse, one, other))
    assert_allclose(one + other, shared, rtol=1e-6, atol=1e-10 * scale)
    # −(1/m) H̄⁻¹ Σ Hⱼgⱼ, by the definitions.
    hessians = problem.batch_hessians(order)
    residual = problem.features @ limit - problem.targets.numpy()
    gradients = [2 / len(b) * problem.features[b].T @ residual[b] for b in order]
    total = np.einsum("jab,jb->a", hessians, np.array(gradients))
    expected = -np.linalg.pinv(hessians.mean(axis=0), rcond=1e-10) @ total / len(order)
    assert_allclose(shared, expected, rtol=1e-6, atol=1e-10 * scale)


def noisy_problem(n_samples):
    rng = np.random.default_rng(0)
    return LeastSquares(rng.normal(size=(n_samples, 3)), rng.normal(size=n_samples))


def distances(problem, order, step_sizes):
    """How far from the minimiser an epoch returns to its start, one value a step size."""
    points = [epoch_operator(problem, eta, order).fixed_point for eta in step_sizes]
    return np.linalg.norm(points - problem.minimiser, axis=1)


def test_the_distance_is_of_first_order_and_the_excess_risk_of_second():
    problem, order = noisy_problem(20), batches(range(20), 5)
    step_sizes = np.array([4e-4, 2e-4, 1e-4])
    distance = distances(problem, order, step_sizes)
    assert_allclose(distance[:-1] / distance[1:], 2, rtol=2e-3)
    points = np.array([epoch_operator(problem, eta, order).fixed_point for eta in step_sizes])
    excess = problem.empirical_risk(points) - problem.least_risk
    assert_allclose(excess[:-1] / excess[1:], 4, rtol=4e-3)


def test_halving_the_step_size_quarters_what_the_expansion_leaves_out():
    problem, order = noisy_problem(20), batches(range(20), 5)
    coarse, middle, fine = errors(problem, order, (4e-3, 2e-3, 1e-3))
    assert_allclose([coarse / middle, middle / fine], 4, rtol=0.05)


def test_with_a_ragged_tail_the_distance_does_not_vanish():
    problem, order = noisy_problem(21), batches(range(21), 5)
    distance = distances(problem, order, [1e-5, 1e-6])
    limit, _ = fixed_point_expansion(problem, order)
    assert distance[1] > 0.01
    assert_allclose(distance, np.linalg.norm(limit - problem.minimiser), rtol=1e-2)


def test_without_noise_every_order_ends_at_the_minimiser():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 3))
    problem = LeastSquares(features, features @ [1.0, 2.0, 3.0])
    assert_allclose(distances(problem, batches(range(20), 7), [0.01]), 0, atol=1e-12)


def test_real_training_in_each_order_of_three_batches_ends_where_the_expansion_says():
    problem, step_size = noisy_problem(12), 1e-3
    features, targets = problem.features, problem.targets.numpy()
    for order in itertools.permutations(np.arange(12).reshape(3, 4)):
        w = problem.minimiser
        for batch in itertools.chain.from_iterable(itertools.repeat(order, 3000)):
            residual = features[batch] @ w - targets[batch]
            w = w - step_size * 2 / len(batch) * features[batch].T @ residual
        limit, slope = fixed_point_expansion(problem, order)
        moved = np.linalg.norm(step_size * slope)
        assert np.linalg.norm(w - limit - step_size * slope) < 0.05 * moved


class TestRefusals:
    def test_a_problem_that_is_not_quadratic(self):
        p = quadratic_fit()
        other = FiniteSum(p.model, torch.nn.L1Loss(), p.inputs, p.targets)
        with pytest.raises(TypeError, match=r"problem must be a LeastSquares"):
            fixed_point_expansion(other, [[0]])

    def test_no_batches(self):
        with pytest.raises(ValueError, match="batches must hold at least one batch"):
            fixed_point_expansion(quadratic_fit(), [])
