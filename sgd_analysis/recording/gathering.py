"""The histories of several processes, put together to that of the model they train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import quiet
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
    first, n_ranks = ranks[0], len(ranks)
    denominator = np.sum([rank.denominator for rank in ranks], axis=0)

    def mean(name: str) -> NDArray[np.float64]:
        if first.divisor is not None:
            return np.asarray(np.sum([getattr(r, name) for r in ranks], axis=0) / n_ranks)
        sums = [rank.denominator * getattr(rank, name) for rank in ranks]
        return np.asarray(np.sum(sums, axis=0) / denominator)

    overridden = any(rank.own_objective is not None for rank in ranks)
    together = replace(
        first,
        loss=mean("loss"),
        n_samples=np.sum([rank.n_samples for rank in ranks], axis=0),
        denominator=denominator,
        own_objective=mean("objective") if overridden else None,
        divisor=None if first.divisor is None else mean("divisor"),
        local_gradients=None,
        ranks=tuple(ranks),
    )
    return unsharded(together) if "shards" in first.metadata else together
