"""Which passes, and whose, belong to a step."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import backward, batches, gradient_of, network, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class TestSeveralPasses:
    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_accumulation_gives_the_function_whose_gradient_is_accumulated(
        self, model, criterion, sgd, set_to_none
    ):
        data = list(zip(batches(6), batches(6, size=2, seed=3), strict=True))
        expected, gradients = [], []
        with record(sgd, criterion) as recorder:
            for large, small in data:
                sgd.zero_grad(set_to_none=set_to_none)
                losses = [backward(model, criterion, batch) for batch in (large, small)]
                expected.append(sum(losses))
                gradients.append(gradient_of(model))
                sgd.step()
        assert_allclose(recorder.history.loss, expected, rtol=1e-12)
        assert_array_equal(recorder.history.n_samples, [7] * 6)
        assert_array_equal(recorder.history.gradient, gradients)

    def test_accumulation_counts_a_pass_whose_gradient_is_exactly_zero(self, model, sgd):
        criterion = nn.HingeEmbeddingLoss()
        zero = (torch.zeros(5, 3), torch.full((5, 1), -1.0))

        def push(inputs, targets):
            loss = criterion(model(inputs) + 10 * (targets < 0), targets)
            loss.backward()
            return loss.item()

        with record(sgd, criterion) as recorder:
            sgd.zero_grad()
            assert push(*zero) == 0
            loss = push(torch.ones(5, 3), torch.ones(5, 1))
            sgd.step()
        assert_array_equal(recorder.history.loss, [loss])
        assert_array_equal(recorder.history.n_samples, [10])

    def test_accumulation_that_begins_in_the_middle_of_a_run(self, model, criterion, sgd):
        data = batches(7)
        with record(sgd, criterion) as recorder:
            losses, _ = train(model, criterion, sgd, data[:3])
            for pair in (data[3:5], data[5:]):
                sgd.zero_grad()
                losses.append(sum(backward(model, criterion, batch) for batch in pair))
                sgd.step()
        assert_allclose(recorder.history.loss, losses, rtol=1e-12)
        assert_array_equal(recorder.history.n_samples, [5, 5, 5, 10, 10])

    @pytest.mark.parametrize("from_the_start", [True, False])
    @pytest.mark.parametrize("zero", ["before", "between", "after", "in place"])
    def test_several_losses_of_one_pass_are_added_up(self, model, sgd, from_the_start, zero):
        first, second = nn.MSELoss(), nn.L1Loss()
        expected = []
        with record(sgd, first, second) as recorder:
            if not from_the_start:
                expected += train(model, first, sgd, batches(3))[0]
            for inputs, targets in batches(4):
                predictions = model(inputs)
                if zero == "before":
                    sgd.zero_grad()
                one = first(predictions, targets)
                if zero == "between":
                    sgd.zero_grad()
                two = second(predictions, targets)
                if zero in {"after", "in place"}:
                    sgd.zero_grad(set_to_none=zero == "after")
                (one + two).backward()
                sgd.step()
                expected.append(one.item() + two.item())
        assert_allclose(recorder.history.loss, expected, rtol=1e-6)  # added up in single precision
        assert_array_equal(recorder.history.n_samples, [5] * len(expected))

    @pytest.mark.parametrize("set_to_none", [True, False])
    @pytest.mark.parametrize("after", [0, 3])
    def test_of_two_passes_a_step_sam_uses_the_second(
        self, model, criterion, sgd, set_to_none, after
    ):
        expected, gradients = [], []
        with record(sgd, criterion) as recorder:
            expected, gradients = train(model, criterion, sgd, batches(after))
            for batch in batches(4):
                sgd.zero_grad(set_to_none=set_to_none)
                backward(model, criterion, batch)
                with torch.no_grad():
                    for p in model.parameters():
                        p.add_(p.grad, alpha=0.05)
                    shifts = [0.05 * p.grad for p in model.parameters()]
                sgd.zero_grad(set_to_none=set_to_none)
                expected.append(backward(model, criterion, batch))
                gradients.append(gradient_of(model))
                with torch.no_grad():
                    for p, shift in zip(model.parameters(), shifts, strict=True):
                        p.sub_(shift)
                sgd.step()
        assert_array_equal(recorder.history.loss, expected)
        assert_array_equal(recorder.history.gradient, gradients)

    def test_clearing_the_gradients_before_the_step_leaves_no_loss(self, model, criterion, sgd):
        recorder = record(sgd, criterion)
        backward(model, criterion, batches(1)[0])
        sgd.zero_grad()
        sgd.step()
        with pytest.warns(UserWarning, match="gradients cleared between backward"):
            recorder.close()
        assert np.isnan(recorder.history.loss).all()
        assert_array_equal(recorder.history.gradient_norm, [0])


class TestTwoOptimizers:
    """A criterion that a generator and a discriminator share."""

    def gan(self, style, set_to_none, gradients="auto"):
        generator, discriminator = network(n_outputs=3, seed=1), network(seed=2)
        criterion = nn.BCEWithLogitsLoss()
        of_g = torch.optim.SGD(generator.parameters(), lr=0.1)
        of_d = torch.optim.SGD(discriminator.parameters(), lr=0.1)
        ones, zeros = torch.ones(5, 1), torch.zeros(5, 1)
        losses = {"g": [], "d": []}
        seen = {"g": [], "d": []}
        with record(of_g, criterion) as g, record(of_d, criterion) as d:
            for inputs, _ in batches(5):
                fake = generator(inputs)
                if style == "zero first":
                    discriminator.zero_grad(set_to_none=set_to_none)
                real_loss = criterion(discriminator(inputs), ones)
                if style == "zero first":
                    real_loss.backward()
                fake_loss = criterion(discriminator(fake.detach()), zeros)
                if style == "zero first":
                    fake_loss.backward()
                    losses["d"].append(real_loss.item() + fake_loss.item())
                else:
                    of_d.zero_grad(set_to_none=set_to_none)
                    ((real_loss + fake_loss) / 2).backward()
                    losses["d"].append((real_loss.item() + fake_loss.item()) / 2)
                seen["d"].append(gradient_of(discriminator))
                of_d.step()
                if style == "zero first":
                    generator.zero_grad(set_to_none=set_to_none)
                loss = criterion(discriminator(fake), ones)
                of_g.zero_grad(set_to_none=set_to_none)
                loss.backward()
                losses["g"].append(loss.item())
                seen["g"].append(gradient_of(generator))
                of_g.step()
        return (g.history, d.history), losses, seen

    @pytest.mark.parametrize("style", ["zero first", "zero late"])
    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_each_recorder_takes_the_losses_of_its_own_steps(self, style, set_to_none):
        (g, d), losses, seen = self.gan(style, set_to_none)
        assert_allclose(d.loss, losses["d"], rtol=1e-6)  # added up in single precision
        assert_array_equal(d.n_samples, [10 if style == "zero first" else 5] * 5)
        assert_array_equal(d.gradient, seen["d"])
        assert_allclose(g.loss, losses["g"], rtol=1e-12)
        assert_array_equal(g.gradient, seen["g"])


def test_two_recorders_of_one_loop_are_both_right(model, criterion, sgd):
    with record(sgd, criterion) as outer, record(sgd, criterion, gradients="norms") as inner:
        losses, gradients = train(model, criterion, sgd, batches(4))

        def closure():
            sgd.zero_grad()
            losses.append(backward(model, criterion, batches(1, seed=9)[0]))
            gradients.append(gradient_of(model))

        sgd.step(closure)
    for recorder in (outer, inner):
        assert_array_equal(recorder.history.loss, losses)
        assert_allclose(
            recorder.history.gradient_norm, np.linalg.norm(gradients, axis=1), rtol=1e-6
        )
    assert_array_equal(outer.history.gradient, gradients)


def test_recording_twice_in_a_row_begins_anew(model, criterion, sgd):
    for seed in (1, 2):
        with record(sgd, criterion, steps_per_epoch=3) as recorder:
            losses, _ = train(model, criterion, sgd, batches(3, seed=seed))
        assert_array_equal(recorder.history.loss, losses)
        assert recorder.history.n_epochs == 1


class TestEvaluation:
    @pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
    def test_without_gradients_it_is_ignored(self, model, criterion, sgd, grad_mode):
        losses = []
        with record(sgd, criterion) as recorder:
            for batch in batches(4):
                losses += train(model, criterion, sgd, [batch])[0]
                with grad_mode():
                    criterion(model(batch[0]), batch[1])
        assert_array_equal(recorder.history.loss, losses)

    @pytest.mark.parametrize("every", [1, 3])
    def test_with_gradients_but_without_a_backward_pass_it_is_ignored(
        self, model, criterion, sgd, every
    ):
        losses = []
        with record(sgd, criterion) as recorder:
            for k, batch in enumerate(batches(12)):
                losses += train(model, criterion, sgd, [batch])[0]
                if k % every == 0:
                    criterion(model(batch[0]), batch[1])
        assert_array_equal(recorder.history.loss, losses)
