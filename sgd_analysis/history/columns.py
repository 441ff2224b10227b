"""The columns of a history: their names and types, and what makes them fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._arrays import quiet, read_only

ALWAYS: dict[str, Any] = {
    "loss": np.float64,
    "n_samples": np.float64,
    "epoch": np.int64,
    "step_size": np.float64,
    "denominator": np.float64,
    "skipped": np.bool_,
}
IF_GIVEN: dict[str, Any] = {
    "own_objective": np.float64,
    "divisor": np.float64,
    "size_weighting": np.float64,
}


@quiet
def as_column(name: str, given: ArrayLike) -> NDArray[Any]:
    """Return what is given as a column of that name, not to be written to; copied if need be.

    Raises:
        TypeError: if it holds anything but real numbers.
        ValueError: if it should hold integers and does not.
    """
    array, dtype = np.asarray(given), (ALWAYS | IF_GIVEN)[name]
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got the type {array.dtype}")
    column = array.astype(dtype, copy=False)
    if dtype is np.int64 and not np.array_equal(column, array):
        raise ValueError(f"{name} must hold integers, got {array}")
    return read_only(column)


def check_shapes(columns: Mapping[str, NDArray[Any]]) -> None:
    """Raise unless the columns have one row a step each.

    Raises:
        ValueError: if they have not.
    """
    shapes = [column.shape for column in columns.values()]
    n_axes = [2 if name == "step_size" else 1 for name in columns]
    if list(map(len, shapes)) != n_axes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            "columns must have one row a step each, step_size (n_steps, n_groups) and the others "
            f"(n_steps,), got {', '.join(f'{n} {s}' for n, s in zip(columns, shapes, strict=True))}"
        )
