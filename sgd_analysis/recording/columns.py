"""Columns of numbers that grow by one row a step, some of them still on a device."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import Value, as_array

Row: TypeAlias = tuple[Value, ...]
Marks: TypeAlias = list[tuple[str, Value]]

_OF_A_ROW = ("loss", "n_samples", "denominator")  # what each row begins with
# There from the first row that has it:
_IF_MARKED = (
    "local_norm",
    "objective",
    "divisor",
    "size_weighting",
    "unclipped_norm",
    "update_norm",
)
_DTYPES: dict[str, Any] = {
    **dict.fromkeys(_OF_A_ROW, np.float64),
    "epoch": np.int64,
    "skipped": np.bool_,
    "norm": np.float64,
    **dict.fromkeys(_IF_MARKED, np.float64),
}
# What a new row holds where nothing is said; or nan:
_UNLESS_SET = {"skipped": False, "epoch": 0, "size_weighting": 0.0}
_PENDING = 256  # the rows that wait as Python objects before they go into the arrays
_GROWTH = 1.125  # of the arrays: at most an eighth of what they hold is spare


class _State(NamedTuple):
    """All that changes when rows that wait go into the arrays: replaced in a single step.

    An interrupt may come between any two steps. What it leaves is the state before or the one
    after: what was written beyond `n_stored` does not count.
    """

    arrays: dict[str, NDArray[Any]]
    step_size: NDArray[np.float64]
    n_stored: int
    pending: list[tuple[Row, Marks]]
    on_device: tuple[tuple[str, int, NDArray[np.intp], Tensor], ...]


class Columns:
    """The columns of a history while it is recorded.

    Rows wait in a list. Values on a device are stacked there and stay until `resolve`, the only
    method that waits for the device.

    Args:
        wanted: those that are there from the beginning, though not all rows may be marked.
    """

    def __init__(self, wanted: Collection[str] = ()) -> None:
        names = [name for name in _DTYPES if name not in _IF_MARKED or name in wanted]
        arrays = {name: np.empty(0, _DTYPES[name]) for name in names}
        self._state = _State(arrays, np.empty((0, 0)), 0, [], ())
        self._first_epoch = 0
        self._ends: list[int] = []  # for each epoch that has ended, the number of rows by then

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return self._state.n_stored + len(self._state.pending)

    @property
    def n_ended(self) -> int:
        """The number of epochs that have ended."""
        return len(self._ends)

    @property
    def n_in_epoch(self) -> int:
        """The number of rows of the present epoch."""
        state = self._state
        return state.n_stored + len(state.pending) - (self._ends[-1] if self._ends else 0)

    @property
    def first_epoch(self) -> int:
        """The epoch of the first row."""
        return self._first_epoch

    def append(self, row: Row, marks: Marks) -> None:
        """Add a row: its loss, n_samples and denominator, and the step size of each group.

        Marks set other columns of this row. It is there when its last step is done, and not
        before.
        """
        pending = self._state.pending
        if pending and (len(pending) >= _PENDING or len(pending[-1][0]) != len(row)):
            self._store()
            pending = self._state.pending
        pending.append((row, marks))

    def mark(self, name: str, value: Value) -> None:
        """Set a column of the row that was added last."""
        state = self._state
        if state.pending:
            state.pending[-1][1].append((name, value))
            return
        on_device = list(state.on_device)
        self._put(state, on_device, name, np.array([state.n_stored - 1]), [value])
        self._state = state._replace(on_device=tuple(on_device))

    def end_epoch(self) -> None:
        """Have the rows that follow belong to the next epoch."""
        self._ends.append(self.n_rows)

    def rows_of(self, epoch: int) -> slice:
        """Return the rows of an epoch, the n-th from the first row's on."""
        ends = self._ends
        first = ends[epoch - 1] if epoch else 0
        return slice(first, ends[epoch] if epoch < len(ends) else self.n_rows)

    def extend(
        self,
        columns: dict[str, NDArray[Any]],
        step_size: NDArray[np.float64],
        epoch: NDArray[np.int64],
        n_ended: int,
    ) -> None:
        """Begin with the rows of an earlier recording; a column that is not given holds nan.

        Of its epochs the first n_ended have ended.
        """
        n_rows = len(step_size)
        nothing = np.full(n_rows, math.nan)
        columns = columns | {"epoch": epoch}
        there = columns.keys() | self._state.arrays.keys()
        names = [name for name in _DTYPES if name in there]
        arrays = {name: np.array(columns.get(name, nothing), _DTYPES[name]) for name in names}
        self._first_epoch = int(epoch[0])
        ends = np.searchsorted(epoch, epoch[0] + np.arange(n_ended), side="right")
        self._ends = ends.tolist()
        self._state = _State(arrays, step_size.copy(), n_rows, [], ())

    def resolve(self, *names: str) -> None:
        """Bring every value into the arrays; or those of these columns, and all that need no wait.

        What else is on a device stays there.
        """
        self._store()
        waiting = self._state.on_device
        resolved = [value for value in waiting if not names or value[0] in names]
        for name, group, rows, values in resolved:
            self._column(self._state, name, group)[rows] = as_array(values)
        if resolved:
            left = tuple(value for value in waiting if names and value[0] not in names)
            self._state = self._state._replace(on_device=left)

    def __contains__(self, name: str) -> bool:
        return name in self._state.arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a view of a column: (n_stored,), the step sizes (n_stored, n_groups)."""
        column = self._state.step_size if name == "step_size" else self._state.arrays[name]
        return column[: self._state.n_stored]

    def _store(self) -> None:
        pending = self._state.pending
        if not pending:
            return
        rows, marks = zip(*pending, strict=True)
        first, end = self._state.n_stored, self.n_rows
        marked = _by_name(marks, first)
        state = self._with_room(end, len(rows[0]) - len(_OF_A_ROW), marked)
        new = slice(first, end)
        for name in state.arrays.keys() - _OF_A_ROW:  # unless they are set below
            state.arrays[name][new] = _UNLESS_SET.get(name, math.nan)
        state.arrays["epoch"][new] = self._epochs_of(first, end)
        on_device = list(state.on_device)
        for k, column in enumerate(zip(*rows, strict=True)):
            name = _OF_A_ROW[k] if k < len(_OF_A_ROW) else "step_size"
            self._put(state, on_device, name, new, column, max(k - len(_OF_A_ROW), 0))
        for name, (at, values) in marked.items():
            self._put(state, on_device, name, np.array(at), values)
        self._state = state._replace(n_stored=end, pending=[], on_device=tuple(on_device))

    def _epochs_of(self, first: int, end: int) -> int | NDArray[np.int64]:
        """Return the epochs of rows; one if it is the same."""
        n_before = bisect.bisect_right(self._ends, first)
        if n_before == len(self._ends):
            return self._first_epoch + n_before
        new = np.searchsorted(self._ends[n_before:], np.arange(first, end), side="right")
        return np.asarray(self._first_epoch + n_before + new)

    def _put(
        self,
        state: _State,
        on_device: list[tuple[str, int, NDArray[np.intp], Tensor]],
        name: str,
        rows: slice | NDArray[np.intp],
        values: Sequence[Value],
        group: int = 0,
    ) -> None:
        """Write values into a column; those on a device when they are asked for."""
        if any(issubclass(kind, Tensor) for kind in set(map(type, values))):
            at = np.r_[rows]
            tensors = [value for value in values if isinstance(value, Tensor)]
            is_on_device = [isinstance(value, Tensor) for value in values]
            on_device.append((name, group, at[is_on_device], torch.stack(tensors)))
            values = [0.0 if isinstance(value, Tensor) else value for value in values]
        self._column(state, name, group)[rows] = values

    @staticmethod
    def _column(state: _State, name: str, group: int) -> NDArray[Any]:
        return state.step_size[:, group] if name == "step_size" else state.arrays[name]

    def _with_room(self, n_rows: int, n_groups: int, names: Iterable[str]) -> _State:
        """Return the state with arrays for so many rows, groups, and columns of these names."""
        state = self._state
        capacity, known = state.step_size.shape
        n_groups = max(n_groups, known)
        missing = [name for name in names if name not in state.arrays]
        if n_rows > capacity:
            capacity = max(int(_GROWTH * n_rows), 256)
        elif n_groups == known and not missing:
            return state
        arrays = {}
        for name, array in state.arrays.items():
            arrays[name] = np.empty(capacity, array.dtype)
            arrays[name][: state.n_stored] = array[: state.n_stored]
        for name in missing:
            arrays[name] = np.full(capacity, _UNLESS_SET.get(name, math.nan))
        step_size = np.full((capacity, n_groups), math.nan)
        step_size[: state.n_stored, :known] = state.step_size[: state.n_stored]
        return state._replace(arrays=arrays, step_size=step_size)


def _by_name(marks: Sequence[Marks], first: int) -> dict[str, tuple[list[int], list[Value]]]:
    """Return for each name the rows that it marks, the first one being `first`, and the values."""
    marked: dict[str, tuple[list[int], list[Value]]] = {}
    for row, some in enumerate(marks, start=first):
        for name, value in some:
            at, values = marked.setdefault(name, ([], []))
            at.append(row)
            values.append(value)
    return marked
