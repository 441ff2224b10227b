"""Path gradients of epochs whose gradients are not kept."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sgd_analysis import record
from tests.recording.loops import batches, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def test_the_epoch_of_the_changeover_has_its_path_gradient(model, criterion, sgd):
    recorder = record(sgd, criterion, steps_per_epoch=6, memory=21 * 4 * 8)
    _, gradients = train(model, criterion, sgd, batches(12))
    with pytest.warns(UserWarning, match="for the first 8 steps"):
        recorder.close()
    path = np.mean(np.array(gradients[6:], dtype=float), axis=0)
    assert_allclose(recorder.history[1].path_gradient, [path], rtol=1e-5, atol=1e-8)


def test_a_model_of_a_hundred_million_parameters_takes_one_more_vector():
    code = """
import resource, torch
from sgd_analysis import record
weight = torch.nn.Parameter(torch.zeros(100_000_000))
optimizer = torch.optim.SGD([weight], lr=0.1)

def peak_after_steps(recorder=None):
    for _ in range(4):
        optimizer.zero_grad()
        loss = weight.sum()
        if recorder:
            recorder.observe(loss, 1)
        loss.backward()
        optimizer.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

bare = peak_after_steps()
with record(optimizer, gradients="norms", steps_per_epoch=2) as recorder:
    recorded = peak_after_steps(recorder)
    assert recorder.history.n_epochs == 2
print((recorded - bare) * 1024 / (4 * weight.numel()))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 1.1
