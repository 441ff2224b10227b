import copy
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
    History,
    LeastSquares,
    LossGap,
    Survey,
    batches,
    expected_batch_gradient_norm_squared,
    loss_gap,
    quadratic_fit,
    record,
    residual_norms,
    survey,
)
from tests.problem_strategies import least_squares, visits
from tests.surveying.surveyed_models import (
    CLASS_WEIGHTS,
    assert_same,
    built,
    evaluated_at_once,
    flat_gradient,
    normalised,
    one_thread,
    sequence,
    small_batches,
)

FLOATS = (np.float32, np.float64)


@pytest.fixture(autouse=True)
def calm():
    with one_thread():
        yield


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


def loader_of(problem, indices):
    return [(problem.inputs[batch], problem.targets[batch]) for batch in indices]


def survey_of(problem, indices, **settings):
    return survey(problem.model, problem.criterion, loader_of(problem, indices), **settings)


def one_by_one(n_samples):
    return batches(range(n_samples), 1)


def from_gradients(gradients, n_samples=None):
    """A survey of given gradients, by way of a model whose loss is linear: ∇f_b = g_b."""
    gradients = torch.as_tensor(np.asarray(gradients, dtype=float))
    sizes = [1] * len(gradients) if n_samples is None else n_samples
    model = nn.Linear(gradients.shape[1], 1, bias=False).double()
    loader = [
        (g.expand(size, -1), torch.zeros(size, 1)) for g, size in zip(gradients, sizes, strict=True)
    ]
    return survey(model, lambda predictions, targets: (predictions - targets).mean(), loader)


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
        assert_allclose(found.gram, gradient @ gradient.T, rtol, 10 * rtol * scale**2)
        assert_array_equal(found.denominator, sizes)
        assert_array_equal(found.n_samples, sizes)
        assert_allclose(found.batch_gradient_norm, norms, rtol, rtol * scale)
        assert_allclose(found.full_gradient, full, rtol, rtol * scale)
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


def sample_gradients(problem, w):
    residuals = problem.features @ w - problem.targets.numpy()
    return 2 * residuals[:, None] * problem.features


class TestSpread:
    @given(st.data(), least_squares(max_samples=7))
    @settings(max_examples=40)
    def test_the_variance_identity_against_all_subsets(self, data, problem):
        n = problem.n_samples
        w = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=problem.n_parameters)
        gradients = sample_gradients(problem, w)
        found = problem.survey(w, one_by_one(n))
        for size in range(1, n + 1):
            subsets = [list(subset) for subset in itertools.combinations(range(n), size)]
            norms = [np.sum(gradients[subset].mean(axis=0) ** 2) for subset in subsets]
            predicted = expected_batch_gradient_norm_squared(found, size)
            assert_allclose(predicted, np.mean(norms), rtol=1e-10)

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


