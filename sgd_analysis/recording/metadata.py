"""What a run was made with, in terms that a file can hold."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from sgd_analysis._version import __version__


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
