"""What a row has, and what not."""

import pytest

from sgd_analysis import record
from tests.recording.loops import batches, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def test_no_gradients_are_looked_at_if_none_are_wanted(model, criterion, sgd):
    with record(sgd, criterion, gradients="none") as recorder:
        train(model, criterion, sgd, batches(2))
    with pytest.raises(ValueError, match="gradients were not recorded"):
        _ = recorder.history.gradient_norm
    with pytest.raises(ValueError, match=r"weights were not recorded: record\(\.\.\., weights"):
        _ = recorder.history.weights
