"""How many samples a batch has, and what the mean of its loss divides by."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, TypeAlias

from torch import Tensor, nn

from sgd_analysis._arrays import Value
from sgd_analysis._criteria import batch_size_of, denominator_of
from sgd_analysis._validation import kind_of, positive_number
from sgd_analysis.recording.values import number

# What a criterion is called with -> its denominator, and the number of samples.
Sizes: TypeAlias = Callable[..., tuple[Value, Value]]


def sizes_of(criterion: nn.Module) -> Sizes:
    """Return the function that tells the sizes of a criterion's calls."""
    denominator, batch_size = denominator_of(criterion), batch_size_of(criterion)
    return lambda *args, **kwargs: (denominator(*args, **kwargs), batch_size(*args, **kwargs))


def given_sizes(n_samples: float | Callable[..., float]) -> Sizes:
    """Return the same where the user tells the number of samples, or how to, in both roles."""

    def sizes(*args: Any, **kwargs: Any) -> tuple[Value, Value]:
        given = n_samples(*args, **kwargs) if callable(n_samples) else n_samples
        size = told_size("n_samples", given)
        return size, size

    return sizes


def told_size(name: str, size: float | Tensor) -> Value:
    """Return a size that the loop tells, as it is recorded.

    Raises:
        TypeError: if it is neither a number nor a tensor.
        ValueError: if it has several elements, or is not positive.
    """
    if not isinstance(size, Tensor):
        return positive_number(name, size)
    if not _is_one_real_number(size):
        raise ValueError(f"{name} must be one real number, got {size}")
    plain = number(size)
    return plain if isinstance(plain, Tensor) else positive_number(name, plain)


def check_loss(loss: float | Tensor) -> None:
    """Raise unless a loss that the loop tells is one number.

    Raises:
        TypeError: if it is neither a number nor a tensor.
        ValueError: if it has several elements.
    """
    if isinstance(loss, Tensor):
        if not _is_one_real_number(loss):
            raise ValueError(
                "loss must have one real element, the mean over the batch, got shape "
                f"{tuple(loss.shape)} of {loss.dtype}"
            )
    elif not isinstance(loss, Real):
        raise TypeError(f"loss must be a number or a tensor, got {kind_of(loss)}")


def is_plain(size: object) -> bool:
    """Return whether a size needs no further look: a positive number of Python's own."""
    return type(size) is float and 0 < size < math.inf


def _is_one_real_number(tensor: Tensor) -> bool:
    return tensor.numel() == 1 and not tensor.is_complex()
