"""Several processes: each one's own gradients before they are averaged, and histories together."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import quiet
from sgd_analysis.history.history import History
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.recording.gradients import on_this_process


def has_several_processes() -> bool:
    """Return whether this process is one of several that train together."""
    distributed = _distributed()
    return distributed is not None and distributed.get_world_size() > 1


class LocalGradients:
    """This process's own gradients, copied as they are accumulated, before they are averaged.

    Args:
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(self, guard: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
        self._hook = guard(self._copy)
        self._latest: dict[Tensor, Tensor] = {}
        self._handles: dict[Tensor, Any] = {}

    def watch(self, parameters: Sequence[Tensor]) -> None:
        """Watch these parameters from their next backward pass on."""
        for parameter in parameters:
            if parameter.requires_grad and parameter not in self._handles:
                handle = parameter.register_post_accumulate_grad_hook(self._hook)
                self._handles[parameter] = handle

    def take(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the gradients accumulated for the step that is made now, and forget them."""
        latest, self._latest = self._latest, {}
        return [latest.get(parameter) for parameter in parameters]

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles.values():
            handle.remove()
        self._handles, self._latest = {}, {}

    def _copy(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._latest[parameter] = parameter.grad.detach().clone()


def gather(history: History) -> History | None:
    """Return on rank 0 the history of all processes together, on the others None.

    Raises:
        RuntimeError: if the ranks have recorded different numbers of steps or epochs.
    """
    distributed = _distributed()
    if distributed is None or distributed.get_world_size() == 1:
        return history
    counts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(counts, (history.n_steps, history.n_epochs))
    if len(set(counts)) > 1:
        raise RuntimeError(
            "the ranks must have recorded the same steps and epochs to be gathered, got "
            f"(n_steps, n_epochs) {counts}"
        )
    is_first = distributed.get_rank() == 0
    ranks: list[Any] | None = [None] * len(counts) if is_first else None
    distributed.gather_object(history, ranks)
    return None if ranks is None else _together(ranks)


def is_sharded(groups: Iterable[dict[str, Any]]) -> bool:
    """Return whether a parameter is a DTensor, of which each process has its shard."""
    return any(hasattr(p, "to_local") for group in groups for p in group["params"])


def shards_of(parameters: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Return which part of each parameter this process has, and whether it answers for it."""
    return [_shard(parameter) for parameter in parameters]


def own_shards(
    gradients: Iterable[Tensor | None], shards: list[dict[str, Any]]
) -> list[Tensor | None]:
    """Return this process's parts of gradients; None where another one answers for the same."""
    return [
        on_this_process(gradient) if gradient is not None and shard["answers"] else None
        for gradient, shard in zip(gradients, shards, strict=True)
    ]


def _shard(parameter: Any) -> dict[str, Any]:
    if not hasattr(parameter, "to_local"):
        shape = list(parameter.shape)
        first = _distributed().get_rank() == 0
        return {"shape": shape, "local": shape, "offset": [0] * len(shape), "answers": first}
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, placements = parameter.device_mesh, parameter.placements
    local, offset = compute_local_shape_and_global_offset(parameter.shape, mesh, placements)
    here = mesh.get_coordinate()
    first = here is not None and all(
        place == 0 or not placement.is_replicate()
        for place, placement in zip(here, placements, strict=True)
    )
    return {
        "shape": list(parameter.shape),
        "local": list(local),
        "offset": list(offset),
        "answers": first,
    }


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
    return _unsharded(together) if "shards" in first.metadata else together


def _unsharded(history: History) -> History:
    """Return a gathered history with the whole gradients and weights of sharded parameters."""
    ranks = history.ranks
    metadata = {name: value for name, value in history.metadata.items() if name != "shards"}
    gradients = weights = None
    if history.gradients is not None:
        parts = [rank.gradients for rank in ranks if rank.gradients is not None]
        paths = [part.path_norm for part in parts if part.path_norm is not None]
        last = [part.last_path[None] for part in parts if part.last_path is not None]
        gradients = Vectors(
            kept=_assembled([part.kept for part in parts], ranks),
            norm=_norm_of_all([part.norm for part in parts]),
            path_norm=_norm_of_all(paths) if len(paths) == len(ranks) else None,
            last_path=_assembled(last, ranks)[0] if len(last) == len(ranks) else None,
        )
    kept = [rank.kept_weights for rank in ranks if rank.kept_weights is not None]
    if len(kept) == len(ranks):
        weights = _assembled(kept, ranks)
    return replace(history, gradients=gradients, kept_weights=weights, metadata=metadata)


def _norm_of_all(norms: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.sum(np.square(norms), axis=0)))


def _assembled(rows: list[NDArray[Any]], ranks: Sequence[History]) -> NDArray[Any]:
    """Return whole vectors (n, n_parameters), made of what each rank has kept of them."""
    n_rows = min(map(len, rows))
    shapes = [shard["shape"] for shard in ranks[0].metadata["shards"]]
    whole = [np.zeros((n_rows, *shape), rows[0].dtype) for shape in shapes]
    for part, rank in zip(rows, ranks, strict=True):
        shards = rank.metadata["shards"]
        edges = np.cumsum([0, *(math.prod(shard["local"]) for shard in shards)])
        for into, shard, start, end in zip(whole, shards, edges, edges[1:], strict=False):
            if shard["answers"]:
                region = (
                    slice(o, o + n) for o, n in zip(shard["offset"], shard["local"], strict=True)
                )
                local = part[:n_rows, start:end].reshape(n_rows, *shard["local"])
                into[(slice(None), *region)] = local
    return np.concatenate([one.reshape(n_rows, math.prod(one.shape[1:])) for one in whole], axis=1)


def _distributed() -> Any:
    """Return torch.distributed if the program uses it; it is not imported here."""
    module: Any = sys.modules.get("torch.distributed")
    return module if module and module.is_available() and module.is_initialized() else None
