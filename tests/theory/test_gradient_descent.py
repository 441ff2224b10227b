import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    gradient_descent_risk,
    gradient_descent_steps,
    quadratic_fit,
    train,
)
from tests.problem_strategies import least_squares

STEP_SIZE = 0.0002


def simulated_risk(problem, step_size, steps, start):
    """Gradient descent by its update, and the risk by its residuals: no eigenbasis anywhere."""
    features, targets = problem.features, problem.targets.numpy().astype(float)
    w, risks = np.array(start, dtype=float), []
    for _ in range(steps + 1):
        residual = features @ w - targets
        risks.append(residual @ residual / len(targets))
        w = w - step_size * 2 / len(targets) * features.T @ residual
    return np.array(risks)


@given(least_squares(), st.floats(0.01, 1.2), st.integers(0, 10**6))
def test_predicted_risk_equals_simulated_gradient_descent(problem, fraction, seed):
    step_size = fraction * problem.largest_stable_step_size
    start = np.random.default_rng(seed).normal(size=problem.n_parameters)
    predicted = gradient_descent_risk(problem, step_size, 30, start)
    assert predicted.shape == (31,)
    assert_allclose(predicted, simulated_risk(problem, step_size, 30, start), rtol=1e-9, atol=1e-12)


@given(least_squares(), st.floats(0.01, 1.9), st.floats(0.001, 0.999), st.integers(0, 10**6))
def test_predicted_steps_are_the_first_below_epsilon(problem, fraction, level, seed):
    step_size = fraction * problem.largest_stable_step_size
    start = np.random.default_rng(seed).normal(size=problem.n_parameters)
    risk = gradient_descent_risk(problem, step_size, 400, start)
    epsilon = risk.min() + level * (risk[0] - risk.min()) + 1e-12
    expected = int(np.flatnonzero(risk < epsilon)[0])
    assert gradient_descent_steps(problem, step_size, epsilon, start) == expected


def test_the_source_notebooks_epoch_is_predicted_before_running():
    problem = quadratic_fit()
    k = gradient_descent_steps(problem, STEP_SIZE, epsilon=0.1)
    risk = gradient_descent_risk(problem, STEP_SIZE, k)
    assert k == 9339
    assert risk[k] < 0.1 <= risk[k - 1]


def test_the_prediction_is_what_training_measures_in_float64():
    problem = quadratic_fit()
    exact = LeastSquares(problem.features, problem.targets.double())
    run = train(exact, step_size=STEP_SIZE, max_epochs=200)
    predicted = gradient_descent_risk(exact, STEP_SIZE, 199)
    assert_allclose(run.history.loss, predicted, rtol=1e-10)


def test_one_eigenvalue_is_solved_by_logarithms():
    # F(w_k) = 4 · 0.81^k: below 1 after ⌈ln 4 / -ln 0.81⌉ = 7 steps.
    problem = LeastSquares([[1.0]], [0.0])
    assert gradient_descent_steps(problem, 0.05, 1.0, start=[2.0]) == 7


def test_an_answer_of_many_billions_of_steps_costs_no_more():
    problem = LeastSquares([[1.0]], [0.0])
    k = gradient_descent_steps(problem, 1e-12, 0.25, start=[1.0])
    assert_allclose(k, np.log(4) / 4e-12, rtol=1e-9)


@pytest.mark.parametrize("step_size", [1e-18, 1e-25, 1e-290])
def test_an_answer_beyond_the_largest_index_is_as_exact_as_a_float(step_size):
    problem = LeastSquares([[1.0]], [0.0])
    k = gradient_descent_steps(problem, step_size, 0.25, start=[1.0])
    assert_allclose(float(k), np.log(4) / 4 / step_size, rtol=1e-9)


def test_a_start_below_epsilon_needs_no_step():
    assert gradient_descent_steps(quadratic_fit(), STEP_SIZE, 1.0, start=[0.3, -1.7, 2.5]) == 0


