"""Hooks stay out of the way: of interrupts, of copies, of compilers."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import backward, batches, network, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def test_the_hooks_return_none(model, criterion, sgd):
    with record(sgd, criterion):
        (forward,) = criterion._forward_hooks.values()
        (before,) = sgd._optimizer_step_pre_hooks.values()
        (after,) = sgd._optimizer_step_post_hooks.values()
        backward(model, criterion, batches(1)[0])
        output = criterion(model(torch.ones(2, 3)), torch.ones(2, 1))
        assert forward(criterion, (output, output), {}, output) is None
        assert before(sgd, (sgd,), {}) is None
        assert after(sgd, (sgd,), {}) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_loop_keeps_what_was_recorded_and_its_hooks_come_off(
    model, criterion, sgd, error
):
    with pytest.raises(error, match="in the middle"), record(sgd, criterion) as recorder:
        losses, gradients = train(model, criterion, sgd, batches(3))
        criterion(model(torch.ones(2, 3)), torch.ones(2, 1)).backward()
        raise error("in the middle")
    assert_array_equal(recorder.history.loss, losses)
    assert_array_equal(recorder.history.gradient, gradients)
    assert not criterion._forward_hooks
    assert not sgd._optimizer_step_pre_hooks
    assert not sgd._optimizer_step_post_hooks


def test_an_interrupted_loop_tells_its_trouble_in_a_note(model, criterion, sgd):
    with pytest.raises(KeyboardInterrupt) as raised, record(sgd):
        train(model, lambda x, y: criterion(x, y).exp(), sgd, batches(3))
        raise KeyboardInterrupt
    assert "From the recorder: the number of samples of 3 steps" in raised.value.__notes__[0]


class TestCopies:
    def check_inert(self, criterion_copy, recorder):
        before = recorder.history.n_steps
        other = network(seed=3)
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        train(other, criterion_copy, optimizer, batches(2))
        assert recorder.history.n_steps == before

    def test_pickled_or_deep_copied_while_recording(self, model, criterion, sgd):
        with record(sgd, criterion) as recorder:
            train(model, criterion, sgd, batches(1))
            for duplicate in (copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
                self.check_inert(duplicate(criterion), recorder)
                optimizer = duplicate(sgd)
                optimizer.step()
                assert optimizer.state_dict() == sgd.state_dict()
            together = copy.deepcopy({"model": model, "criterion": criterion, "optimizer": sgd})
            train(together["model"], together["criterion"], together["optimizer"], batches(2))
            assert recorder.history.n_steps == 1
            losses, _ = train(model, criterion, sgd, batches(1))
        assert_array_equal(recorder.history.loss[1:], losses)

    def test_a_pickled_criterion_loads_where_the_package_is_not_installed(self, criterion, sgd):
        with record(sgd, criterion):
            pickled = pickle.dumps(criterion)
        assert b"sgd_analysis" not in pickled

    def test_a_checkpoint_with_the_loss_can_be_saved_while_recording(self, model, criterion, sgd):
        with record(sgd, criterion):
            for batch in batches(3):
                loss = criterion(model(batch[0]), batch[1])
                loss.backward()
                file = io.BytesIO()
                torch.save({"model": model, "loss": loss.detach(), "state": sgd.state_dict()}, file)
                assert not loss._backward_hooks
                sgd.step()

    def test_after_closing_nothing_is_left_to_copy(self, model, criterion, sgd):
        with record(sgd, criterion) as recorder:
            train(model, criterion, sgd, batches(1))
        assert not pickle.loads(pickle.dumps(criterion))._forward_hooks
        self.check_inert(copy.deepcopy(criterion), recorder)

    def test_a_recorder_itself_is_not_copied(self, criterion, sgd):
        with record(sgd, criterion) as recorder:
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match=r"use recorder\.history"):
                    duplicate(recorder)


class TestCompile:
    @pytest.fixture(autouse=True)
    def fresh(self):
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    def test_a_compiled_model_is_recorded(self, model, criterion, sgd):
        compiled = torch.compile(model, backend="eager")
        with record(sgd, criterion) as recorder:
            losses, gradients = train(compiled, criterion, sgd, batches(3))
        assert_array_equal(recorder.history.loss, losses)
        assert_array_equal(recorder.history.gradient, gradients)

    # torch's own, from the tracing of any function of a tensor that is not a leaf
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_a_compiled_criterion_is_recorded_when_it_is_what_is_given(self, model, criterion, sgd):
        compiled = torch.compile(criterion, backend="eager")
        with record(sgd, compiled) as recorder:
            losses, _ = train(model, compiled, sgd, batches(3))
        assert_array_equal(recorder.history.loss, losses)

    @pytest.mark.filterwarnings("ignore")  # torch's own, from the imports of its compiler
    @pytest.mark.parametrize("what", ["step of the optimizer", "whole step"])
    def test_a_step_that_is_compiled_and_cannot_be_seen_is_reported(
        self, model, criterion, sgd, what
    ):
        recorder = record(sgd, criterion)
        step = torch.compile(sgd.step, backend="eager")

        def whole(inputs, targets):
            loss = criterion(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.sub_(0.1 * gradient)

        for batch in batches(3):
            if what == "whole step":
                torch.compile(whole, backend="eager")(*batch)
            else:
                sgd.zero_grad()
                backward(model, criterion, batch)
                step()
        if recorder.history.n_steps:  # the compiler has left the hooks in
            assert recorder.history.n_steps == 3
            return
        with pytest.warns(UserWarning, match=r"no step of the optimizer.*compile"):
            recorder.close()

    def test_a_scripted_criterion_takes_no_hooks_and_is_refused_with_a_way_out(self, model, sgd):
        class Criterion(nn.Module):
            def forward(self, predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                return (predictions - targets).square().mean()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that scripting is a thing of the past
            scripted = torch.jit.script(Criterion())
        with pytest.raises(TypeError, match=r"takes no hooks.*recorder\.observe"):
            record(sgd, scripted)
        assert not sgd._optimizer_step_pre_hooks
        with record(sgd) as recorder:
            for inputs, targets in batches(2):
                sgd.zero_grad()
                loss = scripted(model(inputs), targets)
                recorder.observe(loss, len(inputs))
                loss.backward()
                sgd.step()
        assert_array_equal(recorder.history.n_samples, [5, 5])

    def test_a_criterion_inside_compiled_code_is_reported(self, model, criterion, sgd):
        compiled = torch.compile(lambda x, y: criterion(model(x), y), backend="aot_eager")

        def step(batch):
            sgd.zero_grad()
            loss = compiled(*batch)
            loss.backward()
            sgd.step()
            return loss.item()

        data = batches(6)
        step(data[0])
        recorder = record(sgd, criterion)
        losses = [step(batch) for batch in data[1:]]
        assert np.isfinite(losses).all()
        with pytest.warns(UserWarning, match=r"number of samples of 5 steps is not known.*observe"):
            recorder.close()
        assert_array_equal(recorder.history.loss, losses)
        assert np.isnan(recorder.history.n_samples).all()
        assert np.isfinite(recorder.history.gradient).all()
