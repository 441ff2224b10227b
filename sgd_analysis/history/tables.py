"""A history as a table for people, who count from 1: one row a step, or one an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def by_step(
    columns: Mapping[str, NDArray[Any]], norms: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[Any]]:
    """Return the columns of a history and the norms of its vectors, (n_steps,) each."""
    table: dict[str, NDArray[Any]] = dict(columns)
    step_sizes = table.pop("step_size")
    n_groups = step_sizes.shape[1]
    for group in range(n_groups):
        table["step_size" if n_groups == 1 else f"step_size_{group}"] = step_sizes[:, group]
    return table | {"epoch": columns["epoch"] + 1} | dict(norms)


def framed(
    table: Mapping[str, NDArray[Any]], index: str, numbers: Sequence[int] | NDArray[np.int64]
) -> pd.DataFrame:
    """Return a table as a DataFrame whose rows have these numbers, in an index of that name.

    Raises:
        ImportError: if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_pandas() needs pandas: pip install pandas") from error
    frame = pd.DataFrame(dict(table), index=pd.Index(numbers, name=index))
    if "n_samples" in frame:
        frame = frame.astype({"n_samples": "Int64"})  # whole, also where one is not known
    return frame
