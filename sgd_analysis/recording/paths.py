"""The path gradients of epochs whose gradients are not all kept whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.history.path_gradient import weighted_sum
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.recording.block_sum import BlockSum, path_weights, sums_blocks
from sgd_analysis.recording.columns import Columns
from sgd_analysis.recording.gradients import norm
from sgd_analysis.recording.kept import KeptGradients
from sgd_analysis.recording.path_sum import PathSum
from sgd_analysis.recording.step_loss import StepLoss


class Paths:
    """The path gradient of one epoch at a time, summed up along it, and the norms of all.

    Args:
        columns: what is recorded of the steps besides; their gradients' norms go there.
        kept: the gradients of the first steps, which the sums do without.
    """

    def __init__(self, columns: Columns, kept: KeptGradients) -> None:
        self._columns, self._kept = columns, kept
        self._parameters: Sequence[Tensor] = ()
        self._sum: PathSum | BlockSum | None = None
        self._before: NDArray[Any] | None = None  # what the sum begins with
        self._epoch = -1  # of that sum
        self._end = 0  # the step after the last one in it; -1 while one is added
        self._norms = np.empty(0)  # by epoch; nan where there is none
        self._known = _Known()

    @property
    def has_present_epoch(self) -> bool:
        """Whether the epoch that is not finished yet is summed up."""
        return self._epoch == self._columns.n_ended

    def begin_with(self, gradients: Vectors, epoch: int) -> None:
        """Begin with an earlier recording, of which that was the last epoch."""
        if gradients.path_norm is not None:
            self._norms = np.array(gradients.path_norm)
        if gradients.last_path is not None:
            self._epoch, self._end = epoch, self._columns.n_rows
            kept, weight = self._of_kept()
            self._before = gradients.last_path * weight
            if kept is not None:
                self._before[: len(kept)] -= kept

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say over which parameters the gradients of the steps that follow go."""
        if isinstance(self._sum, BlockSum):
            n_steps = self._columns.n_rows
            self._sum.store(n_steps)
            self._before, self._sum, self._end = self._sum.vector(), None, n_steps
        self._parameters = parameters

    def add(
        self, step: int, gradients: Sequence[Tensor | None], seen: StepLoss, skipped: Value
    ) -> Value | None:
        """Add the gradient of a step of the present epoch, unless it is skipped.

        Returns:
            Its norm; None if that is measured by `store`.
        """
        if self._sum is None or not self.has_present_epoch:
            self._begin(step)
        if isinstance(self._sum, BlockSum):
            self._sum.write(step, gradients)
            return None
        assert self._sum is not None
        size = norm(gradients)
        if self._end != step:  # an interrupt has left half of a step in it, or one too many
            self._sum.spoil()
        self._end = -1
        if skipped is not True:
            self._add(self._sum, gradients, seen.weight, skipped)
        self._end = step + 1
        return size

    def _add(
        self,
        total: PathSum,
        gradients: Sequence[Tensor | None],
        weight: Value,
        skipped: Value,
    ) -> None:
        if isinstance(skipped, Tensor):
            weight = torch.where(skipped, 0.0, weight)
            gradients = [g if g is None else torch.where(skipped, 0.0, g) for g in gradients]
        if isinstance(weight, Tensor) or weight != 0:
            total.add(gradients, self._parameters, weight)

    def store(self, n_steps: int) -> None:
        """Measure the gradients of the first n_steps that still wait for it."""
        if isinstance(self._sum, BlockSum):
            self._sum.store(n_steps)

    def end_epoch(self) -> None:
        """Note the norm of the present epoch's path gradient."""
        self._reserve(self._epoch + 1)
        self._norms[self._epoch] = self._last_norm()

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[Any]] | tuple[()]:
        """Return the norms by finished epoch, and the last path gradient; nothing without one."""
        if self._epoch < 0:
            return ()
        n_ended = self._columns.n_ended
        self._reserve(n_ended)
        return self._norms[:n_ended], self._last()

    def _begin(self, step: int) -> None:
        """Begin with the sum of the present epoch, or go on with it."""
        if not self.has_present_epoch:
            self._end = -1
            self._sum = self._before = None  # freed before the next one is made
        first = step if self._end < 0 else self._end
        if sums_blocks(self._parameters):
            self._sum = BlockSum(self._parameters, self._columns, first, self._before)
        else:
            self._sum = PathSum(self._parameters, self._before)
        self._epoch, self._end = self._columns.n_ended, first

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
        end = self._sum.n_stored if isinstance(self._sum, BlockSum) else self._end
        return bool(end == self._columns.rows_of(self._epoch).stop)

    def _of_kept(self) -> tuple[NDArray[Any] | None, float]:
        """Return what gradients kept whole add to the sum, and the weight of all its steps."""
        steps = self._columns.rows_of(self._epoch)
        known = self._known if self._known.epoch == self._epoch else _Known(end=steps.start)
        kept = known.kept
        rows = self._kept.rows[steps]
        if kept is None and len(rows):
            weights, _ = path_weights(self._columns, slice(steps.start, steps.start + len(rows)))
            kept = weighted_sum(weights, rows)
        _, weight = path_weights(self._columns, slice(known.end, steps.stop))
        self._known = _Known(self._epoch, steps.stop, kept, known.weight + weight)
        return kept, self._known.weight

    def _reserve(self, n_epochs: int) -> None:
        if n_epochs > len(self._norms):
            grown = np.full(max(2 * n_epochs, 16), math.nan)
            grown[: len(self._norms)] = self._norms
            self._norms = grown


class _Known(NamedTuple):
    """What has been found out of an epoch's steps before the step `end`."""

    epoch: int = -1
    end: int = 0
    kept: NDArray[Any] | None = None
    weight: float = 0.0