def test_a_diverging_run_may_pass_below_epsilon_on_its_way():
    problem = LeastSquares(np.diag([1.0, 10.0]), np.zeros(2))  # eigenvalues 1 and 100
    start = [1.0, 1e-6]
    step_size = 1.05 * problem.largest_stable_step_size
    k = gradient_descent_steps(problem, step_size, 0.05, start)
    risk = simulated_risk(problem, step_size, 400, start)
    assert k == np.flatnonzero(risk < 0.05)[0] > 1
    assert risk[-1] > 1e6
    with pytest.raises(ValueError, match=r"the least risk .* reaches \(at step \d+, before it"):
        gradient_descent_steps(problem, step_size, 0.999 * risk.min(), start)
    k_least = gradient_descent_steps(problem, step_size, 1.001 * risk.min(), start)
    assert k_least <= risk.argmin()


def test_at_the_limit_itself_one_coordinate_bounces_for_ever():
    problem = LeastSquares([[1.0]], [0.0])  # eigenvalue 2, limit 1
    assert_allclose(gradient_descent_risk(problem, 1.0, 50, [3.0]), 9.0)
    with pytest.raises(ValueError, match="epsilon must be above 9"):
        gradient_descent_steps(problem, 1.0, 9.0, [3.0])


@given(least_squares(max_samples=12, max_weights=3))
def test_an_epsilon_at_or_below_the_least_risk_is_refused(problem):
    assume(problem.least_risk > 1e-9)
    with pytest.raises(ValueError, match=r"epsilon must be above .* got"):
        gradient_descent_steps(problem, 0.5 * problem.largest_stable_step_size, problem.least_risk)


def test_the_source_notebooks_problem_cannot_go_below_the_rounding_of_its_targets():
    with pytest.raises(ValueError, match=r"epsilon must be above 5\.65\d*e-13.*got 1e-13"):
        gradient_descent_steps(quadratic_fit(), STEP_SIZE, 1e-13)


class TestRefusals:
    @pytest.mark.parametrize("function", [gradient_descent_risk, gradient_descent_steps])
    def test_a_problem_that_is_not_quadratic(self, function):
        p = quadratic_fit()
        other = FiniteSum(p.model, torch.nn.L1Loss(), p.inputs, p.targets)
        with pytest.raises(TypeError, match=r"problem must be a LeastSquares.*got FiniteSum"):
            function(other, STEP_SIZE, 1)

    @pytest.mark.parametrize("function", [gradient_descent_risk, gradient_descent_steps])
    @pytest.mark.parametrize("step_size", [0, -1e-4, np.inf])
    def test_a_step_size_that_is_not_positive(self, function, step_size):
        with pytest.raises(ValueError, match="step_size must be positive and finite"):
            function(quadratic_fit(), step_size, 1)

    def test_a_negative_number_of_steps(self):
        with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
            gradient_descent_risk(quadratic_fit(), STEP_SIZE, -1)

    @pytest.mark.parametrize("epsilon", [0, -1, np.nan])
    def test_an_epsilon_that_is_not_positive(self, epsilon):
        with pytest.raises(ValueError, match="epsilon must be positive and finite"):
            gradient_descent_steps(quadratic_fit(), STEP_SIZE, epsilon)

    def test_numbers_past_the_range_of_a_float(self):
        with pytest.raises(ValueError, match=r"start up to 1e\+200 and a step size of 0\.0002"):
            gradient_descent_risk(quadratic_fit(), STEP_SIZE, 1, start=[1e200, 0, 0])
        with pytest.raises(ValueError, match=r"a step size of 1e\+308"):
            gradient_descent_risk(quadratic_fit(), 1e308, 1)
        with pytest.raises(ValueError, match=r"more than 2\*\*1000 steps"):
            gradient_descent_steps(quadratic_fit(), 1e-320, 0.1)

    def test_a_start_of_another_shape(self):
        with pytest.raises(ValueError, match=r"start must have shape \(3,\).*got \(1, 3\)"):
            gradient_descent_risk(quadratic_fit(), STEP_SIZE, 1, start=np.zeros((1, 3)))
