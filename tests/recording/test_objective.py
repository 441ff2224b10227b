"""A step's loss is its objective: what `backward()` was called on, if the step uses its gradient.

Each loop prints the function whose gradient it takes; the recorder must have the same number.
"""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import Loop, network, plain

pytestmark = [
    pytest.mark.filterwarnings("ignore:no epoch has ended"),
    pytest.mark.filterwarnings("ignore:the backward passes of a step had one vote each"),
]


def with_unequal_micro_batches(loop):
    loop.optimizer.zero_grad()
    losses = [loop.loss(*loop.batch(size)) / 2 for size in (9, 1)]
    for loss in losses:
        loss.backward()
    loop.step(*losses)


def undivided(loop):
    loop.optimizer.zero_grad()
    losses = [loop.loss(*loop.batch(size)) for size in (3, 3, 3, 1)]
    for loss in losses:
        loss.backward()
    loop.step(*losses)


def with_a_penalty(loop):
    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    loss = loop.loss(inputs, targets) + 0.1 * loop.model[0].weight.abs().sum()
    loss.backward()
    loop.step(loss)


def mixed_up(loop):
    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    predictions = loop.model(inputs)
    kept, other = (loop.criterion(predictions, t) for t in (targets, targets.flip(0)))
    loss = 0.7 * kept + 0.3 * other
    loss.backward()
    loop.step(loss)


def with_a_penalty_in_a_second_pass(loop):
    inputs, targets = loop.batch()
    inputs.requires_grad_()
    loop.optimizer.zero_grad()
    loss = loop.loss(inputs, targets)
    loss.backward()
    predicted = loop.model(inputs).sum()
    (slope,) = torch.autograd.grad(predicted, inputs, create_graph=True)
    penalty = 0.1 * (slope.norm(dim=1) - 1).square().mean()
    penalty.backward()
    loop.step(loss, penalty)


def printed_root(loop):
    """What is printed is computed with a gradient, and descended is another loss."""
    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    predictions = loop.model(inputs)
    loop.criterion(predictions, targets).sqrt()
    loss = (predictions - targets).abs().mean()
    loss.backward()
    loop.step(loss)


def detached(loop):
    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    predictions = loop.model(inputs)
    loop.criterion(predictions, targets).detach()
    loss = predictions.square().mean()
    loss.backward()
    loop.step(loss)


def from_a_vector(loop):
    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    losses = (loop.model(inputs) - targets).square().flatten()
    weights = torch.linspace(0, 0.1, 10)
    losses.backward(weights)
    loop.step(losses.detach() @ weights)


def by_the_function_of_autograd(loop):
    from torch.autograd import backward  # bound before anyone stands in for it

    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    losses = [loop.loss(inputs, targets), loop.model[0].weight.square().sum()]
    backward(losses)
    loop.step(*losses)


def through_a_checkpoint(loop):
    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    hidden = torch.utils.checkpoint.checkpoint(
        loop.model[:2], inputs.requires_grad_(), use_reentrant=len(loop.printed) % 2 == 0
    )
    loss = loop.criterion(loop.model[2](hidden), targets)
    loss.backward()
    loop.step(loss)


def with_a_skipped_batch(loop):
    """Its gradients are replaced by zeros, as a loop does that finds them not finite."""
    loss = loop.loss(*loop.batch(3))
    loss.backward()
    for parameter in loop.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loss = loop.loss(*loop.batch())
    loss.backward()
    loop.step(loss)
    loop.optimizer.zero_grad()


def with_a_skipped_batch_zeroed_by_data(loop):
    for _ in range(2):
        for parameter in loop.model.parameters():
            if parameter.grad is not None:
                parameter.grad.data.zero_()
        loss = loop.loss(*loop.batch())
        loss.backward()
    loop.step(loss)


EXACT = [
    plain,
    with_a_penalty,
    printed_root,
    detached,
    through_a_checkpoint,
    with_a_skipped_batch,
]
ADDED_UP = [  # by the loop in single precision, or by the recorder in double
    with_unequal_micro_batches,
    undivided,
    mixed_up,
    with_a_penalty_in_a_second_pass,
    from_a_vector,
    by_the_function_of_autograd,
]


def named(loop):
    return loop.__name__


@pytest.mark.parametrize("with_criterion", [True, False])
@pytest.mark.parametrize("step", EXACT + ADDED_UP, ids=named)
def test_the_loss_is_that_whose_gradient_the_step_takes(step, with_criterion):
    loop = Loop()
    recorder = record(loop.optimizer, *([loop.criterion] if with_criterion else []))
    for k in range(6):
        (step if k != 4 else plain)(loop)  # a loop that does another thing for once
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the number of samples of")
        recorder.close()
    rtol = 0 if step in EXACT else 1e-6
    assert_allclose(recorder.history.loss, loop.printed, rtol=rtol)
    assert_array_equal(recorder.history.objective, recorder.history.loss)


