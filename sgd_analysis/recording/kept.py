"""One vector a step, kept whole for as many of the first steps as fit into memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import as_array, norms
from sgd_analysis.recording.gradients import n_bytes

_BLOCK_BYTES = 1 << 20  # of the vectors that are stored together,
_BLOCK_ROWS = 256  # and at most so many of them


class _Block(NamedTuple):
    """Rows to copy vectors into: that of step `first`, and of the steps after it."""

    first: int
    parts: list[Tensor]  # for each parameter its part of all rows
    places: list[tuple[Tensor, ...]]  # for each row its parts


class KeptVectors:
    """The vectors over the parameters of the first steps: gradients, say, or weights.

    Their dtype is the parameters' (bfloat16: float32). They are copied into blocks of rows, on
    the device they come from, and wait there for `store`; a full block in main memory is stored at
    once, and used again. Each vector has the number of its step for a place, so that one that was
    written for a step that never came to be, because of an interrupt, is written over by the next.

    Args:
        missing: what stands in the earlier rows for a parameter that was added later.
    """

    def __init__(self, missing: float) -> None:
        self._missing = missing
        self._rows: NDArray[Any] = np.empty((0, 0), np.float16)
        self._n_stored = 0
        self._room = sys.maxsize
        self._parameters: Sequence[Tensor] = ()
        self._waiting: list[_Block] = []  # the full blocks, on a device
        self._block = _Block(0, [], [])

    @property
    def rows(self) -> NDArray[Any]:
        """A view (n, n_parameters) of what was stored."""
        return self._rows[: self._n_stored]

    def begin_with(self, rows: NDArray[Any]) -> None:
        """Begin with vectors (n, n_parameters) of an earlier recording."""
        self._rows, self._n_stored = rows, len(rows)
        self._block = _Block(self._n_stored, [], [])

    def lay_out(self, parameters: Sequence[Tensor], n_steps: int, room: int) -> None:
        """Say over which parameters the vectors after the first n_steps go, and how many fit."""
        self.store(n_steps)
        self._parameters, self._room = parameters, room
        self._block = _Block(n_steps, [], [])

    def write(self, step: int, vector: Sequence[Tensor | None]) -> None:
        """Copy the vector of a step, in parts, None standing for zeros."""
        block = self._block
        if step - block.first >= len(block.places):
            block = self._begin_block(step)
        place = block.places[step - block.first]
        for part in vector:
            if part is None or part.requires_grad or part.layout is not torch.strided:
                break
        else:
            torch._foreach_copy_(place, vector)  # type: ignore[arg-type]  # no None among them
            return
        for row, part in zip(place, vector, strict=True):
            if part is None:
                row.zero_()
            else:
                row.copy_(part.detach() if part.layout is torch.strided else part.to_dense())

    def store(self, n_steps: int) -> None:
        """Bring the vectors of the first n_steps into main memory, and into their rows."""
        for block in self._waiting:
            self._store_block(block, n_steps)
        self._waiting = []
        self._store_block(self._block, n_steps)

    def _begin_block(self, step: int) -> _Block:
        block = self._block
        if block.parts and all(part.is_cpu for part in block.parts):
            self.store(step)
            self._block = block._replace(first=step)
            return self._block
        if block.parts:
            self._waiting = [*self._waiting, block]
        n_rows = min(max(_BLOCK_BYTES // (n_bytes(self._parameters) or 1), 1), _BLOCK_ROWS)
        parts = [p.detach().new_empty((n_rows, *p.shape)) for p in self._parameters]
        places = list(zip(*[part.unbind() for part in parts], strict=True))
        self._block = _Block(step, parts, places)
        return self._block

    def _store_block(self, block: _Block, n_steps: int) -> None:
        first, end = self._n_stored, min(block.first + len(block.places), n_steps)
        if first >= end or not block.parts:
            return
        new = slice(first - block.first, end - block.first)
        parts = [as_array(part[new].reshape(end - first, -1)) for part in block.parts]
        self._reserve(end, sum(part.shape[1] for part in parts), np.result_type(*parts))
        np.concatenate(parts, axis=1, out=self._rows[first:end])
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
        norm[new] = norms(self._rows[new])
        self._n_measured = self._n_stored
