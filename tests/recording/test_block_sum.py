"""Gradients that are not kept are measured many steps at once, and as if each were alone."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from sgd_analysis.recording.gradients import norm
from tests.recording.loops import backward, batches, gradient_of, network, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def ragged(n):
    """Batches of which some are smaller, so that they weigh less."""
    return [batch for k in range(n) for batch in batches(1, size=2 if k % 7 == 3 else 5, seed=k)]


def paths_of(gradients, weights, edges):
    sums = np.add.reduceat(gradients * weights[:, None], edges, axis=0)
    return sums / np.add.reduceat(weights, edges)[:, None]


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("settings", [{"gradients": "norms"}, {"memory": 21 * 4 * 100}])
@pytest.mark.parametrize("read_at", [(), (1, 2, 255, 256, 257, 300, 301, 513)])
@pytest.mark.filterwarnings("ignore:whole vectors were kept for the first 100 steps")
def test_epochs_longer_than_a_block_however_often_they_are_read(
    model, criterion, sgd, settings, read_at
):
    histories = []
    with record(sgd, criterion, steps_per_epoch=300, **settings) as recorder:
        gradients = []
        for k, batch in enumerate(ragged(700)):
            gradients += train(model, criterion, sgd, [batch])[1]
            if k + 1 in read_at:
                histories.append(recorder.history)
    gradients = np.array(gradients, dtype=float)
    norms = np.linalg.norm(gradients, axis=1)
    history = recorder.history
    assert_allclose(history.gradient_norm, norms, rtol=1e-6)
    paths = paths_of(gradients, history.n_samples, [0, 300, 600])
    assert_allclose(history.path_gradient_norm, np.linalg.norm(paths[:2], axis=1), rtol=1e-5)
    assert_allclose(history.gradients.last_path, paths[2], rtol=1e-5, atol=1e-8)
    for n, before in zip(read_at, histories, strict=bool(histories)):
        assert_allclose(before.gradient_norm, norms[:n], rtol=1e-6)
        first = n - n % 300
        if n > first and (n > 100 or not settings.get("memory")):
            (path,) = paths_of(gradients[first:n], history.n_samples[first:n], np.array([0]))
            assert_allclose(before.gradients.last_path, path, rtol=1e-5, atol=1e-8)


def test_a_history_that_is_made_while_recording_passes_every_check(model, criterion, sgd):
    with record(sgd, criterion, steps_per_epoch=4, weights=True) as recorder:
        train(model, criterion, sgd, batches(3))
        begun = recorder.history
        train(model, criterion, sgd, batches(7))
        for history in (begun, recorder.history):
            for field in dataclasses.fields(checked := dataclasses.replace(history)):
                found, expected = getattr(history, field.name), getattr(checked, field.name)
                if isinstance(expected, np.ndarray):
                    assert_array_equal(found, expected)
                    assert found.dtype == expected.dtype and not found.flags.writeable
    assert begun.n_steps == 3 and np.isfinite(begun.gradient_norm).all()


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("width", [2, 3000])
def test_parameters_added_in_the_middle_of_an_epoch_had_no_gradient_before(criterion, width):
    """Of 3000 more, the vectors have become too long for a block of many rows."""
    model, more = network(), nn.Linear(width, 7)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(sgd, criterion, steps_per_epoch=6, gradients="norms") as recorder:
        _, gradients = train(model, criterion, sgd, batches(3))
        sgd.add_param_group({"params": more.parameters()})
        for batch in batches(3, seed=2):
            sgd.zero_grad()
            more(torch.ones(5, width)).sum().backward()
            backward(model, criterion, batch)
            gradients.append(np.concatenate([gradient_of(model), gradient_of(more)]))
            sgd.step()
    n = len(gradients[-1])
    whole = np.array([np.pad(g.astype(float), (0, n - len(g))) for g in gradients])
    history = recorder.history
    assert_allclose(history.gradient_norm, np.linalg.norm(whole, axis=1), rtol=1e-6)
    assert_allclose(history.path_gradient[0], whole.mean(axis=0), rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_of_any_dtype(dtype):
    weight = nn.Parameter(torch.arange(1, 5).to(dtype))
    other = nn.Parameter(torch.ones(2, dtype=dtype))
    sgd = torch.optim.SGD([weight, other], lr=0.0)
    with record(sgd, steps_per_epoch=2, n_samples=1, gradients="norms") as recorder:
        for factor in (1, 2):
            sgd.zero_grad()
            (factor * (weight.abs().square().sum() + other.abs().sum())).backward()
            sgd.step()
    first = np.array([2, 4, 6, 8, 1, 1])
    assert_allclose(recorder.history.gradient_norm, np.linalg.norm([first, 2 * first], axis=1))
    assert_allclose(recorder.history.path_gradient, [1.5 * first])
    assert recorder.history.gradients.last_path.itemsize >= 4


class TestNorm:
    def test_of_very_many_entries_it_no_digit_that_counts_is_lost(self):
        entries = torch.full((20_000_000,), 0.1)
        expected = np.sqrt(20_000_000 * np.float64(np.float32(0.1)) ** 2)
        assert_allclose(norm([entries]), expected, rtol=2e-5)
        normal = torch.randn(20_000_000, generator=torch.Generator().manual_seed(0))
        expected = torch.linalg.vector_norm(normal, dtype=torch.float64).item()
        assert_allclose(norm([normal]), expected, rtol=1e-6)

    @pytest.mark.parametrize("scale", [1e-30, 1e25])
    def test_of_entries_whose_squares_are_out_of_range(self, scale):
        parts = [torch.full((2, 2), 3 * scale), None, torch.full((4,), 4 * scale)]
        assert_allclose(norm(parts), 10 * scale, rtol=1e-6)

    def test_of_entries_that_do_not_lie_in_order(self):
        image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
        assert_allclose(norm([image, image.mT]), (2 * image.square().sum()).sqrt(), rtol=1e-6)

    def test_of_nothing_it_is_0_and_of_nan_nan(self):
        assert norm([]) == norm([None]) == norm([torch.zeros(3)]) == 0
        assert np.isnan(norm([torch.ones(2), torch.tensor([np.nan])]))
        assert norm([torch.tensor([np.inf])]) == np.inf
