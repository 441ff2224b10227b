import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import (
    LeastSquares,
    Survey,
    batches,
    expected_batch_gradient_norm_squared,
    quadratic_fit,
    survey,
)
from tests.problem_strategies import least_squares, visits
from tests.surveying.surveyed_models import (
    CLASS_WEIGHTS,
    assert_same,
    built,
    evaluated_at_once,
    flat_gradient,
    from_gradients,
    one_by_one,
    sample_gradients,
    small_batches,
    survey_of,
)

FLOATS = (np.float32, np.float64)


def loop_over_samples(problem, indices):
    """Each batch's loss and gradient, sample by sample: the slow oracle."""
    losses, gradients = [], []
    for sample in range(problem.n_samples):
        prediction = problem.model(problem.inputs[sample : sample + 1])
        loss = problem.criterion(prediction, problem.targets[sample : sample + 1])
        losses.append(loss.item())
        gradients.append(flat_gradient(loss, problem.model))
    losses, gradients = np.array(losses), np.array(gradients)
    return (
        np.array([losses[batch].mean() for batch in indices]),
        np.array([gradients[batch].mean(axis=0) for batch in indices]),
    )


class TestEveryNumberAgainstALoopOverSamples:
    @given(st.data(), least_squares(max_samples=9, max_weights=8, dtypes=FLOATS))
    @settings(max_examples=60, deadline=None)  # the first survey imports a part of torch
    def test_on_random_problems(self, data, problem):
        indices = data.draw(visits(problem.n_samples, partition=True))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        with torch.no_grad():
            problem.model.weights.copy_(torch.from_numpy(rng.normal(size=problem.n_parameters)))
        dtype = problem.inputs.numpy().dtype
        rtol = 1e-10 if dtype == np.float64 else 1e-5
        loss, gradient = loop_over_samples(problem, indices)
        with evaluated_at_once(data.draw(st.sampled_from([2, sys.maxsize]))):
            found = survey_of(problem, indices)

        # Gradients are sums of terms that may cancel: their rounding is that of the terms.
        scale = np.abs(gradient).max() + (problem.features**2).max()
        sizes = np.array([len(batch) for batch in indices])
        share = sizes / problem.n_samples
        full, norms = share @ gradient, np.linalg.norm(gradient, axis=1)
        assert found.gradient.dtype == dtype
        assert found.loss.dtype == found.full_gradient.dtype == np.float64
        assert_allclose(found.loss, loss, rtol, rtol * scale)
        assert_allclose(found.gradient, gradient, rtol, rtol * scale)
        assert_array_equal(found.denominator, sizes)
        assert_array_equal(found.n_samples, sizes)
        assert_allclose(found.batch_gradient_norm, norms, rtol, rtol * scale)
        assert_allclose(found.full_gradient, full, rtol, rtol * scale)
        assert_allclose(found.step_gradient, gradient.mean(axis=0), rtol, rtol * scale)
        assert_allclose(found.empirical_risk, share @ loss, rtol, rtol * scale)
        assert_allclose(found.full_gradient_norm, np.linalg.norm(full), rtol, rtol * scale)
        assert_allclose(found.mean_batch_gradient_norm, share @ norms, rtol, rtol * scale)
        between = share @ ((gradient - full) ** 2).sum(axis=1)
        assert_allclose(found.between_batch_variance, between, rtol, 10 * rtol * scale**2)
        if dtype == np.float64:
            assert_same(problem.survey(problem.start, indices), found, 1e-10, 1e-10 * scale**2)

    @given(st.data(), least_squares(max_samples=9, max_weights=8))
    @settings(max_examples=40)
    def test_any_partition_has_the_same_risk_and_full_gradient(self, data, problem):
        w = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).normal(
            size=problem.n_parameters
        )
        found = problem.survey(w, data.draw(visits(problem.n_samples, partition=True)))
        scale = (problem.features**2).max() * np.abs(w).max() + 1
        assert_allclose(found.full_gradient, problem.full_gradient(w), 1e-10, 1e-10 * scale)
        assert_allclose(found.empirical_risk, problem.empirical_risk(w), 1e-10)

    def test_the_source_notebooks_batches(self):
        problem = quadratic_fit()
        indices = batches(range(2000), 10)
        found = survey_of(problem, indices)
        assert found.gradient.shape == (200, 3)
        exact = problem.survey(problem.start, indices)
        assert_same(found, exact, rtol=1e-5, atol=1e-5 * np.abs(exact.gradient).max())


