"""The backward passes of one thread whose gradients its next step may use."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording import backward, marks
from sgd_analysis.recording.gradients import unscaled_norm
from sgd_analysis.recording.marks import Mark, State
from sgd_analysis.recording.objective import WHOLE, objective, scale_of

NO_CRITERION = sys.maxsize  # the number that stands for it in a call: it comes last


class Call:
    """A call of a criterion: it tells how many samples a backward pass through it is about."""

    __slots__ = (
        "criterion",
        "denominator",
        "factor",
        "is_sum",
        "kind",
        "n_samples",
        "node",
        "rows",
        "value",
        "vote",
    )

    def __init__(
        self,
        criterion: int,
        node: int,
        value: Value,
        denominator: Value,
        n_samples: Value,
        *,
        is_sum: bool,
        kind: str = "",
        rows: frozenset[int] = frozenset(),
    ) -> None:
        self.criterion = criterion
        self.node = node
        self.value = value
        self.denominator = denominator
        self.n_samples = n_samples
        self.is_sum = is_sum  # over the samples, instead of their mean
        self.kind = kind  # of one of no criterion: the node that reduces
        self.rows = rows  # the numbers of nodes that tell whether another call has the same samples
        self.factor: Value = math.nan  # what a sum is multiplied by on its way into the objective
        self.vote: Value = math.nan  # and of the mean that it is, or makes


class Observed(NamedTuple):
    """A loss that the loop itself has told."""

    value: Value
    n_samples: Value
    denominator: Value
    comes_first: bool  # before any backward pass of its step


class Pass:
    """A backward pass that counts: it has changed a gradient of the optimizer's."""

    __slots__ = ("calls", "mark", "norm", "observed", "scale", "value", "weight")

    def __init__(self, value: Value, calls: list[Call], scale: Value) -> None:
        self.value = value  # its objective
        self.calls = calls
        self.scale = scale  # a GradScaler's
        self.observed: list[Observed] = []
        self.weight: Value = WHOLE  # becomes a tensor, 0 or 1, where only a device can tell
        self.mark: Mark | None = None  # how it left one of the gradients
        self.norm: Value = math.nan  # of all of them, where it was measured

    def measured(self, norm: Value) -> None:
        """Take the norm of the gradients as it has left them."""
        self.norm = norm if self.scale is WHOLE else unscaled_norm(norm, self.scale)

    def is_plain(self) -> bool:
        """Return whether it is one call's, of a criterion that takes the mean, and whole."""
        return len(self.calls) == 1 and not self.calls[0].is_sum and self.weight is WHOLE


class Passes:
    """What one thread has computed since the last step."""

    __slots__ = ("_before", "_calls", "_has_dropped", "counted", "is_sure", "observed", "open")

    def __init__(self) -> None:
        self.counted: list[Pass] = []
        self.observed: Observed | None = None  # that waits for its pass
        self.open: Pass | None = None  # the pass that is running
        self.is_sure = False  # that it is one for these parameters
        self._calls: list[Call] = []  # that no pass has come to yet
        self._before: State = [], []
        self._has_dropped = False  # whether a pass of it has lost its gradients

    def add(self, call: Call) -> None:
        """Add a call that waits for the pass which goes through it."""
        self._calls.append(call)

    def begin(
        self,
        roots: Sequence[Any],
        seeds: Sequence[Tensor | None],
        parameters: Sequence[Tensor],
        sizes: Callable[[Sequence[Any], bool], list[Call]] | None,
        watches: bool = False,
    ) -> None:
        """Begin a pass, with what `sizes` tells of it if it goes through no criterion's call."""
        self.open = None  # one that has raised
        scale = scale_of(roots)
        self._before = marks.state(parameters)
        calls = self._calls_below(roots) if self._calls and roots else []
        if not calls and sizes is not None:
            calls = sizes(roots, watches)
        self.open = Pass(objective(roots, seeds, scale), calls, scale)

    def end(self, parameters: Sequence[Tensor], *, looks: bool) -> bool:
        """End the open pass, and count it if it has changed a gradient.

        Args:
            parameters: whose gradients.
            looks: whether to see if what it has left is all zeros.

        Returns:
            Whether it counts, and is not the first.
        """
        ended, before = self.open, self._before
        self.open, self._before = None, ([], [])
        mark = marks.changed(parameters, before)
        if mark is None or ended is None:
            return False
        ended.mark = mark.with_contents() if looks else mark
        if self.observed is not None:
            ended.observed = [self.observed]
            self.observed = None
        self.counted.append(ended)
        return len(self.counted) > 1

    def observe(self, value: Value, n_samples: Value, denominator: Value) -> None:
        """Take a loss for that of the last pass that counts, or else of the next."""
        observed = Observed(value, n_samples, denominator, comes_first=not self.counted)
        if self.counted:
            self.counted[-1].observed.append(observed)
        else:
            self.observed = observed

    def is_untouched(self) -> bool:
        """Return whether the last pass that counts has left its gradients as they are now."""
        return self._last_mark().is_untouched

    def drop_cleared(self, parameters: Sequence[Tensor]) -> bool | Tensor | None:
        """Let the passes count no more whose gradients have been cleared since.

        Returns:
            None where that can be told. Otherwise whether it may be so, the gradients being all
            zeros: after `grad.data.zero_()`, or because they are exactly that.
        """
        mark = self._last_mark()
        cleared = marks.was_cleared(mark, parameters)
        if mark.held_anything is None and mark.is_untouched:
            if cleared is not False:
                for one in self.counted:
                    one.value = _nan_where(cleared, one.value)
            return cleared
        if isinstance(cleared, Tensor):
            for one in self.counted:
                one.weight = torch.where(cleared, 0.0, one.weight)
                one.value = torch.where(cleared, 0.0, one.value)  # it may be infinite
        elif cleared:
            self.counted, self._has_dropped = [], True
        return None

    def used_by(self, gradients: Sequence[Tensor | None]) -> list[Pass]:
        """Return the passes whose gradients a step uses."""
        for gradient in gradients:  # most often the first one tells
            if gradient is not None:
                break
        else:
            return []
        if self._has_dropped and self.counted and not self._last_mark().is_there:
            return []  # gradients of several passes, put together by the loop
        return self.counted

    def observed_of(self, used: Sequence[Pass]) -> list[Observed]:
        """Return what the loop has told of these passes; or else what waits for one."""
        observed = [seen for one in used for seen in one.observed]
        return [self.observed] if self.observed is not None and not observed else observed

    def _calls_below(self, roots: Sequence[Any]) -> list[Call]:
        """Return the calls that a pass from these roots goes through; they wait no more."""
        waiting, root = self._calls, roots[0]
        if len(waiting) == 1 and len(roots) == 1 and isinstance(root, Tensor):
            if backward.node(root) == waiting[0].node:
                self._calls = []
                return waiting  # most often
        reached = backward.reached(roots, {call.node for call in waiting})
        self._calls = [call for call in waiting if call.node not in reached]
        return [call for call in waiting if call.node in reached]

    def _last_mark(self) -> Mark:
        mark = self.counted[-1].mark
        assert mark is not None  # as it has ended
        return mark


def _nan_where(flag: bool | Tensor, value: Value) -> Value:
    return torch.where(flag, math.nan, value) if isinstance(flag, Tensor) else math.nan
