"""One pass, one vote: what a step's objective lacks for its passes to weigh by their sizes."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.history.size_weighting import VISIBLE, median_change
from sgd_analysis.recording.values import total

_STEPS = 64  # the first ones, at most
_MEAN = 1e-2  # what the votes of means may miss one by, in half precision
_SAME = 1e-5  # of a vote: more than rounding in single precision leaves


class Part(NamedTuple):
    """A backward pass of a step.

    Args:
        value: what it adds to the objective.
        size: what the mean over its batch divides by.
        vote: the factor of that mean.
    """

    value: Value
    size: Value
    vote: Value


def size_weighting(parts: Sequence[Part]) -> Value | None:
    """Return what is to be added to the values of the parts for each to weigh by its size.

    Returns:
        None, or 0 where only a device can tell, if they weigh as they should, or the loop has
        given them other weights than one vote each; nan if that is not known.
    """
    parts = [part for part in parts if not _is_empty(part)]
    if _are_equal([part.size for part in parts]):
        return None
    if any(_is_nan(part.size * part.vote) for part in parts):
        return math.nan
    one_each = functools.reduce(operator.and_, (_is_close(part, parts[0]) for part in parts))
    if isinstance(one_each, Tensor):
        return torch.where(one_each, _added(parts), 0.0)
    return _added(parts) if one_each else None


def _added(parts: Sequence[Part]) -> Value:
    mean = total(part.size for part in parts) / total(part.size > 0 for part in parts)
    return total((part.size / mean - 1) * part.value for part in parts)


def _is_empty(part: Part) -> bool:
    return not isinstance(part.size, Tensor) and part.size == 0


def _are_equal(sizes: Sequence[Value]) -> bool:
    return all(not isinstance(n, Tensor) and n == sizes[0] for n in sizes)


def _is_close(part: Part, other: Part) -> bool | Tensor:
    """Return whether their votes are the same, to rounding."""
    difference, bound = part.vote - other.vote, _SAME * other.vote
    return difference * difference <= bound * bound


def _is_nan(value: Value) -> bool:
    return not isinstance(value, Tensor) and math.isnan(value)


class Votes:
    """Looks at the first steps: whether in most of them the sizes of their passes are to be seen.

    Where they are not, it would be a false alarm: where only the last step of an epoch is ragged.
    So it would be of passes that are not averaged, for they need not be parts of one batch: a
    GAN's real and fake samples, those of several tasks, new ones and a memory's.
    """

    def __init__(self) -> None:
        self._looks = True
        self._seen: list[tuple[Value, Value, Value]] = []

    def step(self, loss: Value, added: Value | None, votes: Value) -> None:
        """Take note of a step, its `size_weighting`, and the sum of its votes."""
        if self._looks:
            self._seen.append((loss, 0.0 if added is None else added, votes))
            self._looks = len(self._seen) < _STEPS

    def found(self) -> tuple[float, float, float] | None:
        """Return the mean loss as it is and weighted by size, and the median change of a step.

        It waits for a device, and looks no further: an epoch has ended.

        Returns:
            None if that is not to be seen.
        """
        self._looks, seen, self._seen = False, self._seen, []
        loss, added, votes = np.array([list(map(float, row)) for row in seen]).reshape(-1, 3).T
        added = np.where((np.abs(votes - 1) < _MEAN) | np.isnan(added), added, 0.0)
        if (change := median_change(loss, added)) <= VISIBLE:
            return None
        known = ~np.isnan(loss + added)
        return float(loss[known].mean()), float((loss + added)[known].mean()), change
