"""Gradients that a loop multiplies by hand, and those that it only clips or unscales."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from sgd_analysis import record
from tests.recording.loops import batches, network


def messages(between, n_steps=6, steps_per_epoch=4, scaler=None, micro_batches=1):
    """Return what the recorder says of a loop that does this between backward() and step()."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    recorder = record(optimizer, steps_per_epoch=steps_per_epoch)
    data = iter(batches(n_steps * micro_batches))
    for step in range(n_steps):
        optimizer.zero_grad()
        for _ in range(micro_batches):
            inputs, targets = next(data)
            loss = nn.functional.mse_loss(model(inputs), targets)
            (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        between(model, step)
        optimizer.step() if scaler is None else scaler.step(optimizer)
        if scaler is not None:
            scaler.update()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recorder.close()
    return "\n".join(str(warning.message) for warning in caught)


def times(factor, *, in_place=True):
    def multiply(model, step):
        c = factor(step) if callable(factor) else factor
        for parameter in model.parameters():
            if in_place:
                parameter.grad *= c
            else:
                parameter.grad = parameter.grad * c

    return multiply


class TestIsSaid:
    @pytest.mark.parametrize("in_place", [True, False])
    def test_of_the_same_factor_in_each_step(self, in_place):
        said = messages(times(0.25, in_place=in_place))
        assert said.startswith("gradients were multiplied by 0.25 between")

    def test_of_gradients_that_are_divided_by_the_number_of_their_micro_batches(self):
        assert "multiplied by 0.3333 between" in messages(times(1 / 3), micro_batches=3)

    def test_of_factors_that_make_them_longer(self):
        assert "multiplied by 2 to 5 between" in messages(times(lambda step: 2.0 + step))

    def test_at_the_end_where_no_epoch_has_ended(self):
        assert "multiplied by 0.25 between" in messages(times(0.25), steps_per_epoch=100)

    def test_apart_from_the_factor_of_a_scaler(self):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        assert "multiplied by 0.25 between" in messages(times(0.25), scaler=scaler)


@pytest.mark.parametrize(
    "between",
    [
        lambda model, step: None,
        lambda model, step: clip_grad_norm_(model.parameters(), 0.1),
        lambda model, step: clip_grad_norm_(model.parameters(), 1e9),
        lambda model, step: clip_grad_value_(model.parameters(), 0.01),
        lambda model, step: [p.grad.add_(torch.randn_like(p)) for p in model.parameters()],
        lambda model, step: [p.grad.zero_() for p in model.parameters()],
        lambda model, step: [setattr(p, "grad", p.grad.clone()) for p in model.parameters()],
    ],
)
@pytest.mark.parametrize("is_scaled", [False, True])
def test_nothing_is_said_of_clipping_noise_and_zeros(between, is_scaled):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if is_scaled else None
    assert messages(between, scaler=scaler) == ""


def test_what_comes_after_the_first_epoch_is_not_looked_at():
    assert messages(times(lambda step: 1.0 if step < 4 else 3.0)) == ""
