import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    lyapunov_exponents,
    mean_square_radius,
    mean_square_step_limit,
    quadratic_fit,
)
from sgd_analysis.orders import subsets
from tests.problem_strategies import least_squares

STEP_SIZE = 0.0002
BOTH = (np.float32, np.float64)


def curvatures(problem):
    return 2 * (problem.features**2).sum(axis=1)


@pytest.mark.parametrize("seed", range(20))
def test_their_sum_is_the_mean_logarithm_of_the_determinant(seed):
    """For single samples ln|1 − ηqᵢ|, within three standard errors of as many draws."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rng.integers(2, 30), rng.integers(1, 9)))
    problem = LeastSquares(features, np.zeros(len(features)))
    step_size = rng.uniform(0.05, 2) / curvatures(problem).mean()
    logarithms = np.log(np.abs(1 - step_size * curvatures(problem)))
    found = lyapunov_exponents(problem, step_size, steps=100, seed=seed + 1)
    error = logarithms.std() / np.sqrt(100 * 64)
    assert abs(found.exponents.sum() - logarithms.mean()) < 3 * error


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_along_each_path_their_sum_is_that_mean_exactly(batch_size, monkeypatch):
    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(12, 3)), np.zeros(12))
    drawn = []

    def remembered(*arguments):
        drawn.append(subsets(*arguments))
        return drawn[-1]

    monkeypatch.setattr("sgd_analysis.theory.lyapunov.subsets", remembered)
    found = lyapunov_exponents(problem, 0.3, batch_size, steps=50, seed=0)
    counted = torch.stack(drawn[-50:]).reshape(-1, batch_size)
    _, logarithms = np.linalg.slogdet(np.eye(3) - 0.3 * problem.batch_hessians(counted))
    assert_allclose(found.exponents.sum(), logarithms.mean(), rtol=1e-10)


@settings(max_examples=40)
@given(least_squares(max_weights=8, dtypes=BOTH), st.floats(0.01, 3))
def test_without_randomness_they_are_the_logarithms_of_the_eigenvalues(problem, fraction):
    step_size = fraction / problem.eigenvalues[-1]
    factors = np.abs(1 - step_size * problem.eigenvalues[problem.eigenvalues > 0])
    assume(factors.min() > 1e-3)
    expected = np.sort(np.log(factors))[::-1]
    assume((np.diff(expected) < -0.2).all())  # so that directions settle before steps count
    found = lyapunov_exponents(problem, step_size, problem.n_samples, steps=500, seed=0, replicas=2)
    assert_allclose(found.exponents, expected, atol=1e-5)
    assert_allclose(found.standard_errors, 0, atol=1e-5)


def test_features_that_do_not_interact_have_the_scalar_means_one_by_one():
    rng = np.random.default_rng(0)
    axis, size = rng.integers(3, size=90), rng.uniform(0.2, 2, size=90)
    problem = LeastSquares(size[:, None] * np.eye(3)[axis], np.zeros(90))
    step_size = 0.4
    logarithms = np.log(np.abs(1 - step_size * curvatures(problem)))
    expected = np.sort([np.where(axis == i, logarithms, 0).mean() for i in range(3)])[::-1]
    found = lyapunov_exponents(problem, step_size, steps=1000, seed=1)
    assert (np.abs(found.exponents - expected) < 3 * found.standard_errors).all()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_largest_is_the_rate_of_a_long_run(batch_size):
    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(20, 3)), np.zeros(20))
    step_size = 1.2 * mean_square_step_limit(problem, batch_size)
    found = lyapunov_exponents(problem, step_size, batch_size, steps=500, seed=0)
    rates = []
    for _ in range(20):
        d, total = rng.normal(size=3), 0.0
        for step in range(600):
            rows = problem.features[rng.choice(20, size=batch_size, replace=False)]
            d = d - step_size * 2 / batch_size * rows.T @ (rows @ d)
            total += np.log(np.linalg.norm(d)) * (step >= 100)
            d /= np.linalg.norm(d)
        rates.append(total / 500)
    error = np.hypot(np.std(rates, ddof=1) / np.sqrt(20), found.standard_errors[0])
    assert abs(np.mean(rates) - found.exponents[0]) < 3 * error


def test_standard_errors_are_those_of_repeated_estimates():
    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(20, 2)), np.zeros(20))
    repeated = [
        lyapunov_exponents(problem, 0.3, steps=50, seed=seed, replicas=16) for seed in range(100)
    ]
    scatter = np.std([found.exponents for found in repeated], axis=0, ddof=1)
    claimed = np.sqrt(np.mean([found.standard_errors**2 for found in repeated], axis=0))
    # A standard deviation out of 100 is known to 1/√200 = 7 percent; three times that.
    assert_allclose(claimed / scatter, 1, atol=0.22)


def test_single_samples_of_the_source_notebook_converge_although_their_mean_diverges():
    problem = quadratic_fit()
    found = lyapunov_exponents(problem, STEP_SIZE, steps=2000, seed=0)
    assert mean_square_radius(problem, STEP_SIZE, 1) > 1
    assert found.exponents[0] + 3 * found.standard_errors[0] < 0
    assert lyapunov_exponents(problem, 3e-4, steps=2000, seed=0).exponents[0] > 0.01


def test_a_step_that_removes_a_direction_has_the_exponent_minus_infinity():
    line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])  # the first sample's step multiplies by 0
    found = lyapunov_exponents(line, 0.5, steps=50, seed=0)
    assert_array_equal(found.exponents, [-np.inf])
    assert_array_equal(found.standard_errors, [np.nan])
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(9, 3))
    features = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    found = lyapunov_exponents(LeastSquares(features, np.zeros(9)), 0.5, steps=50, seed=0)
    assert np.isfinite(found.exponents[:2]).all()
    assert found.exponents[2] == -np.inf


def test_they_are_those_of_the_row_space_alone():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(10, 2))
    wide = LeastSquares(np.column_stack([features, features[:, 0]]), np.zeros(10))
    assert lyapunov_exponents(wide, 0.1, 3, steps=10, seed=0).exponents.shape == (2,)
    flat = LeastSquares(np.zeros((4, 2)), np.ones(4))
    assert lyapunov_exponents(flat, 0.1, steps=10, seed=0).exponents.shape == (0,)


def test_a_seed_gives_the_same_estimate_and_leaves_the_global_random_state():
    problem, before = quadratic_fit(), torch.get_rng_state()
    one, again, other = (
        lyapunov_exponents(problem, STEP_SIZE, 10, steps=20, seed=seed) for seed in (1, 1, 2)
    )
    assert_array_equal(one.exponents, again.exponents)
    assert (one.exponents != other.exponents).all()
    assert (np.diff(one.exponents) <= 0).all()
    assert torch.equal(torch.get_rng_state(), before)


class TestRefusals:
    def call(self, problem=None, step_size=STEP_SIZE, batch_size=1, **options):
        options = {"steps": 10, "seed": 0} | options
        return lyapunov_exponents(problem or quadratic_fit(), step_size, batch_size, **options)

    def test_a_problem_that_is_not_quadratic(self):
        p = quadratic_fit()
        other = FiniteSum(p.model, torch.nn.L1Loss(), p.inputs, p.targets)
        with pytest.raises(TypeError, match=r"problem must be a LeastSquares.*got FiniteSum"):
            self.call(other)

    def test_step_sizes_and_batch_sizes_out_of_range(self):
        with pytest.raises(ValueError, match="step_size must be positive and finite, got 0"):
            self.call(step_size=0)
        with pytest.raises(ValueError, match=r"small enough for a step to be finite, got 1e\+308"):
            self.call(step_size=1e308)
        with pytest.raises(ValueError, match=r"batch_size must be between 1 and 2000"):
            self.call(batch_size=2001)

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"steps": 0}, "steps must be at least 1, got 0"),
            ({"replicas": 1}, "replicas must be at least 2, got 1"),
            ({"seed": -1}, "seed must be between 0 and"),
        ],
    )
    def test_numbers_out_of_range(self, option, message):
        with pytest.raises(ValueError, match=message):
            self.call(**option)
