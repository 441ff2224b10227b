"""What a loop evaluated when its epochs had ended: a column a name, one value a finished epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import read_only
from sgd_analysis._validation import kind_of

Columns: TypeAlias = dict[str, NDArray[np.float64]]

# The names that the tables by step and by epoch, and a history itself, have for other numbers.
_TAKEN = re.compile(
    r"epoch|step|(n_)?(steps|epochs|samples)|denominator|divisor|skipped|step_size(_\d+)?|loss|"
    r"(own_)?objective|batch_loss|mean_batch_loss|running_loss|(running_)?size_weighted_loss|"
    r"size_weighting|"
    r"(mean_|path_|local_|mean_local_)?gradient_norm|(mean_)?(unclipped|update)_norm|"
    r"norms_by_parameter|fingerprints"
)


@runtime_checkable
class Measured(Protocol):
    """What `recorder.evaluate` takes as several numbers: a `Survey`, a `LossGap`, your own."""

    def numbers(self) -> Mapping[str, float]:
        """Return the numbers, each under its name."""


def checked(given: Mapping[str, Any], n_epochs: int) -> Columns:
    """Return columns that fit a history, not to be written to; copied if need be.

    Raises:
        TypeError: if they are no mapping of names to real numbers.
        ValueError: if a name stands for something else, or a column has another length.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"evaluated must be a mapping of names to columns, got {kind_of(given)}")
    columns = {name: np.asarray(column) for name, column in given.items()}
    for name, column in columns.items():
        _check_name(name)
        if column.dtype.kind not in "biuf":
            raise TypeError(f"evaluated {name} must hold real numbers, got {column.dtype}")
        if column.shape != (n_epochs,):
            raise ValueError(
                f"evaluated {name} must have one value a finished epoch, {n_epochs}, got shape "
                f"{column.shape}"
            )
    return {name: read_only(c.astype(np.float64, copy=False)) for name, c in columns.items()}


def numbers_of(given: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers in what a loop gives, those of a `Measured` under `<name>_<its name>`.

    Raises:
        TypeError: if something is neither a number, nor a tensor of one, nor holds several.
        ValueError: if a tensor has several elements, or a name stands for something else.
    """
    numbers: dict[str, float] = {}
    for name, value in given.items():
        if isinstance(value, Measured):
            numbers |= {f"{name}_{part}": float(v) for part, v in value.numbers().items()}
        else:
            numbers[name] = _number(name, value)
    for name in numbers:
        _check_name(name)
    return numbers


def padded(columns: Columns, n_epochs: int) -> Columns:
    """Return the columns for so many epochs, nan where nothing was evaluated."""
    return {
        name: np.concatenate([column, np.full(n_epochs - len(column), math.nan)])
        for name, column in columns.items()
    }


def with_last(columns: Columns, n_epochs: int, numbers: Mapping[str, float]) -> Columns:
    """Return the columns for so many epochs with these numbers for the last one."""
    columns = padded(columns, n_epochs)
    for name, number in numbers.items():
        column = columns.setdefault(name, np.full(n_epochs, math.nan))
        column[-1] = number
    return columns


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"what was evaluated must have a name, got {name!r}")
    if _TAKEN.fullmatch(name):
        raise ValueError(
            f"what was evaluated must have a name of its own, and {name!r} is a history's name for "
            f"something else: say what it was evaluated on, test_{name} for instance"
        )


def _number(name: str, value: object) -> float:
    if isinstance(value, Tensor):
        value = value.detach()  # with a graph, torch warns
    if isinstance(value, (Tensor, np.ndarray)):
        if math.prod(value.shape) != 1:
            raise ValueError(
                f"{name} must be one number, got shape {tuple(value.shape)}: its mean, for instance"
            )
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name} must be a number, a tensor of one element, or a Survey, got {kind_of(value)}"
        )
    return float(value)
