"""Path gradients of epochs whose gradients are not kept."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import batches, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


@pytest.mark.usefixtures("summed")
def test_the_epoch_of_the_changeover_has_its_path_gradient(model, criterion, sgd):
    recorder = record(sgd, criterion, steps_per_epoch=6, memory=21 * 4 * 8)
    _, gradients = train(model, criterion, sgd, batches(12))
    with pytest.warns(UserWarning, match="for the first 8 steps"):
        recorder.close()
    path = np.mean(np.array(gradients[6:], dtype=float), axis=0)
    assert_allclose(recorder.history[1].path_gradient, [path], rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("settings", [{}, {"gradients": "norms"}, {"memory": 21 * 4}])
@pytest.mark.filterwarnings("ignore:whole vectors were kept for the first 1 steps")
def test_a_step_of_no_samples_adds_nothing_where_the_criterion_sums(model, sgd, settings):
    criterion = nn.MSELoss(reduction="sum")
    data = [batches(1)[0], batches(1, size=0)[0], batches(1, size=2)[0]]
    with record(sgd, criterion, steps_per_epoch=3, **settings) as recorder:
        losses, gradients = train(model, criterion, sgd, data)
    assert_array_equal(recorder.history.loss, losses)
    path = np.sum(np.array(gradients, dtype=float), axis=0) / 7
    assert_allclose(recorder.history.path_gradient, [path], rtol=1e-5, atol=1e-8)


def test_no_step_of_no_samples_ends_a_recording_without_gradients(model, sgd):
    criterion = nn.MSELoss(reduction="sum")
    data = [batches(1)[0], batches(1, size=0)[0]]
    with record(sgd, criterion, steps_per_epoch=2, gradients="none") as recorder:
        losses, _ = train(model, criterion, sgd, data)
    assert_array_equal(recorder.history.loss, losses)


def test_a_model_of_a_hundred_million_parameters_takes_one_more_vector():
    code = """
import resource, torch
from numpy.testing import assert_array_equal
from torch import nn
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
