"""How many samples a batch stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._criteria import batch_size_of, denominator_of, length_of_first, of_each


class Counts:
    """What batches' means divide by, and their numbers of samples.

    Args:
        criterion: its means tell, where it is torch's own or has predictions with a length.
        given: the user's function of (predictions, targets), where there is one.
    """

    def __init__(self, criterion: Callable[..., Any], given: Callable[..., float] | None) -> None:
        self._given = given
        self._denominator, self._samples = denominator_of(criterion), batch_size_of(criterion)

    def of(self, predictions: Any, targets: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what each of k batches' means divides by (k,), and their numbers of samples (k,).

        Raises:
            ValueError: if nobody says how many samples a batch stands for.
        """
        uncounted = not all(map(_can_be_counted, predictions, targets))
        if self._given is None:
            if uncounted and self._denominator is length_of_first:
                raise ValueError(
                    "the model returns one number a batch (its own mean loss?), which does not "
                    "say how many samples that is a mean over: give n_samples=, a function of "
                    "(predictions, targets), such as lambda predictions, targets: len(targets)"
                )
            denominator = of_each(self._denominator, predictions, targets)
        else:
            denominator = of_each(self._given, predictions, targets)
            if not (np.isfinite(denominator).all() and denominator.min() >= 0):
                raise ValueError(f"n_samples must give numbers >= 0, got {denominator}")
            if uncounted:
                return denominator, denominator
        return denominator, of_each(self._samples, predictions, targets)


def _can_be_counted(predictions: Any, targets: Any) -> bool:
    """Return whether a batch's number of samples can be read off what the criterion is given."""
    of = predictions if isinstance(predictions, Tensor) else targets
    return isinstance(of, Tensor) and of.ndim > 0
