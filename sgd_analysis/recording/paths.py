"""The path gradients of epochs whose gradients are not all kept whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.history.path_gradient import as_means, weighted_sum
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.recording.columns import Columns
from sgd_analysis.recording.kept import KeptGradients
from sgd_analysis.recording.path_sum import PathSum


class Paths:
    """The path gradient of one epoch at a time, summed up along it, and the norms of all.

    Args:
        columns: what is recorded of the steps besides.
        kept: the gradients of the first steps, which the sums do without.
    """

    def __init__(self, columns: Columns, kept: KeptGradients) -> None:
        self._columns, self._kept = columns, kept
        self._parameters: Sequence[Tensor] = ()
        self._sum: PathSum | None = None
        self._before: NDArray[Any] | None = None  # what an earlier recording has in its sum
        self._epoch = -1  # of that sum
        self._end = 0  # the step after the last one in it; -1 while one is added
        self._norms: dict[int, float] = {}  # by epoch, where there is one

    @property
    def has_present_epoch(self) -> bool:
        """Whether the epoch that is not finished yet is summed up."""
        return self._epoch == self._columns.n_ended

    def begin_with(self, gradients: Vectors, epoch: int) -> None:
        """Begin with an earlier recording, of which that was the last epoch."""
        if gradients.path_norm is not None:
            self._norms = dict(enumerate(gradients.path_norm.tolist()))
        if gradients.last_path is not None:
            self._epoch, self._end = epoch, self._columns.n_rows
            kept, weight = self._of_kept()
            self._before = gradients.last_path * weight
            if kept is not None:
                self._before[: len(kept)] -= kept

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say over which parameters the gradients of the steps that follow go."""
        self._parameters = parameters

    def add(
        self, step: int, gradients: Sequence[Tensor | None], weight: Value, skipped: Value
    ) -> None:
        """Add the gradient of a step of the present epoch, unless it is skipped."""
        if not self.has_present_epoch:
            self._end = -1
            self._sum = self._before = None  # freed before the next one is made
            self._sum = PathSum(self._parameters)
            self._epoch, self._end = self._columns.n_ended, step
        elif self._sum is None:
            self._sum = PathSum(self._parameters, self._before)
        if self._end != step:  # an interrupt has left half of a step in it, or one too many
            self._sum.spoil()
        self._end = -1
        if isinstance(skipped, Tensor):
            weight = torch.where(skipped, 0.0, weight)
            gradients = [g if g is None else torch.where(skipped, 0.0, g) for g in gradients]
        if not (skipped is True or (not isinstance(weight, Tensor) and weight == 0)):
            self._sum.add(gradients, self._parameters, weight)
        self._end = step + 1

    def end_epoch(self) -> None:
        """Note the norm of the present epoch's path gradient."""
        self._norms[self._epoch] = self._last_norm()

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[Any]] | tuple[()]:
        """Return the norms by finished epoch, and the last path gradient; nothing without one."""
        if self._epoch < 0:
            return ()
        epochs = range(self._columns.n_ended)
        return np.array([self._norms.get(epoch, math.nan) for epoch in epochs]), self._last()

    def _last(self) -> NDArray[Any]:
        """Return the path gradient of the epoch that was last summed up along the way."""
        if not self._is_whole():
            return np.full(sum(p.numel() for p in self._parameters), math.nan)
        kept, weight = self._of_kept()
        path = np.array(self._before) if self._sum is None else self._sum.vector()
        if kept is not None:
            path[: len(kept)] += kept  # which may be from before a parameter was added
        path /= weight
        return path

    def _last_norm(self) -> float:
        kept, weight = self._of_kept()
        if self._sum is None or kept is not None or not self._is_whole():
            return float(np.linalg.norm(self._last()))
        return float(self._sum.norm() / weight)  # without another vector

    def _is_whole(self) -> bool:
        """Return whether the sum holds the steps that have a row, and no other."""
        return bool(self._end == self._columns.rows_of(self._epoch).stop)

    def _of_kept(self) -> tuple[NDArray[Any] | None, float]:
        """Return what gradients kept whole add to the sum, and the weight of all its steps."""
        steps = self._columns.rows_of(self._epoch)
        used = ~self._columns["skipped"][steps]
        weights = np.where(used, self._columns["denominator"][steps], 0.0)
        total = float(weights.sum())
        rows = self._kept.rows[steps]
        if not len(rows):
            return None, total
        divisor = self._columns["divisor"][steps] if "divisor" in self._columns else None
        weights = np.where(weights == 0, 0.0, as_means(weights, divisor))
        return weighted_sum(weights[: len(rows)], rows), total
