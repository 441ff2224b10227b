"""A small model, its criterion and its optimizer; one thread where that is much faster."""

import pytest
import torch
from torch import nn

from tests.recording.loops import network


@pytest.fixture
def model():
    return network()


@pytest.fixture
def criterion():
    return nn.MSELoss()


@pytest.fixture
def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.fixture
def one_thread():
    """With more, the threads of these tiny operations wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["in blocks", "one by one"])
def summed(request, monkeypatch):
    """Gradients that are not kept, as small ones are summed up, and as large ones are."""
    if request.param == "one by one":
        monkeypatch.setattr("sgd_analysis.recording.paths.sums_blocks", lambda parameters: False)
