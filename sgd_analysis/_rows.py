"""The rows of a run while it is recorded, within a budget of memory."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis import _gradients
from sgd_analysis._columns import Columns, Value
from sgd_analysis._gradients import Kept, PathSum
from sgd_analysis._vectors import Vectors, quiet, weighted_sum
from sgd_analysis.history import History


class Rows:
    """One row a step: the columns, and the vectors as far as they are wanted and fit.

    Args:
        gradients: "auto" keeps whole vectors while they fit, "norms" only their norms and the
            sum of the present epoch, "none" nothing of them.
        memory: the bytes that all kept vectors together may take.
        weights: whether to keep the weights, too.
        local: whether each step has a local gradient besides the averaged one.
        takes_sums: whether the losses are sums over the samples instead of means.
        history: what the rows begin with.
    """

    def __init__(
        self,
        gradients: str,
        memory: int,
        *,
        weights: bool,
        local: bool,
        takes_sums: bool,
        history: History | None = None,
    ) -> None:
        self.n_epochs = 0
        self.full_at: int | None = None  # the first step whose vectors did not fit
        self._memory, self._takes_sums = memory, takes_sums
        self._columns = Columns()
        self._gradients = Kept(missing=0.0) if gradients != "none" else None
        self._local = Kept(missing=0.0) if gradients != "none" and local else None
        self._weights = Kept(missing=math.nan) if weights else None
        self._whole = gradients == "auto"
        self._n_kinds = (1 + local) * self._whole + weights
        self._path: PathSum | None = None
        self._path_before: NDArray[Any] | None = None
        self._path_epoch = -1
        self._path_norms: list[float] = []
        self._first_epoch = 0
        self._first_row = 0  # of the present epoch
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
    def steps_in_epoch(self) -> int:
        """The number of rows of the epoch that is not finished yet."""
        return self.n_steps - self._first_row

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say over which parameters the vectors of the steps that follow go."""
        for kept in self._kinds():
            kept.lay_out(parameters)
        self._parameters = parameters
        self._on_cpu = all(parameter.is_cpu for parameter in parameters)
        size = _gradients.n_bytes(parameters)
        a_step = self._n_kinds * size
        self._room = self._memory // a_step if a_step else sys.maxsize

    def append(
        self,
        loss: Value,
        n_samples: Value,
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
        # What may fail, for want of memory, comes first: no half of a row is left behind.
        marks: list[tuple[str, Value]] = [] if skipped is False else [("skipped", skipped)]
        written: list[Kept] = []
        if self._weights is not None and fits:
            self._weights.write(self._parameters)
            written.append(self._weights)
        if self._local is not None:
            if keeps:
                self._local.write(local)
                written.append(self._local)
            else:
                marks.append(("local_norm", _gradients.norm(local)))
        if self._gradients is not None:
            if keeps:  # its norm is computed with those of many others, later
                self._gradients.write(gradients)
                written.append(self._gradients)
            else:
                marks.append(("norm", _gradients.norm(gradients)))
                self._add_to_path(gradients, 1.0 if self._takes_sums else n_samples, skipped)
        self._columns.append((loss, n_samples, *step_sizes), marks)
        for kept in written:
            kept.count()

    @quiet
    def end_epoch(self) -> None:
        """Finish an epoch, and bring what is on a device into main memory."""
        sums_path = self._path_epoch == self.n_epochs
        if sums_path or not self._on_cpu:  # the rest waits until there is more of it
            self._resolve()
        self._path_norms.append(self._last_path_norm() if sums_path else math.nan)
        self.n_epochs += 1
        self._columns.end_epoch()
        self._first_row = self.n_steps

    @quiet
    def history(self, metadata: Mapping[str, Any]) -> History:
        """Return what was recorded so far, in views that later rows do not change."""
        self._resolve()
        gradients = local = None
        if self._gradients is not None:
            path = (np.array(self._path_norms), self._last_path()) if self._path_epoch >= 0 else ()
            gradients = Vectors(self._gradients.rows, self._columns["norm"], *path)
        if self._local is not None:
            local = Vectors(self._local.rows, self._columns["local_norm"])
        return History(
            loss=self._columns["loss"],
            n_samples=self._columns["n_samples"],
            epoch=self._columns["epoch"],
            step_size=self._columns["step_size"],
            skipped=self._columns["skipped"],
            n_epochs=self.n_epochs,
            gradients=gradients,
            local_gradients=local,
            kept_weights=None if self._weights is None else self._weights.rows,
            metadata=metadata,
        )

    def _begin_with(self, history: History) -> None:
        names = ("loss", "n_samples", "epoch", "skipped")
        columns: dict[str, NDArray[Any]] = {name: getattr(history, name) for name in names}
        self.n_epochs, self._first_epoch = history.n_epochs, int(history.epoch[0])
        self._first_row = int(np.searchsorted(history.epoch, self._first_epoch + self.n_epochs))
        self._path_norms = [math.nan] * self.n_epochs
        if self._gradients is not None and history.gradients is not None:
            self._gradients = Kept(0.0, history.gradients.kept)
            columns["norm"] = history.gradients.norm
            if history.gradients.path_norm is not None:
                self._path_norms = history.gradients.path_norm.tolist()
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
        epoch = self._first_epoch + self.n_epochs
        self._columns.extend(columns, history.step_size, epoch)
        if history.gradients is not None and history.gradients.last_path is not None:
            self._path_epoch = int(history.epoch[-1]) - self._first_epoch
            kept, weight = self._path_of_kept()
            self._path_before = history.gradients.last_path * weight
            if kept is not None:
                self._path_before[: len(kept)] -= kept

    def _resolve(self) -> None:
        self._columns.resolve()
        for kept in self._kinds():
            kept.store()
        if self._gradients is not None:
            self._gradients.measure(self._columns["norm"])
        if self._local is not None:
            self._local.measure(self._columns["local_norm"])

    def _kinds(self) -> list[Kept]:
        kinds = (self._gradients, self._local, self._weights)
        return [kept for kept in kinds if kept is not None]

    def _add_to_path(
        self, gradients: Sequence[Tensor | None], weight: Value, skipped: Value
    ) -> None:
        if self._path_epoch != self.n_epochs:
            self._path = self._path_before = None  # freed before the next one is made
        if self._path is None:
            self._path = PathSum(self._parameters, self._path_before)
            self._path_epoch = self.n_epochs
        if isinstance(skipped, Tensor):
            weight = torch.where(skipped, 0.0, weight)
            gradients = [g if g is None else torch.where(skipped, 0.0, g) for g in gradients]
        elif skipped or (not isinstance(weight, Tensor) and weight == 0):
            return
        self._path.add(gradients, self._parameters, weight)

    def _last_path(self) -> NDArray[Any]:
        """Return the path gradient of the epoch that was last summed up along the way."""
        kept, weight = self._path_of_kept()
        path = np.array(self._path_before) if self._path is None else self._path.vector()
        if kept is not None:
            path[: len(kept)] += kept  # which may be from before a parameter was added
        path /= weight
        return path

    def _last_path_norm(self) -> float:
        kept, weight = self._path_of_kept()
        if self._path is None or kept is not None:
            return float(np.linalg.norm(self._last_path()))
        return float(self._path.norm() / weight)  # without another vector

    def _path_of_kept(self) -> tuple[NDArray[Any] | None, float]:
        """Return what gradients kept whole add to that path, and the weight of all its steps."""
        epoch = self._columns["epoch"]
        first, end = np.searchsorted(epoch, self._first_epoch + self._path_epoch + np.arange(2))
        used = ~self._columns["skipped"][first:end]
        n_samples = np.where(used, self._columns["n_samples"][first:end], 0)
        rows = None if self._gradients is None else self._gradients.rows[first:end]
        if rows is None or not len(rows):
            return None, n_samples.sum()
        weights = np.where(used, 1.0, 0.0) if self._takes_sums else n_samples
        return weighted_sum(weights[: len(rows)], rows), n_samples.sum()