class TestLossGap:
    def recorded(self, model, criterion, loader, n_epochs=2, lr=0.05):
        """Each epoch's history, with a copy of the model as it was at the end."""
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        ends = []
        with record(optimizer, criterion, steps_per_epoch=len(loader)) as recorder:
            for _ in range(n_epochs):
                for inputs, targets in loader:
                    optimizer.zero_grad()
                    criterion(model(inputs), targets).backward()
                    optimizer.step()
                ends.append(copy.deepcopy(model))
        return list(zip(recorder.history, ends, strict=True))

    def check(self, gap, epoch, at_end, evaluated=None):
        total = gap.weighting + gap.drift + gap.mode + gap.noise
        assert_allclose(gap.mean_batch_loss - gap.empirical_risk, total, rtol=1e-12, atol=1e-15)
        assert gap.mean_batch_loss == epoch.mean_batch_loss[0]
        without_noise = at_end.empirical_risk - at_end.noise
        assert gap.empirical_risk == (evaluated.empirical_risk if evaluated else without_noise)
        assert gap.weighting == epoch.mean_batch_loss[0] - epoch.running_loss[0]
        assert gap.drift == epoch.running_loss[0] - at_end.empirical_risk

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_it_adds_up_on_recorded_epochs_with_a_ragged_tail(self, reduction):
        model, criterion = built(sequence(nn.Tanh)), nn.MSELoss(reduction=reduction)
        for epoch, end in self.recorded(model, criterion, small_batches(), lr=0.002):
            at_end = survey(end, criterion, small_batches())
            gap = loss_gap(epoch, at_end)
            self.check(gap, epoch, at_end)
            assert gap.weighting != 0 != gap.drift
            assert gap.mode == gap.noise == 0
            assert gap.unknown == ""
            # Other batches of the same samples will do.
            whole = [tuple(map(torch.cat, zip(*small_batches(), strict=True)))]
            again = loss_gap(epoch, survey(end, criterion, whole))
            assert_allclose(again.drift, gap.drift, rtol=1e-10)

    def test_the_mode_term_is_what_batch_norm_adds(self):
        model, criterion = built(sequence(normalised)), nn.MSELoss()
        for epoch, end in self.recorded(model, criterion, small_batches()):
            at_end = survey(end, criterion, small_batches())
            evaluated = survey(end.eval(), criterion, small_batches())
            gap = loss_gap(epoch, at_end, evaluated=evaluated)
            self.check(gap, epoch, at_end, evaluated)
            assert gap.mode == at_end.empirical_risk - evaluated.empirical_risk != 0
            assert gap.noise == gap.drift_error == gap.noise_error == 0

    def test_dropout_is_not_booked_as_drift(self):
        """Case 6: it was, as a whole, and the mode printed as 0."""
        torch.manual_seed(0)
        inputs, targets = torch.randn(128, 3).double(), torch.randn(128, 3).double()
        loader = list(zip(inputs.split(8), targets.split(8), strict=True))
        model, criterion = built(sequence(nn.Dropout)), nn.MSELoss()
        ((epoch, end),) = self.recorded(model, criterion, loader, 1, lr=1e-4)
        at_end, evaluated = self.surveys(end, loader, draws=64)
        gap = loss_gap(epoch, at_end, evaluated=evaluated)
        self.check(gap, epoch, at_end, evaluated)
        # The truth, from many draws of whole passes.
        torch.manual_seed(1)
        passes = [self.one_pass(end, criterion, loader) for _ in range(200)]
        scatter, error = np.std(passes), np.std(passes) / len(passes) ** 0.5
        assert abs(at_end.empirical_risk - np.mean(passes)) < 4 * (error + at_end.standard_error)
        assert_allclose(at_end.standard_error * 8, scatter, rtol=0.25)  # of 200 and of 64 draws
        assert_allclose(gap.drift_error, np.hypot(scatter, at_end.standard_error), rtol=0.25)
        assert gap.noise_error == at_end.standard_error  # there is no noise without draws
        assert gap.noise > 10 * gap.noise_error and gap.unknown == ""
        assert_allclose(gap.mode, 0, atol=1e-12)
        booked_as_drift = epoch.running_loss[0] - evaluated.empirical_risk
        assert_allclose(booked_as_drift, gap.drift + gap.noise, rtol=1e-10)
        assert abs(gap.drift) < 3 * gap.drift_error  # no step of 1e-4 drifts by more
        # A survey in training mode alone tells as much, where there is no other mode.
        assert_allclose(loss_gap(epoch, at_end).noise, gap.noise, rtol=1e-12)
        assert_allclose(loss_gap(epoch, at_end).empirical_risk, evaluated.empirical_risk)

    def surveys(self, end, loader, **settings):
        at_end = survey(end, nn.MSELoss(), loader, **settings)
        return at_end, survey(copy.deepcopy(end).eval(), nn.MSELoss(), loader)

    @torch.no_grad()
    def one_pass(self, model, criterion, loader):
        return np.mean([criterion(model(inputs), targets).item() for inputs, targets in loader])

    def test_at_a_step_size_of_zero_what_dropout_leaves_as_drift_is_within_its_error(self):
        model, criterion = built(sequence(nn.Dropout)), nn.MSELoss()
        loader, found = small_batches(n_batches=9), []
        for seed in range(20):
            torch.manual_seed(seed)
            ((epoch, end),) = self.recorded(model, criterion, loader, 1, lr=0.0)
            gap = loss_gap(epoch, survey(end, criterion, loader, draws=16))
            found.append(gap.drift / gap.drift_error)
        # Twenty values of about unit variance, which share one survey's error of a quarter.
        assert abs(np.mean(found)) < 4 * np.hypot(20**-0.5, 0.25) and 0.5 < np.std(found) < 1.5

    def test_batch_norm_and_dropout_have_a_term_each(self):
        model, criterion = built(sequence(normalised, nn.Dropout)), nn.MSELoss()
        loader = small_batches()
        ((epoch, end),) = self.recorded(model, criterion, loader, 1)
        at_end, evaluated = self.surveys(end, loader, draws=8)
        gap = loss_gap(epoch, at_end, evaluated=evaluated)
        self.check(gap, epoch, at_end, evaluated)
        quiet = copy.deepcopy(end)
        quiet[2].eval()  # only the module that draws, and the batch norm's term is there
        without_noise = survey(quiet, criterion, loader).empirical_risk
        assert_allclose(gap.mode, without_noise - evaluated.empirical_risk, rtol=1e-10)
        assert_allclose(gap.noise, at_end.empirical_risk - without_noise, rtol=1e-10)
        assert abs(gap.mode) > 1e-3 and gap.noise > 3 * gap.noise_error

    @pytest.mark.parametrize("quiet", [lambda end: end.eval(), lambda end: end[2].eval()])
    def test_what_dropout_adds_is_unknown_where_it_was_surveyed_in_evaluation_mode(self, quiet):
        model, criterion = built(sequence(nn.Tanh, nn.Dropout)), nn.MSELoss()
        ((epoch, end),) = self.recorded(model, criterion, small_batches(), 1)
        quiet(end)
        gap = loss_gap(epoch, survey(end, criterion, small_batches()))
        assert math.isnan(gap.drift) and math.isnan(gap.noise)
        assert gap.mode == 0 and gap.weighting != 0
        assert "survey the mode trained in, with draws=64" in repr(gap)

    def test_draws_say_that_evaluation_mode_is_the_one_trained_in(self):
        model, criterion = built(sequence(nn.Dropout)).eval(), nn.MSELoss()
        ((epoch, end),) = self.recorded(model, criterion, small_batches(), 1)
        at_end = survey(end, criterion, small_batches(), draws=2)
        gap = loss_gap(epoch, at_end)
        self.check(gap, epoch, at_end)
        assert gap.noise == gap.drift_error == 0

    def case_5(self, *, visited):
        """A shuffling loader, a batch norm, and a step size of zero."""
        torch.manual_seed(0)
        x, y = torch.randn(64, 4).double(), torch.randn(64, 1).double()
        layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)
        model, criterion = nn.Sequential(*layers).double(), nn.MSELoss()
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, y), batch_size=4, shuffle=True
        )
        seen = list(loader) if visited else loader
        ((epoch, end),) = self.recorded(model, criterion, seen, 1, lr=0.0)
        return loss_gap(epoch, survey(end, criterion, seen)), epoch, end, (x, y)

    def test_where_no_weight_has_moved_nothing_drifts_on_the_batches_visited(self):
        gap, epoch, end, whole = self.case_5(visited=True)
        assert_allclose(gap.drift, 0, atol=1e-14)
        assert gap.unknown == ""
        other = loss_gap(epoch, survey(end, nn.MSELoss(), [whole]))
        assert math.isnan(other.drift)
        assert "at_end is of other batches than the epoch has visited" in repr(other)

    def test_other_batches_that_a_shuffling_loader_gives_are_not_booked_as_drift(self):
        """Case 5: a drift of −0.036 where no weight has moved."""
        gap, *_ = self.case_5(visited=False)
        assert math.isnan(gap.drift)
        assert "may be of other batches" in repr(gap)
        assert "train on visited = list(loader), and survey visited" in repr(gap)

    @pytest.mark.parametrize("make", [sequence(nn.Tanh), sequence(nn.Dropout)])
    def test_a_shuffling_loader_will_do_where_batches_do_not_matter(self, make):
        model, criterion = built(make), nn.MSELoss()
        parts = map(torch.cat, zip(*small_batches(), strict=True))
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*parts), batch_size=5, shuffle=True
        )
        ((epoch, end),) = self.recorded(model, criterion, loader, 1)
        at_end = survey(end, criterion, loader, draws=2)
        assert at_end.may_reorder and not at_end.couples
        self.check(loss_gap(epoch, at_end), epoch, at_end)

    @pytest.mark.parametrize("momentum", [1.0])
    def test_an_unbiased_running_variance_leaves_a_mode(self, momentum):
        """Case 12: by (n − 1)/n it becomes the batch's own, and the mode is zero."""
        n, criterion = 3, nn.MSELoss()
        model = built(sequence(lambda: nn.BatchNorm1d(3, momentum=momentum)))
        loader = small_batches(n_batches=1, batch_size=n)[:1]
        ((epoch, end),) = self.recorded(model, criterion, loader, 1, lr=0.0)
        at_end, evaluated = self.surveys(end, loader)
        gap = loss_gap(epoch, at_end, evaluated=evaluated)
        assert abs(gap.mode) > 1e-3
        end[1].running_var *= (n - 1) / n
        at_end, evaluated = self.surveys(end, loader)
        gap = loss_gap(epoch, at_end, evaluated=evaluated)
        assert_allclose([gap.mode, gap.drift], 0, atol=1e-14)

    def test_class_weights_count_the_same_in_other_batches(self):
        criterion = nn.CrossEntropyLoss(weight=CLASS_WEIGHTS.float())
        inputs, labels = torch.randn(23, 3), torch.arange(23) % 3
        loader = list(zip(inputs.split(5), labels.split(5), strict=True))
        model = built(lambda: nn.Linear(3, 3), torch.float32)
        ((epoch, end),) = self.recorded(model, criterion, loader, n_epochs=1)
        at_end = survey(end, criterion, [(inputs, labels)])
        self.check(loss_gap(epoch, at_end), epoch, at_end)
        with pytest.raises(ValueError, match="epoch and at_end must be of the same samples"):
            loss_gap(epoch, survey(end, criterion, [(inputs[1:], labels[1:])]))

    def test_at_a_step_size_of_zero_nothing_drifts(self):
        problem = quadratic_fit()
        loader = loader_of(problem, batches(range(2000), 300))
        ((epoch, end),) = self.recorded(problem.model, problem.criterion, loader, 1, lr=0.0)
        gap = loss_gap(epoch, survey(end, problem.criterion, loader))
        assert_allclose(gap.drift, 0, atol=1e-12)
        assert gap.weighting != 0

    def test_it_reads_as_a_sum(self):
        gap = LossGap(0.5, 0.2, weighting=0.05, drift=0.3, mode=-0.05)
        assert repr(gap) == (
            "LossGap(mean batch loss 0.5 − empirical risk 0.2 = 0.3 = "
            "weighting 0.05 + drift 0.3 + mode -0.05 + noise 0)"
        )
        noisy = LossGap(0.5, 0.2, 0.0, 0.1, 0.0, 0.2, drift_error=0.0123, noise_error=0.00456)
        assert repr(noisy).endswith("drift 0.1 ± 0.012 + mode 0 + noise 0.2 ± 0.0046)")

    @pytest.mark.parametrize(
        ("n_epochs", "part"), [(1, slice(None)), (2, slice(None)), (1, slice(1, 2))]
    )
    def test_anything_but_one_finished_epoch_is_refused(self, n_epochs, part):
        history = History([1, 2, 3], [1, 1, 1], [0, 1, 1], np.ones((3, 1)), n_epochs)
        with pytest.raises(ValueError, match=r"exactly one finished epoch, history\[e\], got"):
            loss_gap(history[part], from_gradients([[1.0]] * history[part].n_steps))

    def test_other_samples_are_refused(self):
        epoch = History([1, 2], [2, 2], [0, 0], np.ones((2, 1)), 1)
        at_end = from_gradients([[1.0]] * 4)
        assert loss_gap(epoch, at_end).mode == 0
        with pytest.raises(ValueError, match="got 4 in the epoch and 3 in the survey: survey the"):
            loss_gap(epoch, from_gradients([[1.0]] * 3))
        with pytest.raises(ValueError, match="epoch and evaluated must be of the same samples"):
            loss_gap(epoch, at_end, evaluated=from_gradients([[1.0]] * 3))
        unseen = History([1, np.nan], [2, np.nan], [0, 0], np.ones((2, 1)), 1)
        with pytest.raises(ValueError, match="got nan in the epoch and 4 in the survey"):
            loss_gap(unseen, at_end)

    def test_other_kinds_are_refused(self):
        epoch = History([1], [1], [0], np.ones((1, 1)), 1)
        with pytest.raises(TypeError, match="epoch must be a History of one epoch, got list"):
            loss_gap([1.0], from_gradients([[1.0]]))
        with pytest.raises(TypeError, match="at_end must be a Survey, got float"):
            loss_gap(epoch, 0.1)
        with pytest.raises(TypeError, match="evaluated must be a Survey, got float"):
            loss_gap(epoch, from_gradients([[1.0]]), evaluated=0.1)


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


class TestRefusals:
    def test_batch_sizes_that_do_not_exist(self):
        found = from_gradients([[1.0], [2.0]])
        for size in (0, 3):
            with pytest.raises(ValueError, match=r"between 1 and 2 \(the number of samples\), got"):
                expected_batch_gradient_norm_squared(found, size)
        with pytest.raises(TypeError, match="survey must be a Survey, got int"):
            expected_batch_gradient_norm_squared(3, 1)

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
        with pytest.raises(ValueError, match="one value a batch, and full_gradient one a param"):
            Survey(ones, ones, np.ones(3), ones, ones, 0.0)
        with pytest.raises(ValueError, match=r"kept_gradient must have shape \(2, 2\)"):
            Survey(ones, ones, ones, ones, ones, 0.0, np.ones((2, 3)))


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
    for name in ("loss", "denominator", "n_samples", "gradient", "full_gradient"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(found, name)[0] = 0
