"""The order in which samples are visited, epoch after epoch, and its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from sgd_analysis._validation import integer_between, kind_of, sample_indices

Order: TypeAlias = Callable[[int, int, Generator], Iterator[Tensor]]


def cyclic(n_samples: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Yield the samples in their given order, every epoch: `DataLoader(shuffle=False)`.

    Every function with these arguments that yields one epoch's indices after the other, without
    end, is an order: `train(order=...)` takes it, or one of the five here by its name.

    Args:
        n_samples: the number of samples N.
        batch_size: the mini-batch size B. Of the five only `independent` looks at it.
        generator: the source of randomness. This order draws one number an epoch and does not use
            it, because a DataLoader does so, too: a model that draws random numbers (dropout) then
            sees the same ones.

    Yields:
        (n_samples,) sample indices, one tensor an epoch, without end.

    Example:
        >>> import torch
        >>> from sgd_analysis import cyclic
        >>> epochs = cyclic(4, 2, torch.Generator())
        >>> [next(epochs).tolist() for _ in range(2)]
        [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    indices = torch.arange(n_samples)
    while True:
        _worker_seed(generator)
        yield indices


def shuffle_once(n_samples: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Yield the samples as shuffled before the first epoch, the same order ever after.

    The arguments are those of `cyclic`. The first epoch is that of `reshuffle`; each later one
    draws one number, as `cyclic` does.

    Example:
        >>> import torch
        >>> from sgd_analysis import shuffle_once
        >>> epochs = shuffle_once(100, 10, torch.Generator().manual_seed(0))
        >>> first, second = next(epochs).tolist(), next(epochs).tolist()
        >>> first == second, first == sorted(first)
        (True, False)
    """
    indices = next(reshuffle(n_samples, batch_size, generator))
    yield indices
    while True:
        _worker_seed(generator)
        yield indices