@pytest.mark.parametrize(
    ("step", "size"),
    [(with_unequal_micro_batches, 10), (undivided, 10), (with_a_penalty, 10), (mixed_up, 10),
     (with_a_penalty_in_a_second_pass, 10), (with_a_skipped_batch, 10)],
    ids=lambda value: named(value) if callable(value) else str(value),
)  # fmt: skip
def test_the_number_of_samples_is_that_of_the_batch(step, size):
    loop = Loop()
    with loop.record() as recorder:
        for _ in range(3):
            step(loop)
    assert_array_equal(recorder.history.n_samples, [size] * 3)


def test_several_skips_in_one_step_are_told_from_a_pass_without_a_gradient():
    loop = Loop()
    with loop.record() as recorder:
        undivided(loop)  # from here on the recorder knows that passes come in groups
        loop.optimizer.zero_grad()
        with_a_skipped_batch_zeroed_by_data(loop)
        with_a_skipped_batch_zeroed_by_data(loop)
    assert_allclose(recorder.history.loss, loop.printed, rtol=1e-6)
    assert_array_equal(recorder.history.n_samples, [10, 10, 10])


def test_the_first_skip_in_the_middle_of_a_run_is_not_added_to_the_loss_silently():
    """All gradients are zero: `grad.data.zero_()`, or a pass whose gradient is exactly that."""
    loop = Loop()
    recorder = loop.record()
    for k in range(4):
        (with_a_skipped_batch_zeroed_by_data if k > 1 else plain)(loop)
        for parameter in loop.model.parameters():
            parameter.grad.data.zero_()
    with pytest.warns(UserWarning, match=r"all gradients were zero.*optimizer\.zero_grad\(\)"):
        recorder.close()
    assert np.isnan(recorder.history.loss[2])  # that one cannot be told, those after it can
    assert_array_equal(np.delete(recorder.history.loss, 2), np.delete(loop.printed, 2))


def test_what_a_frozen_parameter_holds_of_earlier_steps_keeps_no_skipped_batch():
    loop = Loop()
    with loop.record() as recorder:
        plain(loop)
        loop.model[0].requires_grad_(False)
        for _ in range(3):
            for skipped in (True, False):
                loop.model[2].zero_grad()
                loss = loop.loss(*loop.batch())
                loss.backward()
                if not skipped:
                    loop.step(loss)
    assert_array_equal(recorder.history.loss, loop.printed)
    assert_array_equal(recorder.history.n_samples, [10] * 4)


def test_gradients_of_several_passes_put_together_by_the_loop_have_no_known_loss():
    """As surgery on the gradients of several tasks does: that of the last one is not the loss."""
    loop = Loop()
    recorder = loop.record()
    for _ in range(2):
        inputs, targets = loop.batch()
        kept = []
        for target in (targets, -targets):
            loop.optimizer.zero_grad()
            loop.loss(inputs, target).backward()
            kept.append([parameter.grad.clone() for parameter in loop.model.parameters()])
        for parameter, one, other in zip(loop.model.parameters(), *kept, strict=True):
            parameter.grad = one + 0.5 * other
        loop.optimizer.step()
    with pytest.warns(UserWarning, match=r"2 steps were made without a backward pass"):
        recorder.close()
    assert np.isnan(recorder.history.loss).all()


def test_gradients_replaced_by_clipped_ones_keep_their_loss():
    loop = Loop()
    with loop.record() as recorder:
        for _ in range(3):
            loop.optimizer.zero_grad()
            loss = loop.loss(*loop.batch())
            loss.backward()
            for parameter in loop.model.parameters():
                parameter.grad = parameter.grad.clamp(-0.1, 0.1)
            loop.step(loss)
    assert_array_equal(recorder.history.loss, loop.printed)


