"""How many samples a batch stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._criteria import batch_size_of, denominator_of, length_of_first, of_each
from sgd_analysis.surveying.batches import length_of

_UNKNOWN = (
    "the model returns one number a batch (its own mean loss?), which does not say how many "
    "samples that is a mean over: give n_samples=, a function of (predictions, targets), such as "
    "lambda predictions, targets: len(targets)"
)
_UNKNOWN_OF_MODEL = (
    "the loss that the model returns does not say over how many samples, or tokens, it is a mean: "
    "give n_samples=, a function of (output, batch), such as lambda output, batch: "
    '(batch["labels"][:, 1:] != -100).sum() for next tokens'
)


class Counts:
    """What batches' means divide by, and their numbers of samples.

    Args:
        criterion: its means tell, where it is torch's own or has predictions with a length; None
            where the model computes its loss.
        given: the user's function of (predictions, targets), where there is one.
    """

    def __init__(
        self, criterion: Callable[..., Any] | None, given: Callable[..., float] | None
    ) -> None:
        self._given, self._is_own = given, criterion is None
        plain: Any = criterion
        self._denominator, self._samples = denominator_of(plain), batch_size_of(plain)

    def of(self, predictions: Any, targets: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what each of k batches' means divides by (k,), and their numbers of samples (k,).

        Raises:
            ValueError: if nobody says how many samples a batch stands for.
        """
        uncounted = self._is_own or not all(map(_can_be_counted, predictions, targets))
        if self._given is None:
            if uncounted and self._denominator is length_of_first:
                raise ValueError(_UNKNOWN_OF_MODEL if self._is_own else _UNKNOWN)
            denominator = of_each(self._denominator, predictions, targets)
        else:
            denominator = of_each(self._given, predictions, targets)
            if not (np.isfinite(denominator).all() and denominator.min() >= 0):
                raise ValueError(f"n_samples must give numbers >= 0, got {denominator}")
            if uncounted:
                lengths = map(length_of, targets)
                either = [*map(_or, lengths, denominator)]
                return denominator, np.array(either, dtype=float)
        return denominator, of_each(self._samples, predictions, targets)


def _can_be_counted(predictions: Any, targets: Any) -> bool:
    """Return whether a batch's number of samples can be read off what the criterion is given."""
    of = predictions if isinstance(predictions, Tensor) else targets
    return isinstance(of, Tensor) and of.ndim > 0


def _or(length: int | None, denominator: float) -> float:
    return denominator if length is None else length
