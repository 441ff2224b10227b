"""Calls of a criterion, as its hook sees them."""

import pytest
from numpy.testing import assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import batches

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def test_a_criterion_may_return_more_than_its_loss(model, sgd):
    class Pair(nn.Module):
        def forward(self, predictions, targets):
            loss = (predictions - targets).square().mean()
            return loss, loss.detach()

    criterion = Pair()
    losses = []
    with record(sgd, criterion) as recorder:
        for inputs, targets in batches(2):
            sgd.zero_grad()
            loss, _ = criterion(model(inputs), targets)
            loss.backward()
            sgd.step()
            losses.append(loss.item())
    assert_array_equal(recorder.history.loss, losses)
    assert_array_equal(recorder.history.n_samples, [5, 5])


def test_a_loss_that_is_changed_in_place_is_recorded_as_its_gradient_was_taken(
    model, criterion, sgd
):
    with record(sgd, criterion) as recorder:
        inputs, targets = batches(1)[0]
        loss = criterion(model(inputs), targets)
        loss /= 4
        loss.backward()
        sgd.step()
    assert_array_equal(recorder.history.loss, [loss.item()])
    assert_array_equal(recorder.history.n_samples, [5])
