import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    gradient_descent_steps,
    mean_square_radius,
    mean_square_step_limit,
    quadratic_fit,
    second_moment_operator,
)
from tests.problem_strategies import least_squares
from tests.theory.random_steps import BOTH, all_batches, small_steps

STEP_SIZE = 0.0002


def radius_by_enumeration(problem, step_size, batch_size):
    """The largest eigenvalue of E[A ⊗ A] in coordinates of the row space, batch by batch."""
    _, singular, right = np.linalg.svd(problem.features)
    basis = right[: (singular > 1e-10 * singular[0]).sum()].T
    operator = 0
    for hessian in problem.batch_hessians(all_batches(problem, batch_size)):
        step = np.eye(basis.shape[1]) - step_size * basis.T @ hessian @ basis
        operator += np.kron(step, step)
    n_batches = len(all_batches(problem, batch_size))
    return np.abs(np.linalg.eigvals(operator / n_batches)).max()


@given(small_steps())
def test_the_radius_is_that_of_the_steps_on_the_row_space(step):
    problem, step_size, batch_size = step
    expected = radius_by_enumeration(problem, step_size, batch_size)
    assert_allclose(
        mean_square_radius(problem, step_size, batch_size), expected, rtol=1e-9, atol=1e-12
    )


@given(small_steps())
def test_the_limit_is_where_the_radius_crosses_one_by_bisection(step):
    problem, _, batch_size = step
    low, high = 0.0, problem.largest_stable_step_size * (1 + 1e-9)
    for _ in range(50):
        middle = (low + high) / 2
        contracts = radius_by_enumeration(problem, middle, batch_size) < 1
        low, high = (middle, high) if contracts else (low, middle)
    # The radius is known to rounding only, and where it crosses 1 at a slope the limit is.
    below, above = (radius_by_enumeration(problem, low * x, batch_size) for x in (0.999, 1.001))
    slope = (above - below) / 0.002
    limit = mean_square_step_limit(problem, batch_size)
    assert_allclose(limit, low, rtol=1e-10 + 1e-13 / slope)


@given(small_steps(max_samples=12, max_weights=8), st.floats(0.001, 0.999))
def test_the_radius_is_below_one_below_the_limit_and_above_one_above(step, fraction):
    problem, _, batch_size = step
    limit = mean_square_step_limit(problem, batch_size)
    assert mean_square_radius(problem, fraction * limit, batch_size) < 1
    assert_allclose(mean_square_radius(problem, limit, batch_size), 1, rtol=1e-9)
    assert mean_square_radius(problem, limit / fraction, batch_size) > 1


@given(least_squares(max_weights=8, dtypes=BOTH))
def test_with_all_samples_in_a_batch_the_limit_is_that_of_gradient_descent(problem):
    limit = mean_square_step_limit(problem, problem.n_samples)
    assert_allclose(limit, problem.largest_stable_step_size, rtol=1e-12)


@given(least_squares(max_weights=8, min_samples=2))
def test_larger_batches_bear_larger_steps(problem):
    limits = [mean_square_step_limit(problem, b) for b in range(1, problem.n_samples + 1)]
    assert (np.diff(limits) >= -1e-12 * limits[-1]).all()


@pytest.mark.parametrize("unit", [1e-100, 1e-3, 1e70])
def test_a_change_of_units_changes_the_limit_by_its_square(unit):
    features = np.random.default_rng(0).normal(size=(8, 3))
    limit = mean_square_step_limit(LeastSquares(features, np.ones(8)), 2)
    rescaled = LeastSquares(features * unit, np.ones(8))
    assert_allclose(mean_square_step_limit(rescaled, 2), limit / unit**2)
    radius = mean_square_radius(rescaled, 0.3 * limit / unit**2, 2)
    assert_allclose(radius, mean_square_radius(LeastSquares(features, np.ones(8)), 0.3 * limit, 2))


def test_noise_leaves_the_moments_bounded_up_to_the_limit_and_not_beyond():
    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(9, 2)), rng.normal(size=9))
    limit = mean_square_step_limit(problem, 2)
    grown = []
    for fraction in (0.98, 1.02):
        operator = second_moment_operator(problem, fraction * limit, 2)
        early, late = (np.linalg.matrix_power(operator, k) for k in (2000, 4000))
        grown.append(np.abs(late).max() / np.abs(early).max())
    assert_allclose(grown[0], 1, rtol=1e-6)
    assert grown[1] > 1e6


def test_single_samples_of_the_source_notebook_diverge_in_mean_square_at_its_step_size():
    problem = quadratic_fit()
    limits = {b: mean_square_step_limit(problem, b) for b in (1, 10, 2000)}
    assert limits[1] < STEP_SIZE < limits[10] < limits[2000]
    assert_allclose(limits[1], 1.782e-4, rtol=1e-3)
    assert_allclose(limits[2000], problem.largest_stable_step_size)
    assert gradient_descent_steps(problem, 0.99 * limits[2000], 0.1) > 0


def test_without_features_there_is_no_limit():
    flat = LeastSquares(np.zeros((4, 2)), np.ones(4))
    assert mean_square_step_limit(flat, 2) == np.inf
    assert mean_square_radius(flat, 1.0, 2) == 0


class TestRefusals:
    def test_a_problem_that_is_not_quadratic(self):
        p = quadratic_fit()
        other = FiniteSum(p.model, torch.nn.L1Loss(), p.inputs, p.targets)
        message = r"problem must be a LeastSquares.*got FiniteSum"
        with pytest.raises(TypeError, match=message):
            mean_square_radius(other, STEP_SIZE, 10)
        with pytest.raises(TypeError, match=message):
            mean_square_step_limit(other, 1)

    @pytest.mark.parametrize("step_size", [0, -1e-4, np.inf, np.nan])
    def test_a_step_size_that_is_not_positive(self, step_size):
        with pytest.raises(ValueError, match="step_size must be positive and finite"):
            mean_square_radius(quadratic_fit(), step_size, 10)

    @pytest.mark.parametrize("batch_size", [0, 2001])
    def test_a_batch_size_out_of_range(self, batch_size):
        message = r"between 1 and 2000 \(the number of samples\)"
        with pytest.raises(ValueError, match=message):
            mean_square_radius(quadratic_fit(), STEP_SIZE, batch_size)
        with pytest.raises(ValueError, match=message):
            mean_square_step_limit(quadratic_fit(), batch_size)

    def test_numbers_past_the_range_of_a_float(self):
        with pytest.raises(ValueError, match="step_size must be small enough for the second"):
            mean_square_radius(quadratic_fit(), 1e200, 10)
