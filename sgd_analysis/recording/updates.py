"""How far each step moves the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording.gradients import norm
from sgd_analysis.recording.parameters import Parameters


class Updates:
    """A copy of the weights as a step found them, to compare with what it has left.

    Args:
        parameters: those of the optimizer.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._before: list[Tensor] = []

    def lay_out(self) -> None:
        """Take note that the parameters are others."""
        self._before = []

    def begin(self) -> None:
        """Take note of a step that begins."""
        now = self._parameters.weights()
        if self._before:
            torch._foreach_copy_(self._before, now)
        else:
            self._before = [weight.clone() for weight in now]

    def norm(self) -> Value:
        """Return how far the step has moved them, after it."""
        torch._foreach_sub_(self._before, self._parameters.weights())
        return norm(self._before)
