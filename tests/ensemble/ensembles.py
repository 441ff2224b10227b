"""What the tests of this room train."""

import functools

import numpy as np
import torch
from numpy.testing import assert_array_equal
from torch import nn

from sgd_analysis import FiniteSum, LeastSquares

MOMENTUM = functools.partial(torch.optim.SGD, momentum=0.9)


OPTIMIZERS = {
    "sgd": "sgd",
    "momentum": MOMENTUM,
    "RMSprop": torch.optim.RMSprop,
    "Adam": torch.optim.Adam,
}


ALONG = ("running_loss", "mean_batch_loss", "last_batch_loss", "path_gradient_norm")


AT_ENDS = ("empirical_risk", "full_gradient_norm")


def noisy_line(n_samples=23, dtype=np.float64):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n_samples, 3)).astype(dtype)
    return LeastSquares(features, rng.normal(size=n_samples).astype(dtype))


def network(criterion, dtype=torch.float64, n_samples=23, activation=nn.Tanh):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n_samples, 3, generator=generator, dtype=dtype)
    if isinstance(criterion, nn.CrossEntropyLoss):
        targets = torch.randint(4, (n_samples,), generator=generator)
    else:
        targets = torch.randn(n_samples, 4, generator=generator, dtype=dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(3, 5), activation(), nn.Linear(5, 4)).to(dtype)
    return FiniteSum(model, criterion, inputs, targets)


def assert_equal_bit_for_bit(one, other, rows=slice(None)):
    for name in (*ALONG, *AT_ENDS, "weights", "checkpoints"):
        expected = getattr(other, name)
        if expected is not None:
            assert_array_equal(getattr(one, name), expected[rows], err_msg=name)
