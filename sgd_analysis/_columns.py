"""Columns of numbers that grow by one row a step, some of them still on a device."""

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._validation import as_array

Value: TypeAlias = float | Tensor  # a tensor where the value is left on its device

_DTYPES: dict[str, type[np.generic]] = {
    "loss": np.float64,
    "n_samples": np.float64,
    "epoch": np.int64,
    "skipped": np.bool_,
    "norm": np.float64,
    "local_norm": np.float64,
}
_PENDING = 1024  # the rows that wait as Python objects before they go into the arrays
_GROWTH = 1.25  # of the arrays: at most a quarter of what they hold is spare


class Columns:
    """The columns of a history while it is recorded.

    Rows wait in a list. Values on a device are stacked there and stay until `resolve`, the only
    method that waits for the device.
    """

    def __init__(self) -> None:
        self.n_rows = 0
        self._arrays = {name: np.empty(0, dtype) for name, dtype in _DTYPES.items()}
        self._step_size = np.empty((0, 0))
        self._pending: list[tuple[Value, ...]] = []
        self._on_device: list[tuple[int, list[int], Tensor]] = []

    def append(self, *row: Value) -> None:
        """Add one row: a value for each column, and the step size of each parameter group."""
        pending = self._pending
        if pending and (len(pending) >= _PENDING or len(pending[-1]) != len(row)):
            self._store()
        self._pending.append(row)
        self.n_rows += 1

    def extend(self, columns: dict[str, NDArray[Any]], step_size: NDArray[np.float64]) -> None:
        """Begin with the rows of an earlier recording; a column that is not given holds nan."""
        self.n_rows = len(step_size)
        nothing = np.full(self.n_rows, math.nan)
        self._arrays = {n: np.array(columns.get(n, nothing), d) for n, d in _DTYPES.items()}
        self._step_size = step_size.copy()

    def resolve(self) -> None:
        """Bring every value into the arrays."""
        self._store()
        for position, rows, values in self._on_device:
            self._column(position)[rows] = as_array(values)
        self._on_device = []

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a view of a column: (n_rows,), the step sizes (n_rows, n_groups)."""
        return (self._step_size if name == "step_size" else self._arrays[name])[: self.n_rows]

    def _column(self, position: int) -> NDArray[Any]:
        if position < len(_DTYPES):
            return self._arrays[list(_DTYPES)[position]]
        return self._step_size[:, position - len(_DTYPES)]

    def _store(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        first = self.n_rows - len(pending)
        self._reserve(len(pending[0]) - len(_DTYPES))
        for position, values in enumerate(zip(*pending, strict=True)):
            column = self._column(position)[first : self.n_rows]
            if Tensor in set(map(type, values)):
                at = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
                stacked = torch.stack([values[i] for i in at])
                self._on_device.append((position, [first + i for i in at], stacked))
                column[:] = [0 if isinstance(value, Tensor) else value for value in values]
            else:
                column[:] = values

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
