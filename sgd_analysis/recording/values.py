"""Numbers read off a loop; a tensor's stays on its device, for which nothing waits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording.gradients import on_this_process


def number(value: Any) -> Value:
    """Return a number, or a copy of a tensor that is on a device; nan for what is no number."""
    if isinstance(value, Tensor):
        scalar = value.detach().reshape(())
        return float(scalar.item()) if value.is_cpu else scalar.clone()
    return float(value) if isinstance(value, Real) else math.nan


def mean(loss: Tensor) -> Value:
    """Return the mean of a loss, which most often is one number; nan for a complex one."""
    loss = on_this_process(loss)
    if loss.is_complex():
        return math.nan
    if loss.ndim:
        loss = loss.detach().float().mean() if loss.itemsize < 4 else loss.detach().mean()
    return loss.item() if loss.is_cpu else loss.detach().clone()


def total(numbers: Iterable[Value]) -> Value:
    """Return the sum of numbers, some of which may be on a device."""
    added: Value = 0.0
    for one in numbers:
        added = added + one
    return added
