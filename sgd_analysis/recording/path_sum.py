"""The sum of an epoch's gradients while it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import Value, as_array
from sgd_analysis.recording.gradients import norm


class PathSum:
    """The sum of an epoch's gradients, each times its weight: O(n_parameters), however many.

    Args:
        parameters: the optimizer's parameters.
        path: (n_parameters,) what the sum begins with; zeros unless given.
    """

    def __init__(self, parameters: Sequence[Tensor], path: NDArray[Any] | None = None) -> None:
        self._sums = [_zeros(p) for p in parameters]
        if path is not None:
            sizes = [parameter.numel() for parameter in parameters]
            whole = np.pad(path, (0, sum(sizes) - len(path)))  # for parameters added since
            for total, part in zip(self._sums, torch.from_numpy(whole).split(sizes), strict=True):
                total.copy_(part.view_as(total))

    def add(
        self, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], weight: Value
    ) -> None:
        """Add one step's gradient times its weight."""
        self._sums += [_zeros(parameter) for parameter in parameters[len(self._sums) :]]
        totals, parts = self._with_sums(gradients)
        if isinstance(weight, Tensor):
            for total, part in zip(totals, parts, strict=True):
                total.add_(part * weight.to(part.device))
        elif parts:
            torch._foreach_add_(totals, parts, alpha=weight)

    def _with_sums(self, gradients: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
        totals, parts = [], []
        for total, part in zip(self._sums, gradients, strict=True):
            if part is not None:
                totals.append(total)
                parts.append(part.detach() if part.requires_grad else part)
        return totals, parts

    def spoil(self) -> None:
        """Make the sum nan: it is not that of the steps any more."""
        for total in self._sums:
            total.fill_(math.nan)

    def vector(self) -> NDArray[Any]:
        """Return a copy of the sum as one vector (n_parameters,), waiting for the device."""
        return np.concatenate([as_array(total).ravel() for total in self._sums])

    def norm(self) -> float:
        """Return the norm of the sum, waiting for the device."""
        return float(norm(self._sums))


def _zeros(like: Tensor) -> Tensor:
    """Return zeros to sum up in, in single precision at least."""
    dtype = like.dtype if like.itemsize >= 4 else torch.float32
    return torch.zeros(like.shape, dtype=dtype, device=like.device)
