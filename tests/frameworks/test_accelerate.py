"""Accelerate's loop: `record` is given the optimizer that `prepare` wraps."""

import contextlib

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import record
from tests.frameworks.outcomes import BATCH_SIZE, left, network, norms_of, samples
from tests.recording.outcomes import assert_same, seeded

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")


def train(*, recorded, accumulated=1, clipped=None):
    """Three epochs; returns the model, the optimizer, and what the loop has seen of itself."""
    seeded()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    losses, norms, part = [], norms_of(optimizer), 0.0
    loader = DataLoader(TensorDataset(*samples()), BATCH_SIZE, shuffle=True)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulated)
    model, wrapped, loader = accelerator.prepare(model, optimizer, loader)
    recording = record(wrapped.optimizer) if recorded else contextlib.nullcontext()
    with recording as recorder:
        for _ in range(3):
            for inputs, labels in loader:
                with accelerator.accumulate(model):
                    loss = F.cross_entropy(model(inputs), labels)
                    accelerator.backward(loss)
                    part += loss.item() / accumulated
                    if accelerator.sync_gradients:
                        if clipped is not None:
                            accelerator.clip_grad_norm_(model.parameters(), clipped)
                        losses.append(part)
                        part = 0.0
                    wrapped.step()
                    wrapped.zero_grad()
    return model, optimizer, losses, norms, recorder


@pytest.mark.parametrize("settings", [{}, {"clipped": 0.1}, {"accumulated": 2}], ids=repr)
def test_a_loop_is_recorded_step_by_step_and_left_as_it_is(settings):
    bare, optimizer, *seen, _ = train(recorded=False, **settings)
    unrecorded = left(bare, optimizer), seen
    model, optimizer, losses, norms, recorder = train(recorded=True, **settings)
    assert_same((left(model, optimizer), [losses, norms]), unrecorded, "accelerate")
    history = recorder.history
    assert history.n_epochs == 3
    assert_array_equal(history.loss, losses)
    n_samples = [12, 8] if "accumulated" in settings else [6, 6, 6, 2]
    assert_array_equal(history.n_samples, n_samples * 3)
    assert_allclose(history.gradient_norm, norms, rtol=1e-6)


def test_the_wrapper_is_refused_and_what_it_wraps_is_named():
    optimizer = torch.optim.SGD(network().parameters(), lr=0.05)
    wrapped = accelerate.Accelerator(cpu=True).prepare(optimizer)
    with pytest.raises(TypeError, match=r"AcceleratedOptimizer.*: give its `optimizer`"):
        record(wrapped)