def test_optimizers_that_step_within_the_backward_pass_have_its_loss():
    loop = Loop()
    optimizers = {p: torch.optim.Adam([p], lr=0.01) for p in loop.model.parameters()}

    def step(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    recorders = [record(optimizer, loop.criterion) for optimizer in optimizers.values()]
    for parameter in loop.model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    for _ in range(3):
        loss = loop.loss(*loop.batch())
        loss.backward()
        loop.printed.append(loss.item())
    for recorder in recorders:
        recorder.close()
        assert_array_equal(recorder.history.loss, loop.printed)
        assert_array_equal(recorder.history.n_samples, [10] * 3)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_micro_batch_whose_gradient_is_exactly_zero_counts(set_to_none):
    loop = Loop(nn.HingeEmbeddingLoss())
    with loop.record() as recorder:
        for _ in range(3):
            loop.optimizer.zero_grad(set_to_none=set_to_none)
            flat = torch.full((3, 1), -1.0)  # beyond the margin, where the hinge is flat
            zero = loop.criterion(loop.model(torch.zeros(3, 3)) + 10, flat) / 2
            zero.backward()
            steep = loop.criterion(loop.model(torch.ones(3, 3)), torch.ones(3, 1)) / 2
            steep.backward()
            loop.step(zero, steep)
    assert_array_equal(recorder.history.loss, loop.printed)
    assert_array_equal(recorder.history.n_samples, [6] * 3)


@pytest.mark.parametrize("empty", ["no samples", "all ignored"])
def test_a_micro_batch_of_no_samples_weighs_nothing(empty):
    model = nn.Linear(3, 4)
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1)
    inputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0])
    nothing = (inputs[:0], targets[:0]) if empty == "no samples" else (inputs, targets * 0 - 100)
    with record(optimizer, criterion, steps_per_epoch=2) as recorder:
        for order in (1, -1):
            optimizer.zero_grad()
            for x, y in ((inputs, targets), nothing)[::order]:
                loss = criterion(model(x), y)
                loss.backward()
                if len(y) and y[0] >= 0:
                    printed = loss.item()
            optimizer.step()
    history = recorder.history
    assert history.loss[1] == printed
    assert_array_equal(history.denominator, [5, 5])
    assert np.isfinite(history.running_loss).all()


def test_an_epoch_with_a_step_of_no_samples_has_a_running_loss():
    model = nn.Linear(3, 4)
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1)
    with record(optimizer, criterion, steps_per_epoch=2) as recorder:
        for y in (torch.tensor([0, 1]), torch.tensor([-100, -100])):
            optimizer.zero_grad()
            criterion(model(torch.ones(2, 3)), y).backward()
            optimizer.step()
    history = recorder.history
    assert_array_equal(history.denominator, [2, 0])
    assert_array_equal(history.running_loss, history.loss[:1])


@pytest.mark.parametrize("then", ["alone", "divided", "added up", "in a list"])
def test_the_factor_of_a_scaler_is_removed(then):
    loop = Loop()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with loop.record() as recorder:
        for _ in range(3):
            loop.optimizer.zero_grad()
            losses = [loop.loss(*loop.batch()) for _ in range(2)]
            if then == "alone":
                root, printed = scaler.scale(losses[0]), losses[:1]
            elif then == "divided":
                root, printed = scaler.scale(losses[0]) / 2, [losses[0] / 2]
            elif then == "added up":
                root, printed = scaler.scale(losses[0]) + scaler.scale(losses[1]), losses
            else:
                root, printed = scaler.scale(losses), losses
            torch.autograd.backward(root)
            scaler.step(loop.optimizer)
            scaler.update()
            loop.printed.append(sum(loss.item() for loss in printed))
    assert_allclose(recorder.history.loss, loop.printed, rtol=1e-6)


class TestAdversaries:
    def run(self, n=4):
        """A GAN as its tutorial has it, and what it prints."""
        generator, discriminator = network(3, seed=1), network(seed=2)
        criterion, ones, zeros = nn.BCEWithLogitsLoss(), torch.ones(5, 1), torch.zeros(5, 1)
        of_g = torch.optim.Adam(generator.parameters())
        of_d = torch.optim.Adam(discriminator.parameters())
        printed = {"g": [], "d": []}
        with record(of_g, criterion) as g, record(of_d, criterion) as d:
            for k in range(n):
                real = torch.randn(5, 3, generator=torch.Generator().manual_seed(k))
                discriminator.zero_grad()
                real_loss = criterion(discriminator(real), ones)
                real_loss.backward()
                fake = generator(real.flip(0))
                fake_loss = criterion(discriminator(fake.detach()), zeros)
                fake_loss.backward()
                of_d.step()
                generator.zero_grad()
                loss = criterion(discriminator(fake), ones)
                loss.backward()
                of_g.step()
                printed["d"].append(real_loss.item() + fake_loss.item())
                printed["g"].append(loss.item())
        return g.history, d.history, printed

    def test_each_recorder_has_what_the_script_prints(self):
        g, d, printed = self.run()
        assert_allclose(d.loss, printed["d"], rtol=1e-12)
        assert_array_equal(g.loss, printed["g"])
        assert_array_equal(g.n_samples, [5] * 4)


class TestTheModelAsACriterion:
    """Given by mistake: the loss is right, and the criterion beside it tells the size."""

    @pytest.mark.parametrize("with_criterion", [True, False])
    def test_it_is_never_taken_for_the_loss(self, with_criterion):
        loop = Loop()
        criteria = (loop.model, loop.criterion) if with_criterion else (loop.model,)
        with loop.record(*criteria) as recorder:
            for _ in range(3):
                plain(loop)
        assert_array_equal(recorder.history.loss, loop.printed)
        assert_array_equal(recorder.history.n_samples, [10] * 3)
