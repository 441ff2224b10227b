"""The histories of several processes, put together to that of the model they train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import quiet
from sgd_analysis.history.fingerprints import Fingerprints
from sgd_analysis.history.history import History
from sgd_analysis.recording.processes import distributed
from sgd_analysis.recording.shards import unsharded


def gather(history: History) -> History | None:
    """Return on rank 0 the history of all processes together, on the others None.

    Raises:
        RuntimeError: if the ranks have recorded different numbers of steps or epochs.
    """
    group = distributed()
    if group is None or group.get_world_size() == 1:
        return history
    counts: list[Any] = [None] * group.get_world_size()
    group.all_gather_object(counts, (history.n_steps, history.n_epochs))
    if len(set(counts)) > 1:
        raise RuntimeError(
            "the ranks must have recorded the same steps and epochs to be gathered, got "
            f"(n_steps, n_epochs) {counts}"
        )
    ranks: list[Any] | None = [None] * len(counts) if group.get_rank() == 0 else None
    group.gather_object(history, ranks)
    return None if ranks is None else _together(ranks)


@quiet
def _together(ranks: list[History]) -> History:
    """Return the global history: size-weighted means over the ranks, or plain means of sums."""
    first = ranks[0]
    is_sharded = "shards" in first.metadata
    counted = _of_different_batches(ranks) if is_sharded else ranks
    are_means = first.divisor is None
    objective = _mean(counted, "objective")  # the gradient is the plain mean, whatever the sizes
    loss = _size_weighted_mean(counted, "loss") if are_means else _mean(counted, "loss")
    is_loss = np.allclose(objective, loss, rtol=1e-12, atol=0, equal_nan=True)
    divisor = None if are_means else _mean(counted, "divisor")
    together = replace(
        first,
        loss=loss,
        n_samples=np.sum([rank.n_samples for rank in counted], axis=0),
        denominator=np.sum([rank.denominator for rank in counted], axis=0),
        own_objective=None if is_loss else objective,
        divisor=divisor,
        size_weighting=_size_weighting(counted, divisor),
        local_gradients=None,
        fingerprints=_interleaved([rank.fingerprints for rank in counted]),
        ranks=tuple(ranks),
    )
    return unsharded(together) if is_sharded else together


def _mean(ranks: list[History], name: str) -> NDArray[np.float64]:
    return np.asarray(np.mean([getattr(rank, name) for rank in ranks], axis=0))


def _size_weighted_mean(ranks: list[History], name: str) -> NDArray[np.float64]:
    sums = [rank.denominator * getattr(rank, name) for rank in ranks]
    return np.asarray(np.sum(sums, axis=0) / np.sum([r.denominator for r in ranks], axis=0))


def _size_weighting(
    ranks: list[History], divisor: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    if all(rank.size_weighting is None for rank in ranks):
        return None
    weighted, as_is = (
        _size_weighted_mean(ranks, name) for name in ("size_weighted_loss", "batch_loss")
    )
    return (weighted - as_is) * (1 if divisor is None else divisor)


def _interleaved(ranks: list[Fingerprints | None]) -> Fingerprints | None:
    """Return what the steps of all ranks have seen, of each step one rank after the other."""
    known = [rank for rank in ranks if rank is not None]
    if not known:
        return None
    n_kept = min(len(rank.ends) for rank in known)
    ends = np.array([rank.ends[:n_kept] for rank in known])
    by_step = [
        values
        for each in zip(*(np.split(r.values, r.ends)[:n_kept] for r in known), strict=True)
        for values in each
    ]
    values = np.concatenate(by_step) if by_step else np.empty(0, np.uint64)
    return Fingerprints(values, ends.sum(axis=0))


def _of_different_batches(ranks: list[History]) -> list[History]:
    """Return one of each group of ranks that have seen the same batches, as in tensor parallel.

    Nothing about a parameter says which dimension of its mesh the batches are dealt out along.
    That all losses of a run agree says it: those of different batches do not.
    """
    different: list[History] = []
    for rank in ranks:
        if not any(_are_of_the_same_batches(rank, other) for other in different):
            different.append(rank)
    return different


def _are_of_the_same_batches(one: History, other: History) -> bool:
    if np.isnan(one.loss).all():  # they were not seen, and say nothing
        return False
    return np.allclose(one.loss, other.loss, rtol=1e-6, atol=0, equal_nan=True) and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("n_samples", "denominator")
    )
