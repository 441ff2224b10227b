"""The order in which samples are visited, epoch after epoch."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Generator, Tensor

Order: TypeAlias = Callable[[int, Generator], Iterator[Tensor]]


def cyclic(n_samples: int, generator: Generator) -> Iterator[Tensor]:
    """Visit the samples in their given order, every epoch: `DataLoader(shuffle=False)`.

    Args:
        n_samples: the number of samples N.
        generator: one number is drawn from it an epoch and not used, because a DataLoader does so
            too: a model that draws random numbers (dropout) then sees the same ones.

    Yields:
        (n_samples,) sample indices, one tensor an epoch, without end.
    """
    indices = torch.arange(n_samples)
    while True:
        _worker_seed(generator)
        yield indices


def reshuffle(n_samples: int, generator: Generator) -> Iterator[Tensor]:
    """Visit the samples in a fresh random order each epoch: `DataLoader(shuffle=True)`.

    With a generator seeded as `torch.manual_seed(seed)` seeds the global one, the batches are
    those of the DataLoader, one by one.

    Args:
        n_samples: the number of samples N.
        generator: the source of randomness; each epoch draws two numbers from it.

    Yields:
        (n_samples,) sample indices, one tensor an epoch, without end.
    """
    while True:
        _worker_seed(generator)
        sampler = Generator().manual_seed(_random_seed(generator))
        yield torch.randperm(n_samples, generator=sampler)


ORDERS: dict[str, Order] = {"cyclic": cyclic, "reshuffle": reshuffle}


def _worker_seed(generator: Generator) -> None:
    """Draw what a DataLoader draws first in each epoch, to seed its worker processes."""
    _random_seed(generator)


def _random_seed(generator: Generator) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
