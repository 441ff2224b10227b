"""The batches of a loader: in lists that fit into memory, in runs of the same shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler

from sgd_analysis._validation import kind_of

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


def in_lists(loader: Iterable[Any], row_bytes: int) -> Iterator[list[Batch]]:
    """Yield a loader's batches in lists, as many at once as fit into the workspace.

    Args:
        loader: an iterable of pairs (inputs, targets).
        row_bytes: how many bytes the gradient of one batch takes.

    Yields:
        At least one batch at a time.

    Raises:
        TypeError: if a batch is no pair.
    """
    batches = iter(loader)
    most = _MOST_FROM_WORKERS if getattr(loader, "num_workers", 0) else _MOST_AT_ONCE
    while first := list(itertools.islice(batches, 1)):
        _check_pairs(first)
        n_at_once = min(_n_in_workspace(first[0], row_bytes), most)
        rest = list(itertools.islice(batches, n_at_once - 1))
        _check_pairs(rest)
        yield first + rest


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


def _check_pairs(batches: list[Any]) -> None:
    # Over thousands of batches of one sample these checks take as long as the gradients, save in
    # this way.
    if set(map(type, batches)) <= {tuple, list} and set(map(len, batches)) <= {2}:
        return
    for batch in batches:
        is_sequence = isinstance(batch, (tuple, list))
        if not is_sequence or len(batch) != 2:
            given = f"{len(batch)} items" if is_sequence else kind_of(batch)
            raise TypeError(f"loader must yield pairs (inputs, targets), one a batch, got {given}")


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
