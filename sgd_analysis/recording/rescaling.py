"""Whether a loop multiplies its gradients by hand: then a loss and its row's gradient part ways."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording.gradients import on_this_process
from sgd_analysis.recording.marks import Mark

_ENTRIES = 64  # of one gradient, that are compared
_STEPS = 16  # the first ones, at most
_CLOSE = 1e-3  # more than rounding in half precision leaves of a few entries' ratio


class Rescaling:
    """Compares gradients as a backward pass leaves them with what the step is given.

    Clipping makes them shorter, in some steps more than in others, and a GradScaler takes its own
    factor out. What makes them longer, or shorter by the same factor in each step, is neither.
    """

    def __init__(self) -> None:
        self.looks = True
        self._before: tuple[Mark, Tensor, Value] | None = None
        self._factors: list[Value] = []

    def pass_ends(self, mark: Mark, scale: Value) -> None:
        """Take note of a gradient that a pass has left, multiplied by a GradScaler's scale."""
        entries = _entries(mark)
        self._before = None if entries is None else (mark, entries.clone(), scale)

    def step(self) -> None:
        """Compare it with what the step is given."""
        seen, self._before = self._before, None
        if seen is not None:
            self._factors.append(1.0 if seen[0].is_untouched else _factor(*seen))
        self.looks = len(self._factors) < _STEPS

    def found(self) -> tuple[float, float] | None:
        """Return the smallest and the largest factor, if the gradients were multiplied by some.

        It waits for a device, and looks no further: an epoch has ended.
        """
        self.looks, self._before = False, None
        factors = [factor for one in self._factors if not math.isnan(factor := float(one))]
        self._factors = []
        if len(factors) < 2:
            return None
        least, most = min(factors), max(factors)
        is_same = most - least <= _CLOSE * most and abs(most - 1) > _CLOSE
        return (least, most) if is_same or most > 1 + _CLOSE else None


def _factor(mark: Mark, before: Tensor, scale: Value) -> Value:
    """Return what entries were multiplied by, besides a scaler's factor; nan if not all by one."""
    after = _entries(mark)
    if after is None or after.shape != before.shape:
        return math.nan
    factor = torch.dot(after, before) / torch.dot(before, before)
    is_multiple = torch.dist(after, factor * before) < _CLOSE * after.norm()
    return torch.where(is_multiple, factor * scale, math.nan)


def _entries(mark: Mark) -> Tensor | None:
    """Return the first entries of a gradient as they are now, in double precision if it can be."""
    gradient = mark.parameter.grad
    if gradient is None or gradient.layout is not torch.strided or gradient.is_complex():
        return None
    entries = on_this_process(gradient.detach()).flatten()[:_ENTRIES]
    return entries.float() if entries.device.type == "mps" else entries.double()
