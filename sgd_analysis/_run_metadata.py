"""What a run was made with, and whether another run can continue it."""

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgd_analysis.history import History


def metadata_of(
    optimizer: torch.optim.Optimizer, criteria: tuple[nn.Module, ...]
) -> dict[str, Any]:
    """Return what the run is made with, in terms that JSON knows."""
    import sgd_analysis  # for its version; it imports this module

    reductions = {getattr(criterion, "reduction", "mean") for criterion in criteria} or {"mean"}
    plain = (bool, int, float, str, type(None))
    return {
        "reduction": reductions.pop() if len(reductions) == 1 else "mixed",
        "criteria": [type(criterion).__name__ for criterion in criteria],
        "optimizer": type(optimizer).__name__,
        "parameter_groups": [
            {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in group.items()
                if name != "params" and isinstance(value, (*plain, tuple))
            }
            for group in optimizer.param_groups
        ],
        "versions": {
            "sgd_analysis": sgd_analysis.__version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def check_continues(
    history: History | None, metadata: dict[str, Any], parameters: Sequence[Tensor]
) -> None:
    """Raise unless a run with this metadata and these parameters can continue a history.

    Raises:
        ValueError: if the reduction is another, or the history has more parameters.
    """
    if history is None or not history.n_steps:
        return
    before = history.metadata.get("reduction", "mean")
    if (before == "sum") != (metadata["reduction"] == "sum"):
        raise ValueError(
            f"history must continue with the reduction it began with, {before!r}, got criteria "
            f"with {metadata['reduction']!r}"
        )
    n_parameters = sum(parameter.numel() for parameter in parameters)
    for name in ("gradients", "local_gradients"):
        vectors = getattr(history, name)
        if vectors is not None and vectors.kept.shape[1] > n_parameters:
            raise ValueError(
                f"history must have at most the optimizer's {n_parameters} parameters, got "
                f"{vectors.kept.shape[1]}: is it another model's?"
            )
