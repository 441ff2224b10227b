"""Attaching to a loop, and observing its losses: each test has an oracle of its own."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import History, record
from tests.recording.loops import batches, flat, gradient_of, network

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class Loop:
    """The loop of the tutorials, and an oracle of what a recorder should see of it."""

    def __init__(self, optimizer=torch.optim.SGD, criterion=None, **options):
        self.model = network()
        self.criterion = criterion or nn.MSELoss()
        self.optimizer = optimizer(self.model.parameters(), **{"lr": 0.1} | options)
        self.losses, self.gradients, self.weights = [], [], []

    def backward(self, inputs, targets):
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(inputs), targets)
        loss.backward()
        return loss

    def step(self, inputs, targets):
        loss = self.backward(inputs, targets)
        self.weights.append(flat(self.model.parameters()))
        self.gradients.append(gradient_of(self.model))
        self.optimizer.step()
        self.losses.append(loss.item())

    def run(self, n, **data):
        for batch in batches(n, **data):
            self.step(*batch)
        return self

    def record(self, **settings):
        return record(self.optimizer, self.criterion, **settings)

    def check(self, history):
        assert_array_equal(history.loss, self.losses)
        assert_array_equal(history.gradient, self.gradients)


class TestAttaching:
    def test_the_loop_of_any_tutorial_with_one_line_added(self, capsys):
        def train(recorded):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
            criterion = nn.MSELoss()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            data = torch.utils.data.TensorDataset(torch.randn(50, 3), torch.randn(50, 1))
            loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
            attached = record(optimizer, criterion, steps_per_epoch=len(loader))
            with attached if recorded else contextlib.nullcontext() as recorder:
                if not recorded:
                    attached.close()
                for _ in range(3):
                    for inputs, targets in loader:
                        optimizer.zero_grad()
                        loss = criterion(model(inputs), targets)
                        loss.backward()
                        optimizer.step()
                        print(loss.item())
            return flat(model.parameters()), recorder

        plain, _ = train(recorded=False)
        printed = capsys.readouterr().out
        weights, recorder = train(recorded=True)
        assert_array_equal(weights, plain)
        assert capsys.readouterr().out == printed
        assert_array_equal(recorder.history.loss, [float(line) for line in printed.split()])
        assert_array_equal(recorder.history.n_samples, [8, 8, 8, 8, 8, 8, 2] * 3)
        assert recorder.history.n_epochs == 3

    def test_it_records_what_the_loop_sees_at_each_step(self):
        loop = Loop()
        with loop.record(steps_per_epoch=4, weights=True) as recorder:
            loop.run(10)
        history = recorder.history
        loop.check(history)
        assert_array_equal(history.weights, loop.weights)
        assert_allclose(history.gradient_norm, np.linalg.norm(loop.gradients, axis=1), rtol=1e-6)
        assert_array_equal(history.step_size, np.full((10, 1), 0.1))
        assert_array_equal(history.epoch, [0] * 4 + [1] * 4 + [2] * 2)
        assert (history.n_epochs, history.skipped.any()) == (2, False)

    def test_without_a_with_statement_and_with_epochs_ended_by_hand(self):
        loop = Loop()
        recorder = loop.record()
        loop.run(3)
        recorder.end_epoch()
        loop.run(2)
        recorder.end_epoch()
        recorder.end_epoch()  # without a step there is no epoch to end
        recorder.close()
        recorder.close()
        loop.run(1)
        assert_array_equal(recorder.history.epoch, [0, 0, 0, 1, 1])
        assert recorder.history.n_epochs == 2
        assert repr(recorder) == "Recorder(closed, 5 steps, 2 finished epochs)"

    def test_an_epoch_may_end_early(self):
        loop = Loop()
        with loop.record(steps_per_epoch=3) as recorder:
            loop.run(2)
            recorder.end_epoch()
            loop.run(4)
        assert_array_equal(recorder.history.epoch, [0, 0, 1, 1, 1, 2])
        assert recorder.history.n_epochs == 2

    def test_the_history_is_readable_while_recording_and_later_steps_leave_it_alone(self):
        loop = Loop()
        with loop.record(steps_per_epoch=2) as recorder:
            assert recorder.history.n_steps == 0
            loop.run(3)
            early = recorder.history
            losses, gradients = early.loss.copy(), early.gradient.copy()
            loop.run(2000)
        assert (early.n_steps, early.n_epochs) == (3, 1)
        assert_array_equal(early.loss, losses)
        assert_array_equal(early.gradient, gradients)
        loop.check(recorder.history)

    @pytest.mark.parametrize("cut", [4, 5])
    @pytest.mark.parametrize("gradients", ["auto", "norms", "none"])
    def test_a_loaded_run_is_continued(self, tmp_path, cut, gradients):
        whole, parts = Loop(), Loop()
        with whole.record(steps_per_epoch=4, gradients=gradients) as expected:
            whole.run(10)
        data = batches(10)
        settings = dict(steps_per_epoch=4, gradients=gradients)
        with parts.record(**settings) as first:
            for batch in data[:cut]:
                parts.step(*batch)
        first.history.save(tmp_path / "run.npz")
        history = History.load(tmp_path / "run.npz")
        with parts.record(**settings, history=history) as second:
            for batch in data[cut:]:
                parts.step(*batch)
        assert_same(second.history, expected.history)
        assert first.history.n_steps == cut

    def test_any_parameter_a_user_may_get_wrong_is_refused(self):
        loop = Loop()
        for arguments, settings, error, message in [
            ((loop.model, loop.criterion), {}, TypeError, "optimizer must be a torch.optim"),
            ((loop.optimizer, nn.functional.mse_loss), {}, TypeError, "give none for a loss that"),
            ((loop.optimizer,), {"steps_per_epoch": 0}, ValueError, "must be at least 1, got 0"),
            ((loop.optimizer,), {"steps_per_epoch": 2.5}, TypeError, "must be an integer"),
            ((loop.optimizer,), {"memory": -1}, ValueError, "memory must be at least 0, got -1"),
            ((loop.optimizer,), {"gradients": "some"}, ValueError, '"auto", "norms" or "none"'),
            ((loop.optimizer,), {"n_samples": "10"}, TypeError, "n_samples must be the number of"),
            ((loop.optimizer,), {"n_samples": True}, TypeError, "n_samples must be the number of"),
            ((loop.optimizer,), {"n_samples": 0}, ValueError, "n_samples must be positive"),
            ((loop.optimizer,), {"history": "run.npz"}, TypeError, "history must be a History"),
        ]:
            with pytest.raises(error, match=message):
                record(*arguments, **settings)
        assert not loop.criterion._forward_hooks
        assert not loop.optimizer._optimizer_step_pre_hooks

    def test_a_history_of_another_model_or_reduction_is_not_continued(self):
        loop = Loop()
        with loop.record() as recorder:
            loop.run(2)
        small = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(small.parameters())
        with pytest.raises(ValueError, match=r"at most the optimizer's 4 parameters, got 21"):
            record(optimizer, loop.criterion, history=recorder.history)
        with pytest.raises(ValueError, match="continue with the reduction it began with, 'mean'"):
            record(loop.optimizer, nn.MSELoss(reduction="sum"), history=recorder.history)

    def test_a_closed_recorder_says_so(self):
        recorder = Loop().record()
        recorder.close()
        with pytest.raises(RuntimeError, match=r"end_epoch\(\) needs a recorder that records"):
            recorder.end_epoch()
        with pytest.raises(RuntimeError, match=r"observe\(\) needs a recorder that records"):
            recorder.observe(1.0, 2)


def assert_same(history, expected, rtol=1e-6):
    for name in ("loss", "n_samples", "denominator", "epoch", "step_size", "skipped"):
        assert_array_equal(getattr(history, name), getattr(expected, name), err_msg=name)
    assert history.n_epochs == expected.n_epochs
    assert (history.gradients is None) == (expected.gradients is None)
    if expected.gradients is not None:
        assert_array_equal(history.gradients.kept, expected.gradients.kept)
        assert_array_equal(history.gradient_norm, expected.gradient_norm)
        assert_allclose(history.path_gradient_norm, expected.path_gradient_norm, rtol=rtol)
        if expected.gradients.last_path is not None:
            last = history.gradients.last_path
            assert_allclose(last, expected.gradients.last_path, rtol=1e-4, atol=1e-6)


class TestFunctionalLosses:
    def test_an_observed_loss_overrides_the_criterion_for_that_step(self):
        loop = Loop()
        data = batches(3)
        with loop.record() as recorder:
            loop.step(*data[0])
            recorder.observe(7.5, 3)
            loop.step(*data[1])
            loop.step(*data[2])
        assert_array_equal(recorder.history.loss, [loop.losses[0], 7.5, loop.losses[2]])
        assert_array_equal(recorder.history.n_samples, [5, 3, 5])

    def test_a_loop_without_a_criterion_observes_its_tensor(self):
        loop = Loop()
        losses = []
        with record(loop.optimizer) as recorder:
            for inputs, targets in batches(4):
                loop.optimizer.zero_grad()
                loss = nn.functional.mse_loss(loop.model(inputs), targets)
                recorder.observe(loss, len(inputs))
                loss.backward()
                loop.optimizer.step()
                losses.append(loss.item())
        assert_array_equal(recorder.history.loss, losses)
        assert_array_equal(recorder.history.n_samples, [5] * 4)

    def test_losses_observed_for_several_passes_of_a_step_are_averaged_by_size(self):
        loop = Loop()
        (inputs, targets), order = batches(1)[0], (True, False)
        with record(loop.optimizer) as recorder:
            for observes_first in order:
                loop.optimizer.zero_grad()
                for value, size in ((1.0, 1), (4.0, 2)):
                    loss = nn.functional.mse_loss(loop.model(inputs), targets)
                    if observes_first:
                        recorder.observe(value, size)
                    loss.backward()
                    if not observes_first:
                        recorder.observe(value, size)
                loop.optimizer.step()
        assert_array_equal(recorder.history.loss, [3.0, 3.0])
        assert_array_equal(recorder.history.n_samples, [3, 3])
        assert_array_equal(recorder.history.objective[1], 2 * loss.item())

    def test_an_observed_loss_whose_gradient_was_cleared_does_not_count(self):
        loop = Loop()
        (first, second) = batches(2)
        with record(loop.optimizer) as recorder:
            for inputs, targets in (first, second):
                loop.optimizer.zero_grad()
                loss = nn.functional.mse_loss(loop.model(inputs), targets)
                recorder.observe(loss, len(inputs))
                loss.backward()
            loop.optimizer.step()
        assert_array_equal(recorder.history.loss, [loss.item()])

    @pytest.mark.parametrize(
        ("loss", "n_samples", "error", "message"),
        [
            (torch.ones(2), 1, ValueError, r"must have one real element.*got shape \(2,\)"),
            ("1", 1, TypeError, "loss must be a number or a tensor, got str"),
            (1.0, 0, ValueError, "n_samples must be positive and finite, got 0"),
            (1.0, None, TypeError, "n_samples must be a number, got None"),
        ],
    )
    def test_what_cannot_be_observed_is_refused(self, loss, n_samples, error, message):
        with record(Loop().optimizer) as recorder, pytest.raises(error, match=message):
            recorder.observe(loss, n_samples)

    def test_steps_without_a_loss_hold_nan_and_are_reported_at_the_end(self):
        loop = Loop()
        recorder = record(loop.optimizer, nn.L1Loss(), steps_per_epoch=2)
        for _ in range(4):
            for parameter in loop.model.parameters():
                parameter.grad = torch.ones_like(parameter)  # put together by hand
            loop.optimizer.step()
        with pytest.warns(UserWarning, match="4 steps were made without a backward pass"):
            recorder.close()
        history = recorder.history
        assert np.isnan(history.loss).all()
        assert np.isnan(history.n_samples).all()
        assert_array_equal(history.gradient, np.ones((4, 21)))
        assert history.n_epochs == 2

    def test_a_loss_of_which_nothing_tells_the_size_is_recorded_all_the_same(self):
        loop = Loop(criterion=lambda predictions, targets: (predictions - targets).square().sum())
        recorder = record(loop.optimizer, nn.L1Loss(), steps_per_epoch=2)
        loop.run(4, size=3)
        with pytest.warns(UserWarning, match="number of samples of 4 steps is not known"):
            recorder.close()
        loop.check(recorder.history)
        assert np.isnan(recorder.history.n_samples).all()
        assert np.isnan(recorder.history.running_loss).all()
        assert_allclose(recorder.history.mean_batch_loss, np.reshape(loop.losses, (2, 2)).mean(1))

    @pytest.mark.parametrize("criteria", [(), (nn.MSELoss(),)])
    def test_losses_without_any_step_are_reported_at_the_end(self, criteria):
        loop = Loop(criterion=nn.MSELoss())
        another = torch.optim.SGD(network(seed=3).parameters(), lr=0.1)
        recorder = record(another, *criteria)
        loop.run(3)
        with pytest.warns(UserWarning, match="3 backward passes were seen, but no step of the opt"):
            recorder.close()
        assert recorder.history.n_steps == 0

    @pytest.mark.filterwarnings("default:no epoch has ended")
    def test_a_recording_without_epochs_says_so_when_it_is_closed(self):
        loop = Loop()
        recorder = loop.record()
        loop.run(3)
        with pytest.warns(UserWarning, match="no epoch has ended.*steps_per_epoch=.*end_epoch"):
            recorder.close()
        assert recorder.history.running_loss.size == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            recorder.close()  # it has been said
            with loop.record() as recorder:
                loop.run(3)
                recorder.end_epoch()
            with loop.record():
                pass  # nothing was recorded


class TestLossesObservedTooLate:
    """After the step: the loss of each would come to stand in the row of the next."""

    def loop(self, n, as_tensor, scale=1.0):
        loop = Loop()
        recorder = record(loop.optimizer, steps_per_epoch=n)
        for inputs, targets in batches(n):
            loop.optimizer.zero_grad()
            loss = nn.functional.mse_loss(loop.model(inputs), targets)
            loss.backward()
            loop.optimizer.step()
            loop.losses.append(loss.item())
            recorder.observe(scale * (loss if as_tensor else loss.item()), len(inputs))
        return loop, recorder

    @pytest.mark.parametrize("as_tensor", [False, True])
    def test_that_is_noticed_and_nothing_is_shifted(self, as_tensor):
        loop, recorder = self.loop(4, as_tensor)
        with pytest.warns(UserWarning, match=r"observe\(\) was called after the step"):
            recorder.close()
        assert_array_equal(recorder.history.loss, loop.losses)

    def test_where_the_values_do_not_tell_the_count_does(self):
        _, recorder = self.loop(4, False, scale=2.0)
        with pytest.warns(UserWarning, match=r"observe\(\) was called after the step"):
            recorder.close()

    def test_a_loop_that_observes_some_steps_only_is_no_such_loop(self):
        loop = Loop()
        with loop.record(steps_per_epoch=4) as recorder:
            for k, batch in enumerate(batches(4)):
                if k:
                    recorder.observe(float(k), 5)
                loop.step(*batch)
        assert_array_equal(recorder.history.loss, [loop.losses[0], 1.0, 2.0, 3.0])
        assert_array_equal(recorder.history.objective, loop.losses)


@pytest.mark.parametrize("observes_first", [True, False])
def test_an_observed_loss_whose_gradient_is_exactly_zero_is_that_of_its_step(observes_first):
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with record(optimizer, steps_per_epoch=3) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            loss = weight.square().sum()
            if observes_first:
                recorder.observe(loss, 5)
            loss.backward()
            if not observes_first:
                recorder.observe(loss, 5)
            optimizer.step()
    assert_array_equal(recorder.history.loss, [0.0] * 3)
    assert_array_equal(recorder.history.n_samples, [5] * 3)


def test_what_is_observed_of_a_batch_that_leads_to_no_step_stays_out_of_the_next_row():
    loop = Loop()
    with record(loop.optimizer, steps_per_epoch=4) as recorder:
        for k, (inputs, targets) in enumerate(batches(8)):
            loop.optimizer.zero_grad()
            loss = nn.functional.mse_loss(loop.model(inputs), targets)
            recorder.observe(float(k), 5)
            if k % 4 == 1:
                continue  # before its backward pass
            loss.backward()
            if k % 4 == 3:
                continue  # and after it
            loop.optimizer.step()
    assert_array_equal(recorder.history.loss, [0, 2, 4, 6])
    assert_array_equal(recorder.history.n_samples, [5] * 4)
