"""What a run was made with, and whether another run can continue it."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from sgd_analysis._version import __version__
from sgd_analysis.history.history import History


def metadata_of(optimizer: torch.optim.Optimizer, criteria: tuple[object, ...]) -> dict[str, Any]:
    """Return what the run is made with, in terms that JSON knows."""
    return metadata(type(optimizer).__name__, optimizer.param_groups, criteria)


def metadata(
    optimizer: str, groups: list[dict[str, Any]], criteria: tuple[object, ...]
) -> dict[str, Any]:
    """Return what a run with an optimizer of that name and these parameter groups is made with."""
    reductions = {getattr(criterion, "reduction", "mean") for criterion in criteria}
    reductions = {reduction for reduction in reductions if isinstance(reduction, str)} or {"mean"}
    return {
        "reduction": reductions.pop() if len(reductions) == 1 else "mixed",
        "criteria": [type(criterion).__name__ for criterion in criteria],
        "optimizer": optimizer,
        "parameter_groups": [
            {name: _plain(value) for name, value in group.items() if name != "params"}
            for group in groups
        ],
        "versions": {
            "sgd_analysis": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _plain(value: Any) -> Any:
    """Return a setting as JSON can hold it."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def check_continues(
    history: History | None,
    metadata: dict[str, Any],
    groups: list[dict[str, Any]],
    *,
    gradients: str,
    weights: bool,
) -> None:
    """Raise unless a run with these settings can continue a history.

    Raises:
        ValueError: if the reduction is another, the history has more parameters, or something
            that was recorded would not be, or the other way round.
    """
    if history is None or not history.n_steps:
        return
    before = history.metadata.get("reduction", "mean")
    if (before == "sum") != (metadata["reduction"] == "sum"):
        raise ValueError(
            f"history must continue with the reduction it began with, {before!r}, got criteria "
            f"with {metadata['reduction']!r}"
        )
    if (history.gradients is None) != (gradients == "none"):
        began = "without" if history.gradients is None else "with"
        raise ValueError(
            f"history must continue {began} gradients, as it began, got gradients={gradients!r}"
        )
    if (history.kept_weights is None) == weights:
        began = "without" if history.kept_weights is None else "with"
        raise ValueError(
            f"history must continue {began} weights, as it began, got weights={weights}"
        )
    found = dict.fromkeys(parameter for group in groups for parameter in group["params"])
    n_parameters = sum(parameter.numel() for parameter in found)
    vectors = [history.kept_weights]
    for kind in (history.gradients, history.local_gradients):
        vectors += [] if kind is None else [kind.kept, kind.last_path]
    for vector in vectors:
        if vector is not None and vector.shape[-1] > n_parameters:
            raise ValueError(
                f"history must have at most the optimizer's {n_parameters} parameters, got "
                f"{vector.shape[-1]}: is it another model's?"
            )
