"""Which of the losses a loop computes belong to a step: those whose gradient it uses."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sgd_analysis import _gradients
from sgd_analysis._columns import Value
from sgd_analysis._gradients import State

_OBSERVED = -1
_WHOLE = 1.0


class SeenLoss:
    """One loss on its way into a step."""

    __slots__ = ("criterion", "n_samples", "value", "weight")

    def __init__(self, criterion: int, value: Value, n_samples: Value) -> None:
        self.criterion = criterion
        self.value = value
        self.n_samples = n_samples
        self.weight: Value = _WHOLE  # becomes a tensor, 0 or 1, where only a device can tell


class SeenLosses:
    """The losses computed since the last step, and which of their gradients are still there.

    A loss counts if its backward pass changes a gradient of the optimizer's. If another pass
    begins and the gradients have been cleared in between, what counted until then does no more:
    the other half of a GAN, the first pass of SAM, a step that mixed precision left out.

    Hooks in the backward pass tell of it, and cost more than all the rest of a recorded step. In
    the loop of the tutorials, one loss a step, there is nothing to tell, and none are hung up
    from the second step on until two losses come before one step.

    Args:
        sums: for each criterion, whether it takes the sum over the samples instead of the mean.
        guard: wraps a function so that no error of it reaches the loop.
    """

    def __init__(
        self, sums: Sequence[bool], guard: Callable[[Callable[..., None]], Callable[..., None]]
    ) -> None:
        self.n_waiting = 0  # the losses seen since the last step
        self._sums = sums
        self._guard = guard
        self._parameters: Sequence[Tensor] = ()
        self._observed: list[SeenLoss] = []
        self._counted: list[SeenLoss] = []
        self._passes: dict[int, tuple[list[SeenLoss], State]] = {}  # that have begun
        self._watches = True
        self._is_first_step = True
        self._candidate: tuple[Value, Value, int, Tensor, State] | None = None

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say whose gradients the steps that follow use."""
        self._parameters = parameters

    def add(self, criterion: int, output: Tensor, n_samples: Value) -> None:
        """Take the output of a criterion; it counts if a step uses its gradient."""
        self.n_waiting += 1
        if not self._watches:
            if self._candidate is None:
                state = _gradients.state(self._parameters)
                self._candidate = (_value(output), n_samples, criterion, output, state)
                return
            self._watch_candidate()
        self._watch(output, SeenLoss(criterion, _value(output), n_samples))

    def observe(self, loss: Value, n_samples: Value) -> None:
        """Take a loss that overrides those of the criteria in the step that follows."""
        value = _value(loss) if isinstance(loss, Tensor) else loss
        seen = SeenLoss(_OBSERVED, value, n_samples)
        self._observed.append(seen)
        if isinstance(loss, Tensor) and loss.requires_grad:
            self._watch(loss, seen)

    def take(self, gradients: Sequence[Tensor | None]) -> tuple[Value, Value] | None:
        """Return the loss and the number of samples of a step with these gradients; forget them.

        Several passes of one criterion are averaged, weighted by their sizes, and the criteria
        added up; None where there is no loss, or no gradient left of it.
        """
        counted, observed, candidate = self._counted, self._observed, self._candidate
        n_waiting, self.n_waiting, self._candidate = self.n_waiting, 0, None
        has_gradient = False
        for gradient in gradients:  # most often the first one tells
            if gradient is not None:
                has_gradient = True
                break
        if candidate is not None and has_gradient and not observed:
            return candidate[0], candidate[1]
        if self._is_first_step and has_gradient:
            self._is_first_step = False
            self._watches = n_waiting != 1 or bool(observed)
        self._observed, self._counted = [], []
        losses = observed or (counted if has_gradient else [])
        if not losses:
            return None
        if len(losses) == 1 and losses[0].weight is _WHOLE:
            return losses[0].value, losses[0].n_samples
        totals = [
            self._total([seen for seen in losses if seen.criterion == criterion])
            for criterion in sorted({seen.criterion for seen in losses})
        ]
        return sum(loss for loss, _ in totals), totals[0][1]

    def forget(self) -> None:
        """Drop everything that waits for a step."""
        self._observed, self._counted, self._candidate, self.n_waiting = [], [], None, 0
        self._passes = {}

    def _watch_candidate(self) -> None:
        """Find out what became of the loss without a hook, and hang hooks up from now on."""
        self._watches = True
        if self._candidate is None:
            return
        value, n_samples, criterion, output, before = self._candidate
        self._candidate = None
        seen = SeenLoss(criterion, value, n_samples)
        self._watch(output, seen)  # which tells if its backward pass is still to come
        if _gradients.has_passed(self._parameters, before):
            self._counted.append(seen)

    def _watch(self, output: Tensor, seen: SeenLoss) -> None:
        if output.grad_fn is not None:
            begins = self._guard(lambda _: self._backward_begins(seen))
            output.grad_fn.register_prehook(begins)

    def _backward_begins(self, seen: SeenLoss) -> None:
        this_pass = torch._C._current_graph_task_id()  # several losses may share one pass
        if this_pass not in self._passes:
            if self._counted and not self._passes:
                self._drop_cleared()
            self._passes[this_pass] = ([], _gradients.state(self._parameters))
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(self._guard(lambda: self._backward_ends(this_pass)))
        self._passes[this_pass][0].append(seen)

    def _backward_ends(self, this_pass: int) -> None:
        losses, before = self._passes.pop(this_pass, ([], []))
        if _gradients.has_passed(self._parameters, before):
            self._counted += [seen for seen in losses if seen not in self._counted]

    def _drop_cleared(self) -> None:
        cleared = _gradients.cleared(self._parameters)
        if isinstance(cleared, Tensor):
            for seen in self._counted:
                seen.weight = torch.where(cleared, 0.0, seen.weight)
                seen.value = torch.where(cleared, 0.0, seen.value)  # it may be infinite
        elif cleared:
            self._observed = [seen for seen in self._observed if seen not in self._counted]
            self._counted = []

    def _total(self, losses: list[SeenLoss]) -> tuple[Value, Value]:
        n_samples = sum(seen.weight * seen.n_samples for seen in losses)
        if losses[0].criterion != _OBSERVED and self._sums[losses[0].criterion]:
            return sum(seen.weight * seen.value for seen in losses), n_samples
        weighted = sum(seen.weight * seen.n_samples * seen.value for seen in losses)
        if not isinstance(n_samples, Tensor) and n_samples == 0:
            return math.nan, 0.0
        return weighted / n_samples, n_samples


def _value(loss: Tensor) -> Value:
    """Return a copy of a loss, or of its mean; a number unless it is on a device."""
    if loss.ndim or loss.is_complex():
        if loss.is_complex():
            return math.nan
        loss = loss.detach().float().mean() if loss.itemsize < 4 else loss.detach().mean()
    return loss.item() if loss.is_cpu else loss.detach().clone()
