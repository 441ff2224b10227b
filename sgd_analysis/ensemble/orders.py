"""The index order of every epoch for many seeds at once, one generator a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, repeat

import numpy as np
import torch
from torch import Generator, Tensor

from sgd_analysis.orders import Order, checked_epochs, cyclic, reshuffle, shuffle_once

_BLOCK = 64
"""So many permutations are drawn, then laid side by side while the processor's caches hold them."""


def epochs_of_all(
    order: Order, n_samples: int, batch_size: int, seeds: Sequence[int], n_epochs: int
) -> Iterator[Tensor]:
    """Visit the samples in one order with each of many seeds.

    Column r is what `order` yields with a generator seeded by `seeds[r]`, index by index.

    Args:
        order: any order.
        n_samples: the number of samples N.
        batch_size: passed on to the order.
        seeds: one seed a replica.
        n_epochs: the number of epochs.

    Yields:
        (n_indices, n_replicas) sample indices, replicas side by side in memory; one tensor an
        epoch, overwritten by the next.

    Raises:
        ValueError: if the order does not yield indices of samples, or not equally many with each
            seed.
    """
    if order is cyclic:
        yield from repeat(torch.arange(n_samples)[:, None].expand(-1, len(seeds)), n_epochs)
    elif order is shuffle_once:
        # A fixed order draws more numbers, but only a DataLoader's workers would ever see them.
        yield from repeat(next(_reshuffled(n_samples, seeds, 1)), n_epochs)
    elif order is reshuffle:
        yield from _reshuffled(n_samples, seeds, n_epochs)
    else:
        yield from islice(_one_by_one(order, n_samples, batch_size, seeds), n_epochs)


def widened(epochs: Iterator[Tensor], n_columns: int) -> Iterator[Tensor]:
    """Repeat the last column of each epoch's indices.

    Args:
        epochs: (n_indices, n_replicas) index tensors.
        n_columns: how many columns there should be, at least n_replicas.

    Yields:
        (n_indices, n_columns) index tensors.
    """
    for indices in epochs:
        n_more = n_columns - indices.shape[1]
        yield torch.cat([indices, indices[:, -1:].expand(-1, n_more)], dim=1) if n_more else indices


def _reshuffled(n_samples: int, seeds: Sequence[int], n_epochs: int) -> Iterator[Tensor]:
    # `reshuffle`, written out: it draws two numbers an epoch from the seed's generator, of which
    # the second seeds the epoch's own. One generator, seeded anew, stands for all of them.
    generator = Generator()
    drawn = torch.empty((len(seeds), 2 * n_epochs), dtype=torch.int64)
    for seed, numbers in zip(seeds, drawn, strict=True):
        numbers.random_(generator=generator.manual_seed(seed))
    columns = torch.empty((n_samples, len(seeds)), dtype=torch.int32)
    blocks = columns.split(_BLOCK, dim=1)
    permutations = torch.empty((_BLOCK, n_samples), dtype=torch.int32)
    rows = permutations.unbind()
    for epoch_seeds in drawn[:, 1::2].T:
        for seeds_of_block, block in zip(epoch_seeds.split(_BLOCK), blocks, strict=True):
            for seed, row in zip(seeds_of_block.tolist(), rows, strict=False):
                generator.manual_seed(seed)
                torch.randperm(n_samples, generator=generator, dtype=torch.int32, out=row)
            # Numpy's copy: torch's would be split between threads, which then wait for more.
            np.copyto(block.numpy(), permutations[: block.shape[1]].T.numpy())
        yield columns


def _one_by_one(
    order: Order, n_samples: int, batch_size: int, seeds: Sequence[int]
) -> Iterator[Tensor]:
    generators = [Generator().manual_seed(seed) for seed in seeds]
    visits = [checked_epochs(order, n_samples, batch_size, each) for each in generators]
    while True:
        columns = [next(visit) for visit in visits]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise ValueError(
                "order must yield equally many indices with each seed, so that all replicas step "
                f"together, got epochs of {sorted(lengths)} indices: use train(seed=...) instead"
            )
        yield torch.stack(columns, dim=1)
