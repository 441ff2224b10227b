"""How late a running loss is, against epochs of small steps; and which way the steps go."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from sgd_analysis import survey
from tests.surveying.surveyed_models import from_gradients

TINY = 1e-7  # of the first order in the step size; what is left is of the second


def small_batches(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    draw = {"generator": generator, "dtype": torch.float64}
    pairs = [(torch.randn(n, 3, **draw), torch.randn(n, 1, **draw)) for n in sizes]
    return model, nn.MSELoss(), pairs


def epoch_of(model, criterion, batches, step_size):
    """Train for an epoch, put the weights back, and return its running loss and its last risk."""
    start = [p.detach().clone() for p in model.parameters()]
    sizes = np.array([len(targets) for _, targets in batches])
    seen = []
    for inputs, targets in batches:
        loss = criterion(model(inputs), targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= step_size * gradient
        seen.append(loss.item())
    last = survey(model, criterion, batches).empirical_risk
    with torch.no_grad():
        for parameter, before in zip(model.parameters(), start, strict=True):
            parameter.copy_(before)
    return sizes @ seen / sizes.sum(), last


@pytest.mark.parametrize("seed", range(5))
def test_epochs_of_tiny_steps_are_as_late_as_it_says_in_any_order(seed):
    model, criterion, batches = small_batches([4] * 5, seed)
    before = survey(model, criterion, batches)
    for order in (batches, batches[::-1], batches[2:] + batches[:2]):
        running, last = epoch_of(model, criterion, order, TINY)
        measured = (running - last) / (before.empirical_risk - last)
        assert_allclose(measured, before.lateness, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_with_batches_of_different_sizes_in_the_mean_over_all_orders(seed):
    model, criterion, batches = small_batches([5, 3, 1, 2], seed)
    before = survey(model, criterion, batches)
    epochs = [epoch_of(model, criterion, order, TINY) for order in itertools.permutations(batches)]
    running, last = np.mean(epochs, axis=0)
    measured = (running - last) / (before.empirical_risk - last)
    assert_allclose(measured, before.lateness, rtol=1e-4)


def test_batches_that_agree_are_orthogonal_or_oppose_each_other():
    assert from_gradients([[1.0, 0.0]] * 40).lateness == pytest.approx(0.5 + 0.5 / 40)
    assert from_gradients(np.eye(7)).lateness == pytest.approx(1.0)
    assert from_gradients([[1.0, 2.0], [1.0, -1.0]]).lateness > 1
    assert from_gradients([[2.0]]).lateness == 1.0  # all samples in one batch, an epoch ago


def test_it_is_infinite_where_only_batches_move_and_nan_where_nothing_does_or_the_loss_rises():
    assert from_gradients([[1.0], [-1.0]]).lateness == math.inf
    assert math.isnan(from_gradients([[0.0], [0.0]]).lateness)
    rising = from_gradients([[1.0], [-2.0], [-2.0]], n_samples=[8, 1, 1])
    assert rising.step_alignment == -1.0
    assert math.isnan(rising.lateness)


@given(st.floats(1e-150, 1e150))
def test_neither_depends_on_the_units_of_the_loss(scale):
    gradients = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
    one, other = (from_gradients(g, n_samples=[1, 2, 3]) for g in (gradients, scale * gradients))
    assert other.lateness == pytest.approx(one.lateness)
    assert other.step_alignment == pytest.approx(one.step_alignment)


def test_a_batch_in_which_no_sample_counts_takes_no_step():
    model, inputs = nn.Linear(2, 3), torch.ones(2, 2)
    some, none = torch.tensor([0, 1]), torch.tensor([-100, -100])
    criterion = nn.CrossEntropyLoss()
    with_it = survey(model, criterion, [(inputs, some), (inputs, none)])
    without = survey(model, criterion, [(inputs, some)])
    assert_allclose(with_it.step_gradient, without.step_gradient)
    assert with_it.lateness == without.lateness
    assert with_it.step_alignment == pytest.approx(1.0)
