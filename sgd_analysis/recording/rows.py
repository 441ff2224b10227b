"""The rows of a run while it is recorded, within a budget of memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import Value, quiet, read_only
from sgd_analysis.history.also import BY_PARAMETER, BY_STEP
from sgd_analysis.history.columns import ALWAYS, IF_GIVEN
from sgd_analysis.history.history import History
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.recording.columns import Columns, Marks
from sgd_analysis.recording.gradients import norm
from sgd_analysis.recording.kept import KeptGradients, KeptNorms, KeptVectors
from sgd_analysis.recording.kept_fingerprints import shared_out
from sgd_analysis.recording.paths import Paths
from sgd_analysis.recording.step_loss import StepLoss

_OTHERS = ("objective", "divisor", "size_weighting", "unclipped_norm")  # what few rows have


class Rows:
    """One row a step: the columns, and the vectors as far as they are wanted and fit.

    Args:
        gradients: "auto" keeps whole vectors while they fit, "norms" only their norms and the
            sum of the present epoch, "none" nothing of them.
        memory: the bytes that all kept vectors together may take.
        weights: whether to keep the weights, too.
        also: what else to record, by the names that a history has for it.
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
        also: Collection[str] = (),
        history: History | None = None,
    ) -> None:
        self.full_at: int | None = None  # the first step whose vectors did not fit
        self.fingerprints, self._memory = shared_out(memory, also, history)
        local = local and gradients != "none"
        self._also = also
        self._columns = Columns([*also, "local_norm"] if local else also)
        self._gradients = KeptGradients() if gradients != "none" else None
        self._paths = None if self._gradients is None else Paths(self._columns, self._gradients)
        self._local = KeptGradients() if local else None
        self._weights = KeptVectors(missing=math.nan) if weights else None
        self._norms = KeptNorms() if BY_PARAMETER in also else None
        self._whole = gradients == "auto"
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
    def steps_in_epoch(self) -> int:
        """The number of rows of the epoch that is not finished yet."""
        return self._columns.n_in_epoch

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say over which parameters the vectors of the steps that follow go."""
        a_step = sum(kept.bytes_a_step(parameters) for kept in self._whole_kinds())
        self._room = self._memory // a_step if a_step else sys.maxsize
        if self._parameters and self.full_at is None and 2 * self.n_steps > self._room:
            # For vectors of another length or dtype those kept so far would have to be copied.
            self.full_at = self.n_steps
        for kept in self._kinds():
            kept.lay_out(parameters, self._n_whole(), self._room)
        if self._paths is not None:
            self._paths.lay_out(parameters)
        self._parameters = parameters
        self._on_cpu = all(parameter.is_cpu for parameter in parameters)

    def append(
        self,
        seen: StepLoss,
        step_sizes: Sequence[Value],
        gradients: Sequence[Tensor | None],
        local: Sequence[Tensor | None] = (),
        skipped: Value = False,
        unclipped: Value | None = None,
        seen_samples: Sequence[Tensor] = (),
    ) -> None:
        """Add the row of a step that is about to be made."""
        step = self._columns.n_rows
        if step >= self._room and self.full_at is None:
            self.full_at = step
        marks = _marks(seen, skipped, unclipped)
        # What may fail, for want of memory or by an interrupt, comes first: the row is there when
        # the columns have it, and no half of one is left behind.
        if self.fingerprints is not None:
            self.fingerprints.write(step, seen_samples)
        if self.full_at is None:
            self._keep(step, gradients, local)
        if self.full_at is not None or not self._whole:
            marks += self._measure(step, gradients, local, seen, skipped)
        self._columns.append((seen.loss, seen.n_samples, seen.denominator, *step_sizes), marks)

    def _keep(
        self, step: int, gradients: Sequence[Tensor | None], local: Sequence[Tensor | None]
    ) -> None:
        if self._weights is not None:
            self._weights.write(step, self._parameters)
        if self._norms is not None:
            self._norms.write(step, gradients)
        if not self._whole:
            return
        if self._local is not None:  # norms are computed for many steps, later
            self._local.write(step, local)
        if self._gradients is not None:
            self._gradients.write(step, gradients)

    def _measure(
        self,
        step: int,
        gradients: Sequence[Tensor | None],
        local: Sequence[Tensor | None],
        seen: StepLoss,
        skipped: Value,
    ) -> Marks:
        """Return the norms of a step's vectors, and add the gradient to the path of its epoch."""
        marks: Marks = [] if self._local is None else [("local_norm", norm(local))]
        if self._paths is not None:
            size = self._paths.add(step, gradients, seen, skipped)
            if size is not None:
                marks.append(("norm", size))
        return marks

    def step_ends(self, update: Value) -> None:
        """Note how far the step whose row was added last has moved the weights."""
        self._columns.mark("update_norm", update)

    @quiet
    def end_epoch(self) -> None:
        """Finish an epoch, and bring what is on a device into main memory."""
        paths = self._paths if self._paths is not None and self._paths.has_present_epoch else None
        if paths is not None or not self._on_cpu:  # the rest waits until there is more of it
            self._resolve()
        if paths is not None:
            paths.end_epoch()
        self._columns.end_epoch()

    @quiet
    def history(
        self, metadata: Mapping[str, Any], evaluated: Mapping[str, NDArray[np.float64]]
    ) -> History:
        """Return what was recorded so far, in views that later rows do not change."""
        self._resolve()
        columns = self._columns
        gradients = local = None
        if self._gradients is not None and self._paths is not None:
            gradients = Vectors(self._gradients.rows, columns["norm"], *self._paths.arrays())
        if self._local is not None:
            local = Vectors(self._local.rows, columns["local_norm"])
        return History._unchecked(
            **{name: read_only(columns[name]) for name in ALWAYS},
            **{name: self._if_given(name.removeprefix("own_")) for name in IF_GIVEN},
            n_epochs=self.n_epochs,
            gradients=gradients,
            local_gradients=local,
            kept_weights=None if self._weights is None else read_only(self._weights.rows),
            also=self._asked_for(),
            fingerprints=self.fingerprints and self.fingerprints.rows(self.n_steps),
            evaluated={name: read_only(column) for name, column in evaluated.items()},
            metadata=metadata,
        )

    def _if_given(self, name: str) -> NDArray[np.float64] | None:
        if name not in self._columns:
            return None
        column = read_only(self._columns[name])
        # On a device only the numbers themselves tell that there is nothing to add.
        return None if name == "size_weighting" and not column.any() else column

    def _asked_for(self) -> dict[str, NDArray[np.float64]]:
        found = {name: read_only(self._columns[name]) for name in BY_STEP if name in self._also}
        if self._norms is not None:
            found[BY_PARAMETER] = read_only(self._norms.rows.astype(np.float64, copy=False))
        return found

    def _begin_with(self, history: History) -> None:
        columns = _columns_of(history)
        for name, kept, vectors in (
            ("norm", self._gradients, history.gradients),
            ("local_norm", self._local, history.local_gradients),
        ):
            if kept is not None and vectors is not None:
                kept.begin_with(vectors.kept)
                columns[name] = vectors.norm
        for rows, before in (
            (self._weights, history.kept_weights),
            (self._norms, history.also.get(BY_PARAMETER)),
        ):
            if rows is not None and before is not None:
                rows.begin_with(before)
        self._limit(history.n_steps)
        self._columns.extend(columns, history.step_size, history.epoch, history.n_epochs)
        if self._paths is not None and history.gradients is not None:
            epoch = int(history.epoch[-1]) - self._columns.first_epoch
            self._paths.begin_with(history.gradients, epoch)

    def _limit(self, n_steps: int) -> None:
        # Only the vectors of the first steps are kept: where some are missing, no more can follow.
        n_kept = min((len(kept.rows) for kept in self._whole_kinds()), default=n_steps)
        if n_kept < n_steps:
            self.full_at = n_kept

    def _resolve(self) -> None:
        self._columns.resolve()
        for kept in self._kinds():
            kept.store(self._n_whole())
        if self.fingerprints is not None:
            self.fingerprints.store(self.n_steps)
        if self._paths is not None:
            self._paths.store(self.n_steps)
        if self._gradients is not None:
            self._gradients.measure(self._columns["norm"])
        if self._local is not None:
            self._local.measure(self._columns["local_norm"])

    def _n_whole(self) -> int:
        """Return the number of rows whose vectors were kept whole, of the kinds that are."""
        return self.n_steps if self.full_at is None else min(self.n_steps, self.full_at)

    def _kinds(self) -> list[KeptVectors]:
        kinds = (self._gradients, self._local, self._weights, self._norms)
        return [kept for kept in kinds if kept is not None]

    def _whole_kinds(self) -> list[KeptVectors]:
        """Return the kinds of vectors that are kept whole while they fit."""
        always = (self._weights, self._norms)
        return self._kinds() if self._whole else [kept for kept in always if kept is not None]


def _marks(seen: StepLoss, skipped: Value, unclipped: Value | None) -> Marks:
    """Return what a row has besides the columns that all rows have."""
    marks: Marks = [] if skipped is False else [("skipped", skipped)]
    others = (seen.objective, seen.divisor, seen.size_weighting, unclipped)
    for name, value in zip(_OTHERS, others, strict=True):
        if value is not None:
            marks.append((name, value))
    return marks


def _columns_of(history: History) -> dict[str, NDArray[Any]]:
    names = ("loss", "n_samples", "denominator", "skipped")
    columns: dict[str, NDArray[Any]] = {name: getattr(history, name) for name in names}
    columns |= {name: column for name, column in history.also.items() if name in BY_STEP}
    for name in IF_GIVEN:
        if (column := getattr(history, name)) is not None:
            columns[name.removeprefix("own_")] = column
    return columns
