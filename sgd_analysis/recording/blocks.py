"""Vectors of the last steps, copied as fast as can be and waiting to be looked at together."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import as_array
from sgd_analysis.recording.gradients import n_bytes

_BLOCK_BYTES = 1 << 20  # of the vectors that wait together,
_BLOCK_ROWS = 256  # and at most so many of them


class Blocks(ABC):
    """Vectors over the parameters, one a step.

    They wait on the device they come from for `store`; as many as make a block in main memory are
    stored at once. Each has the number of its step for a place, so that one that was written for
    a step that never came to be, because of an interrupt, is written over by the next.
    """

    def __init__(self) -> None:
        self._parameters: Sequence[Tensor] = ()
        self._n_rows = 0  # of a block
        # Of the first one that waits its step, and all of them, in one piece or one a device.
        self._waiting: tuple[int, list[tuple[Tensor, ...]]] = 0, []

    @property
    @abstractmethod
    def n_stored(self) -> int:
        """The number of steps whose vectors do not wait any more."""

    @abstractmethod
    def _store(self, vectors: NDArray[Any]) -> None:
        """Take the vectors (n, n_parameters) of the next steps, wholly or not at all."""

    def write(self, step: int, vector: Sequence[Tensor | None]) -> None:
        """Copy the vector of a step, in parts, None standing for zeros."""
        first, rows = self._waiting
        if not rows or step - first >= self._n_rows:
            self.store(step)
            first, rows = self._waiting
        row = self._copy(vector)
        if step - first < len(rows):
            rows[step - first] = row
        else:
            rows.append(row)

    def store(self, n_steps: int) -> None:
        """Bring the vectors of the first n_steps into main memory, and let them wait no more."""
        first, rows = self._waiting
        new = rows[max(self.n_stored - first, 0) : n_steps - first]
        if new:
            pieces = [as_array(_stacked(piece)) for piece in zip(*new, strict=True)]
            self._store(pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1))
        self._waiting = n_steps, []

    def _follow(self, parameters: Sequence[Tensor], n_steps: int) -> None:
        """Say over which parameters the vectors after the first n_steps go."""
        self.store(n_steps)
        self._parameters = parameters
        self._n_rows = n_rows_of_a_block(parameters)

    def _copy(self, vector: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        if len(vector) > 1:  # of a single tensor it would be a view
            try:
                row = torch._C._nn.flatten_dense_tensors(vector)  # type: ignore[arg-type]
                return (row.detach() if row.requires_grad else row,)
            except (TypeError, RuntimeError):  # one is None, sparse, or on another device
                pass
        dense = [_dense(*pair) for pair in zip(vector, self._parameters, strict=True)]
        if len({part.device for part in dense}) == 1:
            return (torch.cat(dense),)
        return tuple(part.clone() for part in dense)


def n_rows_of_a_block(parameters: Sequence[Tensor]) -> int:
    """Return how many vectors over the parameters wait together; those on a device all do."""
    if not all(parameter.is_cpu for parameter in parameters):
        return sys.maxsize
    return min(max(_BLOCK_BYTES // (n_bytes(parameters) or 1), 1), _BLOCK_ROWS)


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(rows)) if len(rows) > 1 else rows[0][None]  # which copies nothing


def _dense(part: Tensor | None, parameter: Tensor) -> Tensor:
    """Return one parameter's part of a vector in one dimension."""
    if part is None:
        return torch.zeros_like(parameter).detach().flatten()
    part = part.detach()
    return (part if part.layout is torch.strided else part.to_dense()).flatten()
