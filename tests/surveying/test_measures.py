import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from sgd_analysis import (
    LeastSquares,
    expected_batch_gradient_norm_squared,
    residual_norms,
    survey,
)
from tests.problem_strategies import least_squares, visits
from tests.surveying.surveyed_models import (
    built,
    from_gradients,
    one_by_one,
    sample_gradients,
    small_batches,
)


@given(st.data(), least_squares(max_samples=7))
@settings(max_examples=40)
def test_the_mean_squared_norm_of_a_batch_against_all_subsets(data, problem):
    n = problem.n_samples
    w = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=problem.n_parameters)
    gradients = sample_gradients(problem, w)
    found = problem.survey(w, one_by_one(n))
    for size in range(1, n + 1):
        subsets = [list(subset) for subset in itertools.combinations(range(n), size)]
        norms = [np.sum(gradients[subset].mean(axis=0) ** 2) for subset in subsets]
        predicted = expected_batch_gradient_norm_squared(found, size)
        assert_allclose(predicted, np.mean(norms), rtol=1e-10)


def test_batch_sizes_that_do_not_exist():
    found = from_gradients([[1.0], [2.0]])
    for size in (0, 3):
        with pytest.raises(ValueError, match=r"between 1 and 2 \(the number of samples\), got"):
            expected_batch_gradient_norm_squared(found, size)
    with pytest.raises(TypeError, match="survey must be a Survey, got int"):
        expected_batch_gradient_norm_squared(3, 1)


class TestResidualNorms:
    @given(st.data(), least_squares(max_samples=9))
    @settings(max_examples=40)
    def test_the_sum_of_norms_lies_between_its_bounds(self, data, problem):
        w = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=problem.n_parameters)
        indices = data.draw(visits(problem.n_samples, partition=True))
        residuals = problem.features @ w - problem.targets.numpy()
        found = residual_norms(problem.survey(w, indices))
        norms = [np.linalg.norm(residuals[batch]) for batch in indices]
        total = np.linalg.norm(residuals)
        assert_allclose(found.batch_norm, norms, rtol=1e-10)
        assert_allclose(found.total, total, rtol=1e-10)
        assert_allclose(found.sum_of_batches, sum(norms), rtol=1e-10)
        assert_allclose(found.upper_bound, math.sqrt(len(indices)) * total, rtol=1e-10)
        assert_allclose(found.ratio, sum(norms) / total, rtol=1e-10)
        rounding = 1 + 1e-12
        assert found.total <= found.sum_of_batches * rounding
        assert found.sum_of_batches <= found.upper_bound * rounding

    def norms_of(self, residuals, sizes):
        problem = LeastSquares(np.zeros((len(residuals), 1)), residuals)
        return residual_norms(problem.survey([0.0], np.split(np.arange(len(residuals)), sizes)))

    def test_with_all_batches_but_one_fitted_exactly_the_sum_is_the_norm_of_all(self):
        found = self.norms_of([0.0, 0.0, 0.3, -1.7, 0.0], [2, 4])
        assert_allclose(found.sum_of_batches, found.total, rtol=1e-15)
        assert found.sum_of_batches < found.upper_bound

    def test_with_all_batches_of_the_same_norm_the_sum_is_largest(self):
        found = self.norms_of([3.0, 4.0, -5.0, 0.0, 4.0, 3.0], [2, 3])
        assert_allclose(found.sum_of_batches, found.upper_bound, rtol=1e-15)
        assert found.sum_of_batches > found.total
        assert_allclose(found.ratio, math.sqrt(3))

    def test_a_perfect_fit_has_no_ratio(self):
        assert math.isnan(self.norms_of([0.0, 0.0], [1]).ratio)

    def test_several_outputs_a_sample(self):
        model, loader = built(lambda: nn.Linear(3, 3)), small_batches()
        found = residual_norms(survey(model, nn.MSELoss(), loader))
        for norm, (inputs, targets) in zip(found.batch_norm, loader, strict=True):
            assert_allclose(norm, torch.linalg.vector_norm(targets - model(inputs)).item())

    def test_what_cannot_be_a_mean_of_squares_is_refused(self):
        found = from_gradients([[1.0], [-1.0]])
        assert found.loss.min() < 0
        with pytest.raises(ValueError, match=r"never negative, got a loss of -"):
            residual_norms(found)
        with pytest.raises(TypeError, match="survey must be a Survey, got list"):
            residual_norms([1.0])
