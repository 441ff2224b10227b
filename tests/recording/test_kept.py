"""Vectors are kept whole as long as they fit into their memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import record
from tests.recording.loops import batches, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def test_what_does_not_fit_is_streamed_and_what_was_kept_stays(model, criterion, sgd):
    memory = 21 * 4 * 10  # ten steps' gradients
    recorder = record(sgd, criterion, steps_per_epoch=4, memory=memory)
    losses, gradients = train(model, criterion, sgd, batches(18))
    with pytest.warns(UserWarning, match="for the first 10 steps, more do not fit"):
        recorder.end_epoch()
    recorder.close()  # it has been said, and is not said again
    history = recorder.history
    assert_array_equal(history.loss, losses)
    assert_array_equal(history.gradients.kept, gradients[:10])
    assert_allclose(history.gradient_norm, np.linalg.norm(gradients, axis=1), rtol=1e-6)
    assert_array_equal(history[:2].gradient, gradients[:8])
    parts = np.split(np.array(gradients, dtype=float), [4, 8, 12, 16])
    paths = np.array([part.mean(axis=0) for part in parts])
    assert_allclose(history.path_gradient_norm, np.linalg.norm(paths, axis=1), rtol=1e-5)
    assert_allclose(history[:2].path_gradient, paths[:2], rtol=1e-5, atol=1e-8)
    assert_allclose(history[-1].path_gradient, paths[-1:], rtol=1e-5, atol=1e-8)
    with pytest.raises(ValueError, match=r"first 10 of these 18.*last epoch.*is \[1\]"):
        _ = history.gradient
    with pytest.raises(ValueError, match=r"path_gradient was kept for the first 10 of these"):
        _ = history.path_gradient


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_it_stays_within_its_memory_while_it_grows(weights):
    code = rf"""
import re, torch
from sgd_analysis import record
weight = torch.nn.Parameter(torch.zeros(250_000))
optimizer = torch.optim.SGD([weight], lr=0.1)

def peak_after(n_steps, memory):
    with record(optimizer, steps_per_epoch=10, memory=memory, weights={weights}) as recorder:
        for _ in range(n_steps):
            optimizer.zero_grad()
            weight.sum().backward()
            recorder.observe(1.0, 1)
            optimizer.step()
    # Unlike ru_maxrss, not that of the process this one was forked from.
    return int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])

bare = peak_after(10, 4 << 20)
print((peak_after(150, 100 << 20) - bare) / (100 << 10))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    # Besides the vectors: a block of them, the sum of an epoch, and what the allocator keeps.
    assert 0.8 < float(result.stdout) < 1.15


def test_what_is_kept_when_parameters_change_is_copied_only_if_there_is_room(model, criterion, sgd):
    recorder = record(sgd, criterion, memory=21 * 4 * 16)
    train(model, criterion, sgd, batches(9))
    model.double()
    data = [(inputs.double(), targets.double()) for inputs, targets in batches(3)]
    train(model, criterion, sgd, data)
    with pytest.warns(UserWarning, match="kept for the first 9 steps"):
        recorder.close()
    assert recorder.history.gradients.kept.shape == (9, 21)
