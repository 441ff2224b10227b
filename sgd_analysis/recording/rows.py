"""The rows of a run while it is recorded, within a budget of memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import Value, quiet
from sgd_analysis.history.history import History
from sgd_analysis.history.path_gradient import as_means, weighted_sum
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.recording.attribution import StepLoss
from sgd_analysis.recording.columns import Columns
from sgd_analysis.recording.gradients import n_bytes, norm
from sgd_analysis.recording.kept import Kept
from sgd_analysis.recording.path_sum import PathSum


class Rows:
    """One row a step: the columns, and the vectors as far as they are wanted and fit.

    Args:
        gradients: "auto" keeps whole vectors while they fit, "norms" only their norms and the
            sum of the present epoch, "none" nothing of them.
        memory: the bytes that all kept vectors together may take.
        weights: whether to keep the weights, too.
        local: whether each step has a local gradient besides the averaged one.
        history: what the rows begin with.
    """

    def __init__(
        self,
        gradients: str,
        memory: int,
        *,
        weights: bool,
        local: bool,
        history: History | None = None,
    ) -> None:
        self.full_at: int | None = None  # the first step whose vectors did not fit
        self._memory = memory
        self._columns = Columns(local_norm=gradients != "none" and local)
        self._gradients = Kept(missing=0.0) if gradients != "none" else None
        self._local = Kept(missing=0.0) if gradients != "none" and local else None
        self._weights = Kept(missing=math.nan) if weights else None
        self._whole = gradients == "auto"
        self._n_kinds = (1 + local) * self._whole + weights
        self._path: PathSum | None = None
        self._path_before: NDArray[Any] | None = None
        self._path_epoch = -1
        self._path_end = 0  # the step after the last one in it; -1 while one is added
        self._path_norms: dict[int, float] = {}  # by epoch, where there is one
        self._parameters: Sequence[Tensor] = ()
        self._on_cpu = True
        self._room = 0  # how many steps' vectors fit
        if history is not None and history.n_steps:
            self._begin_with(history)

    @property
    def n_steps(self) -> int:
        """The number of rows."""
        return self._columns.n_rows

    @property
    def n_epochs(self) -> int:
        """The number of finished epochs."""
        return self._columns.n_ended

    @property
    def _n_whole(self) -> int:
        """The number of rows whose vectors were kept whole, of the kinds that are."""
        n_steps = self._columns.n_rows
        return n_steps if self.full_at is None else min(n_steps, self.full_at)

    @property
    def steps_in_epoch(self) -> int:
        """The number of rows of the epoch that is not finished yet."""
        return self._columns.n_rows - self._columns.first_row

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say over which parameters the vectors of the steps that follow go."""
        size = n_bytes(parameters)
        a_step = self._n_kinds * size
        self._room = self._memory // a_step if a_step else sys.maxsize
        if self._parameters and self.full_at is None and 2 * self.n_steps > self._room:
            # For vectors of another length or dtype those kept so far would have to be copied.
            self.full_at = self.n_steps
        for kept in self._kinds():
            kept.lay_out(parameters, self._n_whole, self._room)
        self._parameters = parameters
        self._on_cpu = all(parameter.is_cpu for parameter in parameters)

    def append(
        self,
        seen: StepLoss,
        step_sizes: Sequence[Value],
        gradients: Sequence[Tensor | None],
        local: Sequence[Tensor | None] = (),
        skipped: Value = False,
    ) -> None:
        """Add the row of a step that is about to be made."""
        n_steps = self._columns.n_rows
        if n_steps >= self._room and self.full_at is None:
            self.full_at = n_steps
        fits = self.full_at is None
        keeps = fits and self._whole
        marks: list[tuple[str, Value]] = [] if skipped is False else [("skipped", skipped)]
        if seen.objective is not None:
            marks.append(("objective", seen.objective))
        if seen.divisor is not None:
            marks.append(("divisor", seen.divisor))
        # What may fail, for want of memory or by an interrupt, comes first: the row is there when
        # the columns have it, and no half of one is left behind.
        if self._weights is not None and fits:
            self._weights.write(n_steps, self._parameters)
        if self._local is not None:
            if keeps:
                self._local.write(n_steps, local)
            else:
                marks.append(("local_norm", norm(local)))
        if self._gradients is not None:
            if keeps:  # its norm is computed with those of many others, later
                self._gradients.write(n_steps, gradients)
            else:
                marks.append(("norm", norm(gradients)))
                self._add_to_path(n_steps, gradients, _weight(seen), skipped)
        row = (seen.loss, seen.n_samples, seen.denominator, *step_sizes)
        self._columns.append(row, marks)

    @quiet
    def end_epoch(self) -> None:
        """Finish an epoch, and bring what is on a device into main memory."""
        sums_path = self._path_epoch == self.n_epochs
        if sums_path or not self._on_cpu:  # the rest waits until there is more of it
            self._resolve()
        if sums_path:
            self._path_norms[self.n_epochs] = self._last_path_norm()
        self._columns.end_epoch()

    @quiet
    def history(self, metadata: Mapping[str, Any]) -> History:
        """Return what was recorded so far, in views that later rows do not change."""
        self._resolve()
        columns = self._columns
        gradients = local = None
        if self._gradients is not None:
            path = (self._all_path_norms(), self._last_path()) if self._path_epoch >= 0 else ()
            gradients = Vectors(self._gradients.rows, columns["norm"], *path)
        if self._local is not None:
            local = Vectors(self._local.rows, columns["local_norm"])
        return History(
            loss=columns["loss"],
            n_samples=columns["n_samples"],
            epoch=columns["epoch"],
            step_size=columns["step_size"],
            denominator=columns["denominator"],
            skipped=columns["skipped"],
            n_epochs=self.n_epochs,
            own_objective=columns["objective"] if "objective" in columns else None,
            divisor=columns["divisor"] if "divisor" in columns else None,
            gradients=gradients,
            local_gradients=local,
            kept_weights=None if self._weights is None else self._weights.rows,
            metadata=metadata,
        )

    def _begin_with(self, history: History) -> None:
        names = {"loss", "n_samples", "denominator", "skipped"}
        columns: dict[str, NDArray[Any]] = {name: getattr(history, name) for name in names}
        if history.own_objective is not None:
            columns["objective"] = history.own_objective
        if history.divisor is not None:
            columns["divisor"] = history.divisor
        if self._gradients is not None and history.gradients is not None:
            self._gradients = Kept(0.0, history.gradients.kept)
            columns["norm"] = history.gradients.norm
            if history.gradients.path_norm is not None:
                self._path_norms = dict(enumerate(history.gradients.path_norm.tolist()))
        if self._local is not None and history.local_gradients is not None:
            self._local = Kept(0.0, history.local_gradients.kept)
            columns["local_norm"] = history.local_gradients.norm
        if self._weights is not None and history.kept_weights is not None:
            self._weights = Kept(math.nan, history.kept_weights)
        # Only the vectors of the first steps are kept: where some are missing, no more can follow.
        kinds = [self._weights, *([self._gradients, self._local] if self._whole else [])]
        n_kept = [len(kind.rows) for kind in kinds if kind is not None]
        if n_kept and min(n_kept) < history.n_steps:
            self.full_at = min(n_kept)
        self._columns.extend(columns, history.step_size, history.epoch, history.n_epochs)
        if history.gradients is not None and history.gradients.last_path is not None:
            self._path_epoch = int(history.epoch[-1]) - self._columns.first_epoch
            self._path_end = history.n_steps
            kept, weight = self._path_of_kept()
            self._path_before = history.gradients.last_path * weight
            if kept is not None:
                self._path_before[: len(kept)] -= kept

    def _resolve(self) -> None:
        self._columns.resolve()
        for kept in self._kinds():
            kept.store(self._n_whole)
        if self._gradients is not None:
            self._gradients.measure(self._columns["norm"])
        if self._local is not None:
            self._local.measure(self._columns["local_norm"])

    def _kinds(self) -> list[Kept]:
        kinds = (self._gradients, self._local, self._weights)
        return [kept for kept in kinds if kept is not None]

    def _add_to_path(
        self, step: int, gradients: Sequence[Tensor | None], weight: Value, skipped: Value
    ) -> None:
        if self._path_epoch != self.n_epochs:
            self._path_end = -1
            self._path = self._path_before = None  # freed before the next one is made
            self._path = PathSum(self._parameters)
            self._path_epoch, self._path_end = self.n_epochs, step
        elif self._path is None:
            self._path = PathSum(self._parameters, self._path_before)
        if self._path_end != step:  # an interrupt has left half of a step in it, or one too many
            self._path.spoil()
        self._path_end = -1
        if isinstance(skipped, Tensor):
            weight = torch.where(skipped, 0.0, weight)
            gradients = [g if g is None else torch.where(skipped, 0.0, g) for g in gradients]
        if not (skipped is True or (not isinstance(weight, Tensor) and weight == 0)):
            self._path.add(gradients, self._parameters, weight)
        self._path_end = step + 1

    def _all_path_norms(self) -> NDArray[np.float64]:
        return np.array([self._path_norms.get(e, math.nan) for e in range(self.n_epochs)])

    def _last_path(self) -> NDArray[Any]:
        """Return the path gradient of the epoch that was last summed up along the way."""
        if not self._has_whole_path():
            return np.full(sum(p.numel() for p in self._parameters), math.nan)
        kept, weight = self._path_of_kept()
        path = np.array(self._path_before) if self._path is None else self._path.vector()
        if kept is not None:
            path[: len(kept)] += kept  # which may be from before a parameter was added
        path /= weight
        return path

    def _last_path_norm(self) -> float:
        kept, weight = self._path_of_kept()
        if self._path is None or kept is not None or not self._has_whole_path():
            return float(np.linalg.norm(self._last_path()))
        return float(self._path.norm() / weight)  # without another vector

    def _has_whole_path(self) -> bool:
        """Return whether the last path holds the steps that have a row, and no other."""
        return bool(self._path_end == self._columns.rows_of(self._path_epoch).stop)

    def _path_of_kept(self) -> tuple[NDArray[Any] | None, float]:
        """Return what gradients kept whole add to that path, and the weight of all its steps."""
        steps = self._columns.rows_of(self._path_epoch)
        used = ~self._columns["skipped"][steps]
        weights = np.where(used, self._columns["denominator"][steps], 0.0)
        total = float(weights.sum())
        rows = None if self._gradients is None else self._gradients.rows[steps]
        if rows is None or not len(rows):
            return None, total
        divisor = self._columns["divisor"][steps] if "divisor" in self._columns else None
        weights = as_means(weights, divisor)
        return weighted_sum(weights[: len(rows)], rows), total


def _weight(seen: StepLoss) -> Value:
    """Return the weight of a step's gradient in the sum of those of its batches' mean losses."""
    return seen.denominator if seen.divisor is None else seen.denominator / seen.divisor
