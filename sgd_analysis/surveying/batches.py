"""The batches of a loader: in lists that fit into memory, in runs of the same shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler

# Inputs and targets; or the whole batch twice, where it is no pair or the model takes it whole.
Batch: TypeAlias = tuple[Any, Any]

_WORKSPACE = 32 << 20  # bytes, about, for the batches that are evaluated at once
_MOST_AT_ONCE = 1 << 14
_MOST_FROM_WORKERS = 64  # each tensor from a worker process holds a file open
_FEWEST_AT_ONCE = 32  # of fewer, or of larger ones, the plain loop makes as short work


class Run(NamedTuple):
    """Consecutive batches, and their inputs and targets stacked where they have one shape."""

    inputs: list[Any]
    targets: list[Any]
    stacked: tuple[Tensor, Tensor] | None = None


def in_lists(
    loader: Iterable[Any], row_bytes: int, *, whole: bool = False
) -> Iterator[list[Batch]]:
    """Yield a loader's batches in lists, as many at once as fit into the workspace.

    Args:
        loader: an iterable of batches.
        row_bytes: how many bytes the gradient of one batch takes.
        whole: whether a pair, too, is one batch, and not inputs and targets.

    Yields:
        At least one batch at a time.

    Raises:
        TypeError: if a batch is a tuple and no pair, unless it is taken whole.
    """
    batches = iter(loader)
    most = _MOST_FROM_WORKERS if getattr(loader, "num_workers", 0) else _MOST_AT_ONCE
    while first := list(itertools.islice(batches, 1)):
        pairs = _as_pairs(first, whole=whole)
        n_at_once = min(_n_in_workspace(pairs[0], row_bytes), most)
        yield pairs + _as_pairs(list(itertools.islice(batches, n_at_once - 1)), whole=whole)


def in_runs(batches: list[Batch], *, stack: bool) -> Iterator[Run]:
    """Yield consecutive batches of the same shapes together, stacked if that is worth it."""
    inputs, targets = ([batch[which] for batch in batches] for which in (0, 1))
    if not stack or len(batches) < _FEWEST_AT_ONCE:
        yield Run(inputs, targets)
        return
    try:  # which is the fastest way to compare their shapes, too
        stacked = torch.stack(inputs), torch.stack(targets)
        if (stacked[0].dtype, stacked[1].dtype) == (inputs[0].dtype, targets[0].dtype):
            yield Run(inputs, targets, stacked)
            return
    except (RuntimeError, TypeError):
        pass
    runs = [list(run) for _, run in itertools.groupby(batches, key=_layout)]
    for run in runs:
        yield from in_runs(run, stack=len(runs) > 1 and _layout(run[0]) is not None)


def may_reorder(loader: object) -> bool:
    """Return whether a loader's next pass may give other batches, or nobody knows."""
    if isinstance(loader, Sequence):
        return False
    batch_sampler = getattr(loader, "batch_sampler", None)
    sampler = getattr(loader, "sampler", None) if batch_sampler is None else batch_sampler
    while type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return type(sampler) is not SequentialSampler


def length_of(batch: Any) -> int | None:
    """Return how many samples a batch has, if all its tensors and lists have one length."""
    parts: Iterable[Any] = [batch]
    if isinstance(batch, (Mapping, tuple, list)):
        parts = batch.values() if isinstance(batch, Mapping) else batch
    lengths = {len(part) for part in parts if has_length(part)}
    return lengths.pop() if len(lengths) == 1 else None


def has_length(part: Any) -> bool:
    """Return whether a part of a batch has one entry a sample, as far as can be seen."""
    return isinstance(part, (tuple, list)) or (isinstance(part, Tensor) and part.ndim > 0)


def _as_pairs(batches: list[Any], *, whole: bool) -> list[Batch]:
    # Over thousands of batches of one sample these checks take as long as the gradients, save in
    # this way.
    if not whole and set(map(type, batches)) <= {tuple, list} and set(map(len, batches)) <= {2}:
        return batches
    return [_as_pair(batch, whole=whole) for batch in batches]


def _as_pair(batch: Any, *, whole: bool) -> Batch:
    if whole or not isinstance(batch, (tuple, list)):
        return batch, batch
    if len(batch) != 2:
        raise TypeError(
            "loader must yield pairs (inputs, targets), one a batch, or with a criterion of "
            f"(output, batch) mappings or tensors, got {len(batch)} items: write the several "
            "inputs of a model as a mapping from the arguments of its forward, "
            "(({'x': x, 'lengths': n}, y) for x, n, y in loader)"
        )
    return batch[0], batch[1]


def _n_in_workspace(batch: Batch, row_bytes: int) -> int:
    if _layout(batch) is None:
        return 1
    # Gradients are there more than once, and in double precision, too; activations are taken
    # to be some times as large as what goes in.
    n_bytes: int = 4 * row_bytes + 16 * sum(part.nbytes for part in batch)
    return max(_WORKSPACE // n_bytes, 1)


def _layout(batch: Batch) -> tuple[Any, ...] | None:
    inputs, targets = batch
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        return None
    return inputs.shape, inputs.dtype, targets.shape, targets.dtype
