"""Checks shared by the public functions: each error says what was given, expected and to do."""

import math
import operator
from numbers import Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def positive_number(name: str, value: float) -> float:
    """Return `value` as a float, or raise unless it is a finite number above zero.

    Raises:
        TypeError: if `value` is not a number.
        ValueError: if it is not positive and finite.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return float(value)


def integer_between(
    name: str, value: int, low: int, high: int | None = None, *, meaning: str = ""
) -> int:
    """Return `value` as an int, or raise unless low <= value <= high.

    `meaning` says what the upper end stands for, for instance "the number of samples".

    Raises:
        TypeError: if `value` is not an integer.
        ValueError: if it is out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {value!r} of type {type(value).__name__}"
        ) from None
    if high is None:
        if number < low:
            raise ValueError(f"{name} must be at least {low}, got {number}")
    elif not low <= number <= high:
        because = f" ({meaning})" if meaning else ""
        raise ValueError(f"{name} must be between {low} and {high}{because}, got {number}")
    return number


def weight_vectors(name: str, value: ArrayLike, n_parameters: int) -> NDArray[np.float64]:
    """Return `value` as float64, or raise unless its last axis holds `n_parameters` weights.

    Raises:
        ValueError: if the shape is another.
    """
    weights = np.asarray(value, dtype=np.float64)
    if weights.ndim == 0 or weights.shape[-1] != n_parameters:
        raise ValueError(
            f"{name} must have shape (..., {n_parameters}), one weight a parameter on the last "
            f"axis, got shape {weights.shape}"
        )
    return weights


def start_vector(value: ArrayLike, n_parameters: int) -> NDArray[np.float64]:
    """Return a start as float64, or raise unless it is one finite vector of weights.

    Raises:
        ValueError: if the shape is another, or a value is not finite.
    """
    start = np.asarray(value, dtype=np.float64)
    if start.shape != (n_parameters,):
        raise ValueError(
            f"start must have shape ({n_parameters},), one weight a parameter, got {start.shape}"
        )
    if not np.isfinite(start).all():
        raise ValueError(f"start must be finite, got {start}")
    return start


def samples(name: str, values: ArrayLike | Tensor) -> Tensor:
    """Return `values` as a tensor, or raise unless it holds real, finite samples.

    Raises:
        TypeError: if the values are complex.
        ValueError: if there is no sample, or a value is not finite.
    """
    tensor = torch.as_tensor(values)
    if tensor.ndim == 0 or len(tensor) == 0:
        raise ValueError(
            f"{name} must hold at least one sample along its first axis, got shape "
            f"{tuple(tensor.shape)}"
        )
    if tensor.is_complex():
        raise TypeError(f"{name} must be real, got {tensor.dtype}")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        n_bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} must be finite, got {n_bad} nan or infinite values: remove them")
    return tensor


def mean_criterion(criterion: object) -> None:
    """Raise unless `criterion` can be called, and takes the plain mean over samples if it says.

    Raises:
        TypeError: if it is not callable.
        ValueError: if its reduction is another, or it weights the classes.
    """
    if not callable(criterion):
        raise TypeError(
            "criterion must be callable as criterion(predictions, targets), got "
            f"{type(criterion).__name__}"
        )
    reduction = getattr(criterion, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(
            "criterion must take the mean over the samples it is given: construct it with "
            f'reduction="mean", got reduction={reduction!r}'
        )
    if getattr(criterion, "weight", None) is not None:
        raise ValueError(
            "criterion must take the plain mean over samples, got one with class weights, whose "
            "mean divides by the weights' sum"
        )
