"""The sum of an epoch's gradients, and their norms, of many steps at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import norms
from sgd_analysis.history.path_gradient import as_means, weighted_sum
from sgd_analysis.recording.blocks import Blocks, n_rows_of_a_block
from sgd_analysis.recording.columns import Columns

_MANY_ROWS = 16  # of a block, so that it pays to copy them there


def sums_blocks(parameters: Sequence[Tensor]) -> bool:
    """Return whether gradients are so small, and in main memory, that `BlockSum` is the way."""
    return _MANY_ROWS <= n_rows_of_a_block(parameters) < sys.maxsize


class _State(NamedTuple):
    """What changes when gradients are added: replaced in a single step, as of `Columns`."""

    total: NDArray[Any]  # in double precision
    dtype: np.dtype[Any]  # of the gradients
    end: int  # the step after the last one in it


class BlockSum(Blocks):
    """The same sum as `PathSum`; the gradients' norms are written into their column.

    Args:
        parameters: the optimizer's parameters.
        columns: what is recorded of the steps besides.
        first: the first step whose gradient is to be added.
        path: (n_parameters,) what the sum begins with; zeros unless given.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        columns: Columns,
        first: int,
        path: NDArray[Any] | None = None,
    ) -> None:
        super().__init__()
        self._columns = columns
        total = np.zeros(sum(parameter.numel() for parameter in parameters))
        if path is not None:
            total = total.astype(np.result_type(total, path))
            total[: len(path)] = path  # which may be from before a parameter was added
        self._state = _State(total, np.dtype(np.float32), first)
        self._follow(parameters, first)

    @property
    def n_stored(self) -> int:
        """The step after the last one in the sum."""
        return self._state.end

    def vector(self) -> NDArray[Any]:
        """Return a copy of the sum as one vector (n_parameters,)."""
        return self._state.total.astype(self._state.dtype)

    def norm(self) -> float:
        """Return the norm of the sum."""
        return float(np.linalg.norm(self._state.total))

    def _store(self, vectors: NDArray[Any]) -> None:
        total, dtype, first = self._state
        steps = slice(first, first + len(vectors))
        self._columns.resolve("skipped", "denominator", "divisor")
        self._columns["norm"][steps] = norms(vectors)
        weights, _ = path_weights(self._columns, steps)
        total = total + weighted_sum(weights, vectors)
        self._state = _State(total, np.result_type(dtype, vectors), steps.stop)


def path_weights(columns: Columns, steps: slice) -> tuple[NDArray[np.float64], float]:
    """Return the weights of steps in the sum of an epoch's gradients, and what divides it."""
    denominator = np.where(columns["skipped"][steps], 0.0, columns["denominator"][steps])
    divisor = columns["divisor"][steps] if "divisor" in columns else None
    weights = np.where(denominator == 0, 0.0, as_means(denominator, divisor))
    return weights, float(denominator.sum())
