"""Checks shared by the public functions: each error says what was given, expected and to do."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sgd_analysis._arrays import as_array


def positive_number(name: str, value: float) -> float:
    """Return `value` as a float, or raise unless it is a finite number above zero.

    Raises:
        TypeError: if `value` is not a number.
        ValueError: if it is not positive and finite.
    """
    if not isinstance(value, (int, float, Real)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r} of type {kind_of(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def integer_between(
    name: str, value: int, low: int, high: int | None = None, *, meaning: str = ""
) -> int:
    """Return `value` as an int, or raise unless low <= value <= high.

    `meaning` says what the upper end stands for, for instance "the number of samples".

    Raises:
        TypeError: if `value` is not an integer.
        ValueError: if it is out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {kind_of(value)}")
    number = operator.index(value)
    if high is None:
        if number < low:
            raise ValueError(f"{name} must be at least {low}, got {number}")
    elif not low <= number <= high:
        because = f" ({meaning})" if meaning else ""
        raise ValueError(f"{name} must be between {low} and {high}{because}, got {number}")
    return number


def instance_of(name: str, value: object, kind: type, meaning: str) -> None:
    """Raise unless `value` is of that kind; `meaning` says why no other will do.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, {meaning}, got {kind_of(value)}")


def weight_vectors(name: str, value: ArrayLike, n_parameters: int) -> NDArray[np.float64]:
    """Return `value` as float64, or raise unless its last axis holds `n_parameters` weights.

    Raises:
        TypeError: if it does not hold real numbers.
        ValueError: if the shape is another.
    """
    weights = float_array(name, value)
    if weights.ndim == 0 or weights.shape[-1] != n_parameters:
        raise ValueError(
            f"{name} must have shape (..., {n_parameters}), one weight a parameter on the last "
            f"axis, got shape {weights.shape}"
        )
    return weights


def finite_vector(name: str, value: ArrayLike | Tensor, n_parameters: int) -> NDArray[np.float64]:
    """Return a copy of `value` as float64, or raise unless it is one finite vector of weights.

    Raises:
        TypeError: if it does not hold real numbers.
        ValueError: if the shape is another, or a value is not finite.
    """
    vector = float_array(name, value)
    if vector.shape != (n_parameters,):
        raise ValueError(
            f"{name} must have shape ({n_parameters},), one weight a parameter, got {vector.shape}"
        )
    if not np.isfinite(vector).all():
        raise ValueError(f"{name} must be finite, got {vector}")
    return vector


def float_array(name: str, value: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return a copy of `value` as float64, or raise if numpy would drop a part of it in silence.

    Raises:
        TypeError: if it does not hold numbers, or complex ones, or is not dense.
        ValueError: if some of its values are masked, or the rows differ in length.
    """
    if isinstance(value, Tensor):
        value = as_array(_dense(name, value.detach()).resolve_neg())
    array = _unmasked(name, value)
    if array.dtype.kind == "c":
        raise TypeError(f"{name} must be real, got {array.dtype}")
    # Python's own fractions and long integers are objects to numpy, and so is None.
    if array.dtype.kind in "biuf" or all(isinstance(number, Real) for number in array.flat):
        return array.astype(np.float64)
    raise TypeError(f"{name} must hold numbers, got an array of dtype {array.dtype}")


def sample_indices(given: object) -> Tensor | None:
    """Return `given` as int64, or None unless it is a vector of whole numbers, not of booleans."""
    if np.ma.is_masked(given):
        return None
    try:
        vector = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        return None
    whole = not (vector.is_floating_point() or vector.is_complex() or vector.dtype == torch.bool)
    return vector.long() if whole and vector.ndim == 1 and not vector.is_sparse else None


def room_for(what: str, n_numbers: float, memory: int = 4 << 30) -> None:
    """Raise unless so many float64 numbers fit: better than to be ended by the machine.

    Raises:
        ValueError: if they do not.
    """
    if 8 * n_numbers > memory:
        raise ValueError(
            f"{what}, which would take about {8 * n_numbers / 1e9:.2g} GB, more than the "
            f"{memory / 1e9:.2g} GB that are allowed"
        )


def samples(name: str, values: ArrayLike | Tensor) -> Tensor:
    """Return `values` as a tensor without a graph, or raise unless it holds real, finite samples.

    A tensor keeps its memory; everything else is copied.

    Raises:
        TypeError: if the values are no numbers, or complex, or a tensor is not dense.
        ValueError: if there is no sample, a value is not finite or masked, or the rows differ in
            length.
    """
    if isinstance(values, Tensor):
        tensor = _dense(name, values.detach())
    else:
        array = _unmasked(name, values)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"{name} must hold numbers, got an array of dtype {array.dtype}")
        tensor = torch.from_numpy(array)
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


def _dense(name: str, tensor: Tensor) -> Tensor:
    """Return the tensor.

    Raises:
        TypeError: if it is sparse or nested.
    """
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "a nested tensor" if tensor.is_nested else f"a tensor of layout {tensor.layout}"
        raise TypeError(f"{name} must be dense, got {kind}: call its to_dense() first")
    return tensor


def _unmasked(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return a copy of the values as an array.

    Raises:
        ValueError: if some of them are masked, or the rows differ in length.
    """
    parts = values if isinstance(values, (list, tuple)) else [values]
    if any(np.ma.is_masked(part) for part in parts):
        raise ValueError(
            f"{name} must have a value everywhere, got masked ones: leave them out, or fill them in"
        )
    try:
        return np.array(values)
    except ValueError:
        raise ValueError(f"{name} must have rows of the same length, got ragged ones") from None


def kind_of(value: object) -> str:
    """Return the name of a value's class, with its module unless it is Python's own or ours."""
    cls = type(value)
    own = cls.__module__ == "builtins" or cls.__module__.startswith("sgd_analysis.")
    return cls.__qualname__ if own else f"{cls.__module__}.{cls.__qualname__}"