def reshuffle(n_samples: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Yield the samples in a fresh random order each epoch: `DataLoader(shuffle=True)`.

    The arguments are those of `cyclic`; each epoch draws two numbers. With a generator seeded as
    `torch.manual_seed(seed)` seeds the global one, the batches are those of the DataLoader, one
    by one.

    Example:
        >>> import torch
        >>> from sgd_analysis import reshuffle
        >>> epochs = reshuffle(100, 10, torch.Generator().manual_seed(0))
        >>> first, second = next(epochs).tolist(), next(epochs).tolist()
        >>> first == second, sorted(first) == sorted(second)
        (False, True)
    """
    while True:
        yield torch.randperm(n_samples, generator=_sampler(generator))


def with_replacement(n_samples: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Yield N draws from all N samples: some come twice in an epoch, others not at all.

    The arguments are those of `cyclic`; each epoch draws two numbers. It is a DataLoader with
    `RandomSampler(data, replacement=True)`, batch for batch.

    Example:
        >>> import torch
        >>> from sgd_analysis import with_replacement
        >>> indices = next(with_replacement(100, 10, torch.Generator().manual_seed(0)))
        >>> len(indices), len(indices.unique()) < 100
        (100, True)
    """
    while True:
        yield torch.randint(n_samples, (n_samples,), generator=_sampler(generator))


def independent(n_samples: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Yield batches that are fresh uniform subsets: no sample twice in one, each independent.

    The arguments are those of `cyclic`; each epoch draws two numbers. The batches of an epoch are
    as many and as large as those of the other orders. This is the order for which second moments
    have a closed form; see `expected_running_loss`.

    Example:
        >>> import torch
        >>> from sgd_analysis import batches, independent
        >>> indices = next(independent(100, 30, torch.Generator().manual_seed(0)))
        >>> [len(batch.unique()) for batch in batches(indices, 30)]
        [30, 30, 30, 10]
    """
    n_whole, tail = divmod(n_samples, batch_size)
    while True:
        sampler = _sampler(generator)
        whole = subsets(n_samples, batch_size, n_whole, sampler)
        yield torch.cat([whole.flatten(), *subsets(n_samples, tail, min(tail, 1), sampler)])


ORDERS: dict[str, Order] = {
    "cyclic": cyclic,
    "shuffle_once": shuffle_once,
    "reshuffle": reshuffle,
    "with_replacement": with_replacement,
    "independent": independent,
}


def batches(
    indices: ArrayLike | Tensor, batch_size: int, *, drop_last: bool = False
) -> tuple[Tensor, ...]:
    """Split an epoch's indices into the batches that a DataLoader would make of them.

    Args:
        indices: (n_indices,) sample indices in the order in which they are visited.
        batch_size: the mini-batch size B, between 1 and n_indices.
        drop_last: whether to leave out what is left for a last batch smaller than B.

    Returns:
        (batch_size,) index tensors, one a batch, views of `indices` where it is a tensor; the
        last one is smaller if B does not divide n_indices.

    Raises:
        ValueError: if indices is not a vector of whole numbers, or batch_size is out of range.

    Example:
        >>> from sgd_analysis import batches
        >>> [batch.tolist() for batch in batches(range(5), 2)]
        [[0, 1], [2, 3], [4]]
    """
    vector = sample_indices(indices)
    if vector is None:
        raise ValueError(
            "indices must be a vector of whole numbers (of a mask, the positions where it is True),"
            f" got {indices!r:.80}"
        )
    size = integer_between(
        "batch_size", batch_size, 1, len(vector), meaning="the number of indices"
    )
    kept = vector[: len(vector) - len(vector) % size] if drop_last else vector
    split: tuple[Tensor, ...] = kept.split(size)
    return split


def known_order(order: str | Order) -> Order:
    """Return the order of that name, or the function that was given.

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


def checked_epochs(
    order: Order, n_samples: int, batch_size: int, generator: Generator
) -> Iterator[Tensor]:
    """Yield the epochs of an order as (n_indices,) sample indices, checking each.

    Raises:
        ValueError: if the order ends, or an epoch is not a vector of indices of samples.
    """
    epoch = -1
    for epoch, given in enumerate(order(n_samples, batch_size, generator)):
        indices = sample_indices(given)
        named = indices is not None and len(indices) > 0
        if indices is None or not (named and 0 <= indices.min() and indices.max() < n_samples):
            kind = f"a {kind_of(given)}"
            if (dtype := getattr(given, "dtype", None)) is not None:
                kind += f" of shape {tuple(np.shape(given))}, dtype {dtype}"
            raise ValueError(
                f"order must yield vectors of indices between 0 and {n_samples - 1}, one an epoch "
                "(of a mask, the positions where it is True); for epoch "
                f"{epoch} it gave {kind}: {given!r:.80}"
            )
        yield indices
    raise ValueError(f"order must yield without end, it ended after {epoch + 1} epochs")


def without_the_rest(indices: Tensor, batch_size: int) -> Tensor:
    """Return an epoch's indices (n_indices, ...) without those of a last, smaller batch.

    Raises:
        ValueError: if nothing is left.
    """
    meaning = "the number of samples that the order visits, with drop_last"
    integer_between("batch_size", batch_size, 1, len(indices), meaning=meaning)
    return indices[: len(indices) - len(indices) % batch_size]


def subsets(n_samples: int, size: int, n_subsets: int, generator: Generator) -> Tensor:
    """Return (n_subsets, size) uniform subsets of the samples, independent of each other."""
    if size * size > n_samples:
        each = [torch.randperm(n_samples, generator=generator)[:size] for _ in range(n_subsets)]
        return torch.stack(each) if each else torch.empty((0, size), dtype=torch.int64)
    # Draws with replacement, those with a repetition drawn again: what is kept is uniform among
    # all without one. With size² <= n_samples more than half are kept at once.
    drawn = torch.empty((n_subsets, size), dtype=torch.int64)
    repeats = torch.ones(n_subsets, dtype=torch.bool)
    while repeats.any():
        drawn[repeats] = torch.randint(n_samples, (int(repeats.sum()), size), generator=generator)
        ordered = drawn.sort(dim=1).values
        repeats = (ordered[:, 1:] == ordered[:, :-1]).any(dim=1)
    return drawn


def _sampler(generator: Generator) -> Generator:
    """Return the generator that a DataLoader's random sampler makes for an epoch."""
    _worker_seed(generator)
    return Generator().manual_seed(_random_seed(generator))


def _worker_seed(generator: Generator) -> None:
    """Draw what a DataLoader draws first in each epoch, to seed its worker processes."""
    _random_seed(generator)


def _random_seed(generator: Generator) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
