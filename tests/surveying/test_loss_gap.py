import copy
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sgd_analysis import History, LossGap, batches, loss_gap, quadratic_fit, record, survey
from tests.surveying.surveyed_models import (
    CLASS_WEIGHTS,
    built,
    from_gradients,
    loader_of,
    normalised,
    sequence,
    small_batches,
)


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
