import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sgd_analysis import FiniteSum, LeastSquares, quadratic_fit, second_moment_operator
from tests.theory.random_steps import all_batches, small_steps

STEP_SIZE = 0.0002


@given(small_steps(max_weights=4))
def test_the_operator_is_the_mean_over_all_batches(step):
    problem, step_size, batch_size = step
    d = problem.n_parameters
    targets = problem.targets.numpy().astype(float)
    expected = 0
    for batch in all_batches(problem, batch_size):
        rows = problem.features[list(batch)]
        one = np.eye(d + 1)
        one[:d, :d] -= step_size * 2 / batch_size * rows.T @ rows
        one[:d, d] = step_size * 2 / batch_size * rows.T @ targets[list(batch)]
        expected += np.kron(one, one)
    expected /= len(all_batches(problem, batch_size))
    operator = second_moment_operator(problem, step_size, batch_size)
    assert operator.shape == ((d + 1) ** 2, (d + 1) ** 2)
    assert_allclose(operator, expected, rtol=1e-10, atol=1e-11 * np.abs(expected).max())


@given(small_steps(), st.integers(0, 10**6))
def test_it_takes_moments_read_row_by_row_to_those_after_a_step(step, seed):
    problem, step_size, batch_size = step
    d = problem.n_parameters
    targets = problem.targets.numpy().astype(float)
    z = np.append(np.random.default_rng(seed).normal(size=d), 1)
    expected = np.zeros((d + 1, d + 1))
    for batch in all_batches(problem, batch_size):
        rows = problem.features[list(batch)]
        residual = rows @ z[:d] - targets[list(batch)]
        after = z - step_size * 2 / batch_size * np.append(rows.T @ residual, 0)
        expected += np.outer(after, after)
    expected /= len(all_batches(problem, batch_size))
    operator = second_moment_operator(problem, step_size, batch_size)
    moments = (operator @ np.outer(z, z).ravel()).reshape(d + 1, d + 1)
    assert_allclose(moments, expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


def test_without_features_nothing_moves():
    flat = LeastSquares(np.zeros((4, 2)), np.ones(4))
    assert_allclose(second_moment_operator(flat, 1.0, 2), np.eye(9))


class TestRefusals:
    def test_a_problem_that_is_not_quadratic(self):
        p = quadratic_fit()
        other = FiniteSum(p.model, torch.nn.L1Loss(), p.inputs, p.targets)
        with pytest.raises(TypeError, match=r"problem must be a LeastSquares.*got FiniteSum"):
            second_moment_operator(other, STEP_SIZE, 10)

    @pytest.mark.parametrize("step_size", [0, -1e-4, np.inf, np.nan])
    def test_a_step_size_that_is_not_positive(self, step_size):
        with pytest.raises(ValueError, match="step_size must be positive and finite"):
            second_moment_operator(quadratic_fit(), step_size, 10)

    @pytest.mark.parametrize("batch_size", [0, 2001])
    def test_a_batch_size_out_of_range(self, batch_size):
        with pytest.raises(ValueError, match=r"between 1 and 2000 \(the number of samples\)"):
            second_moment_operator(quadratic_fit(), STEP_SIZE, batch_size)

    def test_numbers_past_the_range_of_a_float(self):
        with pytest.raises(ValueError, match="step_size must be small enough for the second"):
            second_moment_operator(quadratic_fit(), 1e200, 10)
        large = LeastSquares(np.full((2, 1), 1e80), np.ones(2))
        with pytest.raises(ValueError, match="fourth powers to be finite: rescale them"):
            second_moment_operator(large, 1e-160, 1)
