"""How many samples a backward pass is about that goes through no criterion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from sgd_analysis._loss_graph import Reduced, reductions_below, sole_reduction
from sgd_analysis.recording import values
from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.passes import NO_CRITERION, Call
from sgd_analysis.recording.sizes import given_sizes


class PassSizes:
    """Makes the calls of no criterion that would tell the sizes of a backward pass.

    Args:
        n_samples: their number in each pass; or the user's own function that tells it, which is
            called with nothing when a pass begins; None for what the graph of the pass tells.
        failed: called with the error if that function fails.
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(
        self,
        n_samples: float | Callable[[], float] | None,
        failed: Callable[[Exception], None],
        guard: Guard,
    ) -> None:
        self._given = None if n_samples is None else given_sizes(n_samples)
        self._failed = failed
        self._guard = guard

    def __call__(self, roots: Sequence[Any], watches: bool) -> list[Call]:
        """Return the calls for a pass from these roots, watched if there may be other passes."""
        if self._given is None:
            return [self._of(found, watches) for found in reductions_below(roots)]
        try:
            denominator, n_samples = self._given()
        except Exception as error:
            self._failed(error)
            return []
        call = Call(NO_CRITERION, -1, math.nan, denominator, n_samples, is_sum=False)
        if watches and (node := sole_reduction(roots)) is not None:
            watch_factor(call, node, self._guard)
        return [call]

    def _of(self, found: Reduced, watches: bool) -> Call:
        node, denominator, n_samples, is_sum, _, rows = found
        sizes = denominator, n_samples
        number, kind = node._sequence_nr(), type(node).__name__
        call = Call(NO_CRITERION, number, math.nan, *sizes, is_sum=is_sum, kind=kind, rows=rows)
        if is_sum or watches:
            watch_factor(call, node, self._guard)
        return call


def watch_factor(call: Call, node: Any, guard: Guard) -> None:
    """Have a call know what it is multiplied by on its way into the objective."""
    adds_up = call.is_sum or type(node).__name__ == "SumBackward0"  # which the loop divides

    def before(gradients: tuple[Tensor | None, ...]) -> None:
        if (gradient := gradients[0]) is not None:
            call.factor = values.mean(gradient)
            call.vote = call.factor * (call.denominator if adds_up else gradient.numel())

    node.register_prehook(guard(before))
