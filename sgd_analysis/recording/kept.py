"""One vector a step, kept whole for as many of the first steps as fit into memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import norms
from sgd_analysis.recording.blocks import Blocks
from sgd_analysis.recording.gradients import n_bytes, norm_of_each


class KeptVectors(Blocks):
    """The vectors over the parameters of the first steps: gradients, say, or weights.

    Their dtype is the parameters' (bfloat16: float32).

    Args:
        missing: what stands in the earlier rows for a parameter that was added later.
    """

    def __init__(self, missing: float) -> None:
        super().__init__()
        self._missing = missing
        self._rows: NDArray[Any] = np.empty((0, 0), np.float16)
        self._n_stored = 0
        self._room = sys.maxsize

    @property
    def n_stored(self) -> int:
        """The number of steps whose vectors were stored."""
        return self._n_stored

    @property
    def rows(self) -> NDArray[Any]:
        """A view (n, n_parameters) of what was stored."""
        return self._rows[: self._n_stored]

    def begin_with(self, rows: NDArray[Any]) -> None:
        """Begin with vectors (n, n_parameters) of an earlier recording."""
        self._rows, self._n_stored = rows, len(rows)

    def bytes_a_step(self, parameters: Sequence[Tensor]) -> int:
        """Return what those of a step take."""
        return n_bytes(parameters)

    def lay_out(self, parameters: Sequence[Tensor], n_steps: int, room: int) -> None:
        """Say over which parameters the vectors after the first n_steps go, and how many fit."""
        self._follow(parameters, n_steps)
        self._room = room

    def _store(self, vectors: NDArray[Any]) -> None:
        first, end = self._n_stored, self._n_stored + len(vectors)
        self._reserve(end, vectors.shape[1], vectors.dtype)
        self._rows[first:end] = vectors
        self._n_stored = end

    def _reserve(self, n_rows: int, width: int, dtype: np.dtype[Any]) -> None:
        capacity, known = self._rows.shape
        dtype = np.result_type(self._rows, dtype)
        if n_rows <= capacity and width == known and dtype == self._rows.dtype:
            return
        if n_rows > capacity:
            # While they are copied the old rows are there, too: the last time, they are half of
            # all that may be kept.
            capacity = self._room
            while capacity // 2 >= n_rows:
                capacity //= 2
            capacity = max(capacity, n_rows)
        grown = np.empty((capacity, width), dtype)
        grown[: self._n_stored, :known] = self.rows
        grown[: self._n_stored, known:] = self._missing
        self._rows = grown


class KeptGradients(KeptVectors):
    """Gradients, whose norms are computed from what was kept, those of many steps together."""

    def __init__(self) -> None:
        super().__init__(missing=0.0)  # a parameter that is added later had not been moved
        self._n_measured = 0

    def begin_with(self, rows: NDArray[Any]) -> None:
        """Begin with gradients (n, n_parameters) of an earlier recording, whose norms are known."""
        super().begin_with(rows)
        self._n_measured = len(rows)

    def measure(self, norm: NDArray[np.float64]) -> None:
        """Write the norms of the gradients that came since the last time into their rows."""
        new = slice(self._n_measured, self._n_stored)
        if new.start < new.stop:
            norm[new] = norms(self._rows[new])
            self._n_measured = self._n_stored


class KeptNorms(KeptVectors):
    """The norms of a vector's parts, one a parameter, in double precision."""

    def __init__(self) -> None:
        super().__init__(missing=0.0)

    def bytes_a_step(self, parameters: Sequence[Tensor]) -> int:
        """Return what those of a step take."""
        return 8 * len(parameters)

    def lay_out(self, parameters: Sequence[Tensor], n_steps: int, room: int) -> None:
        """Say over which parameters the norms after the first n_steps go, and how many fit."""
        where = next((p for p in parameters if not p.is_cpu), parameters[0])
        super().lay_out([where.detach().new_empty(len(parameters))], n_steps, room)

    def write(self, step: int, vector: Sequence[Tensor | None]) -> None:
        """Compute the norms of a step's vector."""
        super().write(step, [norm_of_each(vector)])

    def _store(self, vectors: NDArray[Any]) -> None:
        super()._store(vectors.astype(np.float64))
