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


def known_order(order: str | Order) -> Order:
    """Return the order of that name, or the function that was given.

    Args:
        order: a name, or a function with the signature of `cyclic`.

    Returns:
        A function from (n_samples, generator) to the epochs' indices.

    Raises:
        TypeError: if order is neither a name nor callable.
        ValueError: if no order has that name.
    """
    if callable(order):
        return order
    expected = f"order must be one of {sorted(ORDERS)}, or a function with their signature"
    if not isinstance(order, str):
        raise TypeError(f"{expected}, got {order!r}")
    if order not in ORDERS:
        raise ValueError(f"{expected}, got {order!r}")
    return ORDERS[order]


def checked_epochs(order: Order, n_samples: int, generator: Generator) -> Iterator[Tensor]:
    """Visit the samples in that order, checking what it yields.

    Args:
        order: any order.
        n_samples: the number of samples N.
        generator: passed on to the order.

    Yields:
        (n_indices,) sample indices, one tensor an epoch, without end.

    Raises:
        ValueError: if the order ends, or an epoch is not a vector of indices of samples.
    """
    epoch = -1
    for epoch, given in enumerate(order(n_samples, generator)):
        indices = torch.as_tensor(given)
        vector = indices.ndim == 1 and len(indices) > 0
        integer = not (indices.is_floating_point() or indices.dtype == torch.bool)
        if not (vector and integer and 0 <= indices.min() and indices.max() < n_samples):
            raise ValueError(
                f"order must yield vectors of indices between 0 and {n_samples - 1}, one an epoch; "
                f"for epoch {epoch} it gave a tensor of shape {tuple(indices.shape)}, dtype "
                f"{indices.dtype}: {given!r:.80}"
            )
        yield indices
    raise ValueError(f"order must yield without end, it ended after {epoch + 1} epochs")


def _worker_seed(generator: Generator) -> None:
    """Draw what a DataLoader draws first in each epoch, to seed its worker processes."""
    _random_seed(generator)


def _random_seed(generator: Generator) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
