"""Two runs, and all that could tell one from the other."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.recording.trainings import (
    BATCH_SIZE,
    KEPT_STEPS,
    MODELS,
    N_EPOCHS,
    N_SAMPLES,
    OPTIMIZERS,
    Training,
    in_mixed_precision,
)

SETTINGS = {
    "whole gradients": {},
    "norms": {"gradients": "norms"},
    "no gradients": {"gradients": "none"},
    "weights": {"weights": True},
    "little memory": {"memory": "little"},
    "little memory and weights": {"memory": "little", "weights": True},
    "read at every step": {"steps_per_epoch": None},
}


def described(case):
    return " - ".join([case[0], case[1], case[2].__name__.replace("_", " ")])


def seeded():
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


@functools.cache
def lstm_in_mixed_precision_fails():
    """Why this processor has no LSTM in bfloat16, recorded or not; nothing where it has one."""
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(1, 1)(torch.ones(1, 1, 1))
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        return f"no LSTM in bfloat16 on this processor: {str(error).split('.')[0]}"
    return ""


def made(case):
    model, optimizer, step = case
    if model == "lstm" and step is in_mixed_precision and lstm_in_mixed_precision_fails():
        pytest.skip(lstm_in_mixed_precision_fails())
    if "fused" in optimizer and torch.__version__ < (2, 4):
        pytest.skip("torch has fused optimizers on the CPU from version 2.4 on")
    make_model, make_criterion, inputs, targets = MODELS[model]
    seeded()
    model = make_model()
    return Training(
        model=model,
        criterion=make_criterion(),
        other_criterion=nn.SmoothL1Loss(),
        optimizer=OPTIMIZERS[optimizer](model.parameters()),
        inputs=inputs(),
        targets=targets(),
        step=step,
        losses=[],
        printed=[],
        seen=[],
        gradients=[],
    )


def train(t, after_step=lambda k: None, after_epoch=lambda: None):
    samples = TensorDataset(torch.arange(N_SAMPLES), t.inputs, t.targets)
    loader = DataLoader(samples, batch_size=BATCH_SIZE, shuffle=True)
    k = 0
    for _ in range(N_EPOCHS):
        for indices, inputs, targets in loader:
            t.seen.append((indices, random.random(), np.random.random()))
            t.step(t, k, inputs, targets)
            t.gradients.append([state_of(p.grad) for p in t.model.parameters()])
            after_step(k)
            k += 1
        after_epoch()


def outcome(t):
    """Everything that tells one run from another."""
    parameters = list(t.model.parameters())
    return {
        "parameters": [(p, p._version, p.requires_grad) for p in parameters],
        "buffers": [(b, b._version) for b in t.model.buffers()],
        "optimizer": t.optimizer.state_dict(),
        "gradients after each step": t.gradients,
        "gradients": [state_of(p.grad) for p in parameters],
        "random states": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
        "data": t.seen,
        "losses": t.losses,
        "printed": t.printed,
        "modes": [module.training for module in t.model.modules()],
    }


def state_of(gradient):
    if gradient is None:
        return None
    properties = gradient.layout, gradient.dtype, gradient._version, gradient.requires_grad
    if not gradient.is_sparse:
        return (*properties, gradient.detach().clone())
    copy = gradient.detach().clone()
    return (*properties, copy.is_coalesced(), copy._indices(), copy._values())


def attributes_and_hooks(t):
    """What hangs on the objects of a loop, those of the hooks with their number."""
    owners = [*t.model.modules(), t.criterion, t.other_criterion, t.optimizer]
    tensors = [*t.model.parameters(), *t.model.buffers()]
    hooks = [(t._backward_hooks, getattr(t, "_post_accumulate_grad_hooks", None)) for t in tensors]
    return [
        {
            name: len(value) if "hook" in name and hasattr(value, "__len__") else type(value)
            for name, value in vars(owner).items()
        }
        for owner in [*owners, *tensors]
    ], [[None if found is None else len(found) for found in pair] for pair in hooks]


def assert_same(one, other, where):
    """Assert that two structures are the same to the bit, naming the place that differs."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.layout) == (other.dtype, other.shape, other.layout), where
        # As bytes, because nan differs from itself, and 0.0 equals -0.0.
        bytes_of = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (one, other)]
        assert torch.equal(*bytes_of), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(one, float):
        assert_same(np.float64(one).tobytes(), np.float64(other).tobytes(), f"{where}: {one}")
    else:
        assert one == other, where


@functools.cache
def unrecorded(case):
    t = made(case)
    train(t)
    return outcome(t), attributes_and_hooks(t), t.losses


def bytes_of_steps(t, settings):
    """The memory in which the vectors of KEPT_STEPS steps fit, and those of one more do not."""
    parameters = {p for group in t.optimizer.param_groups for p in group["params"]}
    item = 4 if "half" in str(t.model) else None
    one = sum(p.numel() * (item or max(p.itemsize, 4)) for p in parameters)
    return KEPT_STEPS * one * (2 if settings.get("weights") else 1) + one - 1
