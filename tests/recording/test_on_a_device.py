"""No step waits for a device, and what is recorded there is what the CPU would give."""

import contextlib

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.device import Device, OnDevice
from tests.recording.outcomes import SETTINGS, assert_same, bytes_of_steps, described, made
from tests.recording.trainings import (
    BATCH_SIZE,
    N_EPOCHS,
    N_SAMPLES,
    STEPS_PER_EPOCH,
    Training,
    accumulated,
    cleared_after_the_step,
    cleared_to_zeros,
    plain,
    with_a_pass_whose_gradients_are_dropped,
    with_a_pass_whose_gradients_are_zeroed,
    with_two_losses,
    with_two_passes,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:no epoch has ended"),  # most loops look at steps only
    pytest.mark.filterwarnings("ignore:the backward passes of a step had one vote each"),
    pytest.mark.usefixtures("one_thread"),
]


class WithoutWaiting(Training):
    """A loop that leaves the losses it prints on the device until its end."""

    def print(self, loss):
        self.losses.append(loss.detach().clone())


def moved(t):
    """A training whose model, optimizer and data are on the device, at the same weights."""
    new = {p: nn.Parameter(OnDevice(p.detach().clone())) for p in t.model.parameters()}
    for module in t.model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = new[parameter]
    optimizer = type(t.optimizer)(t.model.parameters(), lr=t.optimizer.defaults["lr"])
    data = {"inputs": OnDevice(t.inputs), "targets": OnDevice(t.targets)}
    return WithoutWaiting(**vars(t) | data | {"optimizer": optimizer})


def scaled_on_the_device(t, k, inputs, targets):
    """What a GradScaler does with an optimizer that unscales, and a step size on the device."""
    t.optimizer.zero_grad()
    group = t.optimizer.param_groups[0]
    if k == 0:
        group["lr"] = torch.full((), group["lr"], device=inputs.device)
    group["lr"].mul_(0.9)
    loss = t.loss(inputs, targets)
    t.optimizer.grad_scale = torch.full((), 1024.0, device=inputs.device)
    t.optimizer.found_inf = torch.full((), float(k in {1, 6}), device=inputs.device)
    (loss * t.optimizer.grad_scale).backward()
    t.optimizer.step()
    del t.optimizer.grad_scale, t.optimizer.found_inf
    t.print(loss)


def with_weights_of_the_classes(t, k, inputs, targets):
    t.criterion.weight = torch.linspace(0.5, 2, 11, device=inputs.device)
    plain(t, k, inputs, targets)


def with_one_vote_for_each_part(t, k, inputs, targets):
    t.optimizer.zero_grad()
    parts = list(zip(inputs.split(3), targets.split(3), strict=True))
    losses = [t.loss(*part) / len(parts) for part in parts]
    for loss in losses:
        loss.backward()
    t.optimizer.step()
    t.print(torch.stack(losses).sum())


ON_DEVICE = [
    ("network", "SGD", plain),
    ("network", "SGD", cleared_after_the_step),
    ("network", "SGD", cleared_to_zeros),
    ("network", "SGD", accumulated),
    ("network", "SGD", with_two_losses),
    ("network", "SGD", with_two_passes),
    ("network", "SGD", with_a_pass_whose_gradients_are_dropped),
    ("network", "SGD", with_a_pass_whose_gradients_are_zeroed),
    ("network", "SGD that unscales", scaled_on_the_device),
    ("network in half precision", "SGD", plain),
    ("tied decoder", "SGD", plain),
    ("tied decoder", "SGD", with_weights_of_the_classes),
    ("tied decoder", "SGD", with_one_vote_for_each_part),
]


def train_in_turn(t, after_step=lambda: None):
    """Run the loop over batches in turn, without a DataLoader, which would copy them."""
    for k in range(N_EPOCHS * STEPS_PER_EPOCH):
        first = k % STEPS_PER_EPOCH * BATCH_SIZE
        batch = slice(first, first + BATCH_SIZE)
        t.step(t, k, t.inputs[batch], t.targets[batch])
        after_step()


class TestOnADevice:
    @staticmethod
    def recorded(t, setting, after_step=lambda: None):
        settings = {"steps_per_epoch": STEPS_PER_EPOCH} | SETTINGS[setting]
        runs_full = settings.get("memory") == "little"
        if runs_full:
            settings["memory"] = bytes_of_steps(t, settings)
        with pytest.warns(UserWarning, match="memory") if runs_full else contextlib.nullcontext():
            with record(t.optimizer, t.criterion, t.other_criterion, **settings) as recorder:
                train_in_turn(t, after_step)
        return recorder.history

    @pytest.mark.parametrize("setting", ["whole gradients", "norms", "little memory and weights"])
    @pytest.mark.parametrize("case", ON_DEVICE, ids=described)
    def test_no_step_waits_for_it_and_the_history_is_that_of_the_cpu(self, case, setting):
        t = made(case)
        expected = self.recorded(t, setting)

        with Device() as device:
            unrecorded_t = moved(made(case))
            train_in_turn(unrecorded_t)
        assert device.waits == [], "the loop itself waits"

        waits = []

        def after_step():
            waits.append(device.waits)
            device.waits = []

        with Device() as device:
            t = moved(made(case))
            actual = self.recorded(t, setting, after_step)
        within_epochs = [w for k, w in enumerate(waits) if (k + 1) % STEPS_PER_EPOCH]
        at_their_ends = waits[STEPS_PER_EPOCH - 1 :: STEPS_PER_EPOCH]
        assert not any(within_epochs), within_epochs
        assert all(at_their_ends)

        has_votes = case[2] is with_one_vote_for_each_part
        assert [h.size_weighting is not None for h in (expected, actual)] == [has_votes] * 2

        there = [[p.there for p in run.model.parameters()] for run in (unrecorded_t, t)]
        assert_same(*there, "parameters")
        printed = [[loss.there for loss in run.losses] for run in (unrecorded_t, t)]
        assert_same(*printed, "losses")
        # Numbers that are added up there are so in single precision, here in double.
        for name in ("loss", "size_weighted_loss", "n_samples", "skipped", "step_size"):
            assert_allclose(getattr(actual, name), getattr(expected, name), rtol=1e-6)
        if expected.gradients is not None:
            assert_array_equal(actual.gradients.kept, expected.gradients.kept)
            assert_allclose(actual.gradient_norm, expected.gradient_norm, rtol=1e-6)
            assert_allclose(actual.path_gradient_norm, expected.path_gradient_norm, rtol=1e-6)
        if expected.kept_weights is not None:
            assert_array_equal(actual.kept_weights, expected.kept_weights)


def test_a_number_that_is_observed_of_a_loss_on_it_is_compared_with_nothing_there():
    with Device() as device:
        t = moved(made(("network", "SGD", plain)))
        with record(t.optimizer, steps_per_epoch=2) as recorder:
            loss = t.loss(t.inputs, t.targets)
            recorder.observe(2.0, N_SAMPLES)
            loss.backward()
            t.optimizer.step()
            assert device.waits == []
        assert_array_equal(recorder.history.loss, [2.0])
        assert_allclose(recorder.history.objective, [loss.there.item()])
