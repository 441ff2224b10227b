"""Columns of numbers that grow by one row a step, some of them still on a device."""

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._validation import as_array

Value: TypeAlias = float | Tensor  # a tensor where the value is left on its device

_DTYPES: dict[str, Any] = {
    "loss": np.float64,
    "n_samples": np.float64,
    "epoch": np.int64,
    "skipped": np.bool_,
    "norm": np.float64,
    "local_norm": np.float64,
}
_PENDING = 256  # the rows that wait as Python objects before they go into the arrays
_GROWTH = 1.125  # of the arrays: at most an eighth of what they hold is spare


class Columns:
    """The columns of a history while it is recorded.

    Rows wait in a list. Values on a device are stacked there and stay until `resolve`, the only
    method that waits for the device.
    """

    def __init__(self) -> None:
        self.n_rows = 0
        self._epoch = 0  # of the first row that waits
        self._ends: list[int] = []  # of the epochs that ended since: the number of rows by then
        self._arrays = {name: np.empty(0, dtype) for name, dtype in _DTYPES.items()}
        self._step_size = np.empty((0, 0))
        self._pending: list[tuple[Value, ...]] = []
        self._marks: list[tuple[str, int, Value]] = []
        self._on_device: list[tuple[str, int, NDArray[np.intp], Tensor]] = []

    def append(self, row: tuple[Value, ...], marks: list[tuple[str, Value]]) -> None:
        """Add a row: its loss, its number of samples, and the step size of each group.

        Marks set other columns of this row.
        """
        pending = self._pending
        if pending and (len(pending) >= _PENDING or len(pending[-1]) != len(row)):
            self._store()
            pending = self._pending
        if marks:
            self._marks += [(name, self.n_rows, value) for name, value in marks]
        pending.append(row)
        self.n_rows += 1

    def end_epoch(self) -> None:
        """Have the rows that follow belong to the next epoch."""
        self._ends.append(self.n_rows)

    def extend(
        self, columns: dict[str, NDArray[Any]], step_size: NDArray[np.float64], epoch: int
    ) -> None:
        """Begin with the rows of an earlier recording; a column that is not given holds nan.

        The rows that follow belong to `epoch`.
        """
        self._epoch = epoch
        self.n_rows = len(step_size)
        nothing = np.full(self.n_rows, math.nan)
        self._arrays = {n: np.array(columns.get(n, nothing), d) for n, d in _DTYPES.items()}
        self._step_size = step_size.copy()

    def resolve(self) -> None:
        """Bring every value into the arrays."""
        self._store()
        for name, group, rows, values in self._on_device:
            self._column(name, group)[rows] = as_array(values)
        self._on_device = []

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a view of a column: (n_rows,), the step sizes (n_rows, n_groups)."""
        return (self._step_size if name == "step_size" else self._arrays[name])[: self.n_rows]

    def _store(self) -> None:
        pending, marks, ends = self._pending, self._marks, self._ends
        self._pending, self._marks, self._ends = [], [], []
        first_epoch, self._epoch = self._epoch, self._epoch + len(ends)
        if not pending:
            return
        first = self.n_rows - len(pending)
        self._reserve(len(pending[0]) - 2)
        n_ended = np.searchsorted(ends, np.arange(first, self.n_rows), side="right")
        self._arrays["epoch"][first : self.n_rows] = first_epoch + n_ended
        self._arrays["skipped"][first : self.n_rows] = False
        for name in ("loss", "n_samples", "norm", "local_norm"):  # unless they are set below
            self._arrays[name][first : self.n_rows] = math.nan
        rows = slice(first, self.n_rows)
        loss, n_samples, *step_sizes = zip(*pending, strict=True)
        self._put("loss", rows, loss)
        self._put("n_samples", rows, n_samples)
        for group, values in enumerate(step_sizes):
            self._put("step_size", rows, values, group)
        for name in dict.fromkeys(name for name, _, _ in marks):
            at, values = zip(*[(row, v) for marked, row, v in marks if marked == name], strict=True)
            self._put(name, list(at), values)

    def _put(
        self, name: str, rows: slice | list[int], values: tuple[Value, ...], group: int = 0
    ) -> None:
        """Write values into a column; those on a device when they are asked for."""
        if any(issubclass(kind, Tensor) for kind in set(map(type, values))):
            tensors = [value for value in values if isinstance(value, Tensor)]
            on_device = [isinstance(value, Tensor) for value in values]
            at = np.arange(self.n_rows)[rows][on_device]
            self._on_device.append((name, group, at, torch.stack(tensors)))
            values = tuple(0.0 if isinstance(value, Tensor) else value for value in values)
        self._column(name, group)[rows] = values

    def _column(self, name: str, group: int) -> NDArray[Any]:
        return self._step_size[:, group] if name == "step_size" else self._arrays[name]

    def _reserve(self, n_groups: int) -> None:
        capacity, known = self._step_size.shape
        n_groups = max(n_groups, known)
        if self.n_rows > capacity:
            capacity = max(int(_GROWTH * self.n_rows), 256)
        elif n_groups == known:
            return
        for name, array in self._arrays.items():
            self._arrays[name] = np.empty(capacity, array.dtype)
            self._arrays[name][: len(array)] = array
        step_size = np.full((capacity, n_groups), math.nan)
        step_size[: len(self._step_size), :known] = self._step_size
        self._step_size = step_size
