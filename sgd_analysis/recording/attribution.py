"""Which loss belongs to a step: what `backward()` was called on, if the step uses its gradient."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording import backward, values
from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.pass_sizes import PassSizes, watch_factor
from sgd_analysis.recording.passes import Call, Passes
from sgd_analysis.recording.rescaling import Rescaling
from sgd_analysis.recording.step_loss import StepLoss, StepLosses

_NOTHING: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
_LONGEST_WAIT = 10.0  # seconds, which no look takes: one that was interrupted may never end


class _Turn:
    """One thread's turn to look, or its going on without after the longest wait."""

    def __init__(self, looking: threading.RLock) -> None:
        self._looking, self._is_mine = looking, False

    def __enter__(self) -> None:
        self._is_mine = self._looking.acquire(timeout=_LONGEST_WAIT)

    def __exit__(self, *_: object) -> None:
        if self._is_mine:
            self._looking.release()


class SeenLosses:
    """The backward passes since the last step, and which of their gradients are still there.

    A pass counts if it changes a gradient of the optimizer's. If another one begins and the
    gradients have been cleared in between, what counted until then does no more: the other half
    of a GAN, the first pass of SAM, a step that mixed precision left out. What counts is added
    up: it is the function whose gradient the step takes.

    Only the thread that makes the steps is looked at; before the first step, and where an epoch
    has ended, each thread by itself.

    Args:
        sums: for each criterion, whether it takes the sum over the samples instead of the mean.
        sizes: tells those of a pass through no criterion; None if nothing can.
        guard: wraps a function so that no error of it reaches the loop.
        from_criteria: whether a step's loss is what the criteria say instead of its objective.
        measure: returns the norm of the gradients that a pass has left, if that is wanted.
    """

    def __init__(
        self,
        sums: Sequence[bool],
        sizes: PassSizes | None,
        guard: Guard,
        *,
        from_criteria: bool = False,
        measure: Callable[[], Value] | None = None,
    ) -> None:
        self.n_waiting = 0  # the passes seen since the last step
        self.unsure: list[bool | Tensor] = []  # whether it could not be told what was cleared
        self._sums, self._sizes = sums, sizes
        self._guard = guard
        self._from_criteria, self._measure = from_criteria, measure
        self._losses = StepLosses(from_criteria=from_criteria)
        self._parameters: Sequence[Tensor] = ()
        self._looking = threading.RLock()  # which is held while it is not known whose thread counts
        self._owner: int | None = None  # the thread that makes the steps
        self._threads: dict[int, Passes] = {}
        self.unclipped: Value | None = None  # the norm for the step taken last, where wanted
        self.rescaling = Rescaling()
        self._several = False  # whether a step has had several passes
        self._n_observed = self._n_steps = 0
        self._first_unobserved = False

    @property
    def is_late(self) -> bool:
        """Whether losses were observed after the step they belong to."""
        return self._losses.is_late

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say whose gradients the steps that follow use."""
        self._parameters = parameters

    def add(self, criterion: int, output: Tensor, denominator: Value, n_samples: Value) -> None:
        """Take note of a criterion's output; it counts if a pass that counts goes through it."""
        passes, node = self._here(), backward.node(output)
        if passes is None or node is None:
            return
        value = values.mean(output) if self._from_criteria else math.nan
        is_sum = self._sums[criterion]
        call = Call(criterion, node, value, denominator, n_samples, is_sum=is_sum)
        if is_sum or self._watches(passes):
            watch_factor(call, output.grad_fn, self._guard)
        passes.add(call)

    def observe(self, loss: Value, n_samples: Value, denominator: Value) -> None:
        """Take the loss of the next backward pass, or of the last one if the step's has been."""
        value = values.mean(loss) if isinstance(loss, Tensor) else loss
        passes = self._here()
        if passes is None:
            return
        self._n_observed += 1
        if passes.counted and not passes.is_untouched():
            self._drop_cleared(passes)  # the batch before may have led to no step
        passes.observe(value, n_samples, denominator)

    def begins(self, roots: Sequence[Any], seeds: Sequence[Tensor | None]) -> None:
        """Take note of a backward pass that begins."""
        with _Turn(self._looking) if self._owner is None else _NOTHING:
            passes = self._here()
            if passes is None:
                return
            is_contested = self._is_contested(passes)
            if is_contested and not backward.reaches(roots, self._parameters):
                return
            if passes.counted:
                self._drop_cleared(passes)
            self.n_waiting += 1
            passes.is_sure = is_contested
            passes.begin(roots, seeds, self._parameters, self._sizes, self._watches(passes))

    def ends(self) -> None:
        """Take note of its end."""
        with _Turn(self._looking) if self._owner is None else _NOTHING:
            passes = self._threads.get(threading.get_ident())  # where it has begun, if it counts
            if passes is None or passes.open is None:
                return
            if passes.is_sure or not self._is_contested(passes):
                self._end(passes)
            else:
                passes.open = None

    def take(self, gradients: Sequence[Tensor | None]) -> StepLoss:
        """Return what is known of the loss of a step with these gradients; forget it."""
        self._owner = threading.get_ident()
        passes = self._threads.pop(self._owner, None) or Passes()
        self._threads.clear()
        self.n_waiting = 0
        if passes.open is not None and torch._C._current_graph_task_id() != -1:
            self._end(passes)  # the step is made by a hook of the running pass
        if self.rescaling.looks:
            self.rescaling.step()
        used = passes.used_by(gradients)
        if self._measure is not None:
            self.unclipped = used[-1].norm if used else math.nan
        observed = passes.observed_of(used)
        self._n_steps += 1
        if self._n_steps == 1:
            self._first_unobserved = not observed and bool(used)
        return self._losses.of(used, observed)

    def end_epoch(self) -> None:
        """Take the next step from any thread."""
        self._owner = None

    def forget(self) -> None:
        """Drop everything that waits for a step."""
        self._threads.clear()
        self.n_waiting = 0

    def look_for_shift(self) -> None:
        """Find out, at the end, whether each loss was observed after its step."""
        waits = any(passes.observed is not None for passes in self._threads.values())
        if waits and self._first_unobserved and self._n_observed == self._n_steps:
            self._losses.is_late = True

    def _here(self) -> Passes | None:
        me = threading.get_ident()
        if me != self._owner and self._owner is not None:
            return None
        passes = self._threads.get(me)
        if passes is None:
            passes = self._threads[me] = Passes()
        return passes

    def _is_contested(self, passes: Passes) -> bool:
        """Return whether another thread is in a pass, too, and it is not known whose counts.

        The engine writes gradients without Python's lock: while it does so in one thread, they must
        not be looked at in another. None begins a pass while another looks.
        """
        if self._owner is not None or len(self._threads) < 2:
            return False
        others = list(self._threads.values())
        return any(other.open is not None for other in others if other is not passes)

    def _watches(self, passes: Passes) -> bool:
        """Return whether a step may have several passes: most loops make one, and it takes time."""
        return self._several or not self._n_steps or bool(passes.counted)

    def _end(self, passes: Passes) -> None:
        looks = self._several or not self._n_steps  # it takes time, as above
        n_before = len(passes.counted)
        if passes.end(self._parameters, looks=looks):
            self._several = True
        if self._measure is not None and len(passes.counted) > n_before:
            passes.counted[-1].measured(self._measure())
        if self.rescaling.looks and passes.counted:
            last = passes.counted[-1]
            if last.mark is not None:
                self.rescaling.pass_ends(last.mark, last.scale)

    def _drop_cleared(self, passes: Passes) -> None:
        doubt = passes.drop_cleared(self._parameters)
        if doubt is not None:
            self._several = True
            if doubt is not False:
                self.unsure.append(doubt)