class TestAlignment:
    @given(st.data(), least_squares(max_samples=9))
    @settings(max_examples=60)
    def test_it_is_between_0_and_1_and_the_slack_is_not_negative(self, data, problem):
        w = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=problem.n_parameters)
        found = problem.survey(w, data.draw(visits(problem.n_samples, partition=True)))
        assert 0 <= found.alignment <= 1
        assert found.triangle_slack >= 0
        slack = found.mean_batch_gradient_norm - found.full_gradient_norm
        scale = found.mean_batch_gradient_norm
        assert_allclose(found.triangle_slack, slack, rtol=1e-10, atol=1e-14 * scale)

    @given(st.data(), least_squares(max_samples=9))
    @settings(max_examples=60)
    def test_merging_batches_never_adds_to_the_slack(self, data, problem):
        w = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=problem.n_parameters)
        fine = data.draw(visits(problem.n_samples, partition=True))
        of = data.draw(st.lists(st.integers(0, 2), min_size=len(fine), max_size=len(fine)))
        coarse = [
            np.concatenate([batch for batch, g in zip(fine, of, strict=True) if g == group])
            for group in set(of)
        ]
        before, after = problem.survey(w, fine), problem.survey(w, coarse)
        scale = before.mean_batch_gradient_norm
        assert after.triangle_slack <= before.triangle_slack + 1e-12 * scale
        assert_allclose(after.full_gradient, before.full_gradient, rtol=1e-10, atol=1e-12 * scale)

    def test_gradients_that_point_the_same_way_have_alignment_1_and_no_slack(self):
        direction = np.array([0.1, 0.7, -0.3])
        found = from_gradients(np.outer([0.1, 3.0, 0.7, 1.1, 0.0], direction), [1, 2, 1, 3, 2])
        assert_allclose(found.alignment, 1, rtol=1e-14)
        assert found.alignment <= 1
        assert 0 <= found.triangle_slack < 1e-14

    def test_gradients_that_cancel_have_alignment_0(self):
        found = from_gradients([[1.0, 2.0], [-1.0, -2.0]])
        assert found.alignment == 0
        assert_allclose(found.triangle_slack, math.sqrt(5))

    def test_without_any_gradient_it_is_nan(self):
        found = from_gradients([[0.0], [0.0]])
        assert math.isnan(found.alignment)
        assert found.triangle_slack == 0

    def test_only_size_weights_make_the_triangle_inequality_hold_with_a_ragged_tail(self):
        found = from_gradients([[1.0], [0.0]], [9, 1])
        assert_allclose([found.full_gradient_norm, found.mean_batch_gradient_norm], 0.9, 1e-15)
        assert found.batch_gradient_norm.mean() < found.full_gradient_norm


