"""Parameters that several processes share, each of which has its shard (DTensors)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis.history.history import History
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.recording.gradients import on_this_process
from sgd_analysis.recording.processes import distributed

# Of one parameter its shape, that of the part this process has, where that begins, and whether
# this process answers for it: a plain dictionary, as it goes into the metadata of a history.
Shard: TypeAlias = dict[str, Any]


def is_sharded(groups: Iterable[dict[str, Any]]) -> bool:
    """Return whether a parameter is a DTensor, of which each process has its shard."""
    return any(hasattr(p, "to_local") for group in groups for p in group["params"])


def shards_of(parameters: Iterable[Tensor]) -> list[Shard]:
    """Return which part of each parameter this process has, and whether it answers for it."""
    return [_shard(parameter) for parameter in parameters]


def own_shards(gradients: Iterable[Tensor | None], shards: Iterable[Shard]) -> list[Tensor | None]:
    """Return this process's parts of gradients; None where another one answers for the same."""
    return [
        on_this_process(gradient) if gradient is not None and shard["answers"] else None
        for gradient, shard in zip(gradients, shards, strict=True)
    ]


def unsharded(history: History) -> History:
    """Return a gathered history with the whole gradients and weights of sharded parameters."""
    ranks = history.ranks
    gradients = [rank.gradients for rank in ranks if rank.gradients is not None]
    weights = [rank.kept_weights for rank in ranks if rank.kept_weights is not None]
    return replace(
        history,
        gradients=_whole_gradients(gradients, ranks) if gradients else None,
        kept_weights=_whole(weights, ranks),
        also={name: _norm_of_all([rank.also[name] for rank in ranks]) for name in history.also},
        metadata=_whole_metadata(history.metadata),
    )


def _whole_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    whole = dict(metadata)
    shapes = [shard["shape"] for shard in whole.pop("shards")]
    whole["parameters"] = dict(zip(metadata["parameters"], map(math.prod, shapes), strict=True))
    return whole


def _shard(parameter: Any) -> Shard:
    if not hasattr(parameter, "to_local"):
        shape = list(parameter.shape)
        first = distributed().get_rank() == 0
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


def _whole_gradients(parts: Sequence[Vectors], ranks: Sequence[History]) -> Vectors:
    path_norms = [part.path_norm for part in parts if part.path_norm is not None]
    paths = _whole([part.last_path[None] for part in parts if part.last_path is not None], ranks)
    return Vectors(
        kept=_assembled([part.kept for part in parts], ranks),
        norm=_norm_of_all([part.norm for part in parts]),
        path_norm=_norm_of_all(path_norms) if len(path_norms) == len(ranks) else None,
        last_path=None if paths is None else paths[0],
    )


def _norm_of_all(norms: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    n_rows = min(map(len, norms))
    norms = [some[:n_rows] for some in norms]
    return np.asarray(np.sqrt(np.sum(np.square(norms), axis=0)))


def _whole(rows: Sequence[NDArray[Any]], ranks: Sequence[History]) -> NDArray[Any] | None:
    """Return whole vectors (n, n_parameters) if every rank has kept its part of them."""
    return _assembled(rows, ranks) if len(rows) == len(ranks) else None


def _assembled(rows: Sequence[NDArray[Any]], ranks: Sequence[History]) -> NDArray[Any]:
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