class TestSpread:
    @given(st.data(), least_squares(max_samples=9))
    @settings(max_examples=40)
    def test_noise_scale_and_diversity_by_their_definitions(self, data, problem):
        n = problem.n_samples
        w = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=problem.n_parameters)
        gradients = sample_gradients(problem, w)
        found = problem.survey(w, one_by_one(n))
        covariance = np.atleast_2d(np.cov(gradients.T, bias=True))
        norm_squared = np.sum(gradients.mean(axis=0) ** 2)
        scale = 1e-12 * np.sum(gradients**2)
        assert_allclose(found.gradient_variance(), np.trace(covariance), 1e-10, scale)
        diversity = np.sum(gradients**2) / np.sum(gradients.sum(axis=0) ** 2)
        assert_allclose(found.gradient_diversity(), diversity, rtol=1e-10)
        noise_scale = np.trace(covariance) / norm_squared
        assert_allclose(found.gradient_noise_scale(), noise_scale, 1e-10, scale / norm_squared)
        assert_allclose(
            found.gradient_noise_scale(), n * found.gradient_diversity() - 1, 1e-10, 1e-12
        )

    def test_gradients_close_to_each_other_keep_their_small_spread(self):
        rng = np.random.default_rng(0)
        deviations = rng.normal(size=(50, 4)) * 1e-9
        found = from_gradients(1.0 + deviations)
        variance = np.trace(np.cov((1.0 + deviations).T, bias=True))
        assert_allclose(found.gradient_variance(), variance, rtol=1e-6)  # 1 + 1e-9 is rounded

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_the_estimate_is_unbiased_over_all_random_partitions(self, size):
        rng = np.random.default_rng(size)
        problem = LeastSquares(rng.normal(size=(5, 3)), rng.normal(size=5))
        w = rng.normal(size=3)
        exact = problem.survey(w, one_by_one(5))
        surveys = [problem.survey(w, batches(o, size)) for o in itertools.permutations(range(5))]
        for name in ("gradient_variance", "gradient_noise_scale", "gradient_diversity"):
            estimates = [getattr(one, name)(estimate=True) for one in surveys]
            assert_allclose(np.mean(estimates), getattr(exact, name)(), rtol=1e-10)
            assert np.std(estimates) > 0
        for one in surveys[:3]:
            for name in ("gradient_variance", "gradient_noise_scale", "gradient_diversity"):
                with pytest.raises(ValueError, match=rf"got up to {size}: survey the samples one"):
                    getattr(one, name)()
        predicted = expected_batch_gradient_norm_squared(exact, 2)
        found = [expected_batch_gradient_norm_squared(one, 2, estimate=True) for one in surveys]
        assert_allclose(np.mean(found), predicted, rtol=1e-10)

    def test_asking_for_an_estimate_of_what_is_known_exactly_changes_nothing(self):
        problem = quadratic_fit()
        found = problem.survey(problem.start, one_by_one(2000))
        assert found.gradient_variance(estimate=True) == found.gradient_variance()

    def test_one_sample_has_no_spread(self):
        found = from_gradients([[3.0, 4.0]])
        assert found.gradient_variance() == found.gradient_noise_scale() == 0
        assert found.gradient_diversity() == 1
        assert expected_batch_gradient_norm_squared(found, 1) == 25

    def test_without_a_full_gradient_the_noise_scale_is_infinite(self):
        found = from_gradients([[1.0], [-1.0]])
        assert found.gradient_noise_scale() == found.gradient_diversity() == math.inf
        assert math.isnan(from_gradients([[0.0], [0.0]]).gradient_noise_scale())

    def test_samples_of_several_outputs_are_single_samples(self):
        model, loader = built(lambda: nn.Linear(3, 3)), small_batches(n_batches=6, batch_size=1)
        found = survey(model, nn.MSELoss(), loader[:-1])
        assert_array_equal(found.denominator, [3] * 6)
        gradients = found.gradient
        variance = np.trace(np.cov(gradients.T, bias=True))
        assert_allclose(found.gradient_variance(), variance, rtol=1e-10)

    def test_one_batch_says_nothing_about_the_spread(self):
        problem = quadratic_fit()
        found = problem.survey(problem.start, [range(2000)])
        with pytest.raises(ValueError, match="needs two batches, got one"):
            found.gradient_variance(estimate=True)

    def test_samples_that_weigh_differently_are_refused(self):
        criterion = nn.CrossEntropyLoss(weight=CLASS_WEIGHTS)
        inputs = torch.randn(3, 1, 3, dtype=torch.float64)
        loader = list(zip(inputs, torch.tensor([[0], [1], [2]]), strict=True))
        found = survey(nn.Linear(3, 3).double(), criterion, loader)
        with pytest.raises(ValueError, match=r"weigh the same.*between 0\.2 and 3 times"):
            found.gradient_noise_scale()


class TestRefusals:
    def test_weights_and_batches_of_a_closed_form(self):
        problem = quadratic_fit()
        with pytest.raises(ValueError, match=r"w must have shape \(\.\.\., 3\)"):
            problem.survey([0.0], [[0]])
        with pytest.raises(
            ValueError, match=r"w must be one vector of weights, got shape \(1, 3\)"
        ):
            problem.survey([[0.0] * 3], [[0]])
        with pytest.raises(ValueError, match="at least one batch, got none"):
            problem.survey([0.0] * 3, [])
        with pytest.raises(ValueError, match=r"batch 1 must hold indices between 0 and 1999"):
            problem.survey([0.0] * 3, [[0], [2000]])

    def test_a_survey_whose_parts_do_not_match(self):
        ones = np.ones(2)
        with pytest.raises(ValueError, match="one value a batch, and full_gradient and step_"):
            Survey(ones, ones, np.ones(3), ones, ones, ones, 0.0)
        with pytest.raises(
            ValueError, match=r"step_gradient one a parameter, got .*\[\(2,\), \(3,\)\]"
        ):
            Survey(ones, ones, ones, ones, ones, np.ones(3), 0.0)
        with pytest.raises(ValueError, match=r"kept_gradient must have shape \(2, 2\)"):
            Survey(ones, ones, ones, ones, ones, ones, 0.0, np.ones((2, 3)))


def test_losses_and_gradients_that_overflow_are_surveyed_without_a_warning():
    problem = quadratic_fit()
    with torch.no_grad():
        problem.model.weights.fill_(1e30)
    for found in (
        survey_of(problem, batches(range(2000), 300)),
        problem.survey([1e300] * 3, batches(range(2000), 300)),
    ):
        assert found.empirical_risk == math.inf
        assert found.mean_batch_gradient_norm > 1e30
        assert "empirical risk inf" in repr(found)


def test_a_survey_at_a_glance():
    problem = quadratic_fit()
    found = problem.survey(problem.true_weights, batches(range(2000), 300))
    assert repr(found).startswith("Survey(7 batches of 2000 samples, 3 parameters: empirical risk ")


def test_what_a_survey_holds_cannot_be_written_to():
    found = from_gradients([[1.0], [2.0]])
    for name in ("loss", "denominator", "n_samples", "gradient", "full_gradient", "step_gradient"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(found, name)[0] = 0
