"""Which loss belongs to a step: what `backward()` was called on, if the step uses its gradient."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording import backward, gradients, marks
from sgd_analysis.recording.marks import Mark, State

_WHOLE = 1.0


class StepLoss(NamedTuple):
    """What is recorded of a step's loss; nan where it is not known."""

    loss: Value = math.nan
    n_samples: Value = math.nan
    denominator: Value = math.nan
    objective: Value | None = None  # where it is another than the loss
    divisor: Value | None = None  # of sums: what makes means of them


class Call:
    """A call of a criterion: it tells how many samples a backward pass through it is about."""

    __slots__ = ("criterion", "denominator", "factor", "n_samples", "node", "value")

    def __init__(
        self, criterion: int, node: int, value: Value, denominator: Value, n_samples: Value
    ) -> None:
        self.criterion = criterion
        self.node = node
        self.value = value
        self.denominator = denominator
        self.n_samples = n_samples
        self.factor: Value = math.nan  # what a sum is multiplied by on its way into the objective


class Observed(NamedTuple):
    """A loss that the loop itself has told."""

    value: Value
    n_samples: Value
    denominator: Value
    comes_first: bool  # before any backward pass of its step


class Pass:
    """A backward pass whose gradients a step may use."""

    __slots__ = ("calls", "mark", "observed", "scale", "value", "weight")

    def __init__(self, value: Value, calls: list[Call], scale: Value) -> None:
        self.value = value
        self.calls = calls
        self.scale = scale  # a GradScaler's
        self.observed: list[Observed] = []
        self.weight: Value = _WHOLE  # becomes a tensor, 0 or 1, where only a device can tell
        self.mark: Mark | None = None  # how it left one of the gradients


class _Thread:
    """What one thread has computed since the last step."""

    __slots__ = ("before", "calls", "counted", "has_dropped", "observed", "open")

    def __init__(self) -> None:
        self.calls: list[Call] = []  # that no pass has come to yet
        self.counted: list[Pass] = []
        self.observed: Observed | None = None  # that waits for its pass
        self.open: Pass | None = None  # the pass that is running
        self.before: State = [], []
        self.has_dropped = False  # whether a pass of it has lost its gradients


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
        guard: wraps a function so that no error of it reaches the loop.
        from_criteria: whether a step's loss is what the criteria say instead of its objective.
    """

    def __init__(
        self,
        sums: Sequence[bool],
        guard: Callable[[Callable[..., None]], Callable[..., None]],
        *,
        from_criteria: bool = False,
    ) -> None:
        self.n_waiting = 0  # the passes seen since the last step
        self.is_late = False  # whether losses were observed after the step they belong to
        self.unsure: list[bool | Tensor] = []  # whether it could not be told what was cleared
        self._sums = sums
        self._guard = guard
        self._from_criteria = from_criteria
        self._parameters: Sequence[Tensor] = ()
        self._owner: int | None = None  # the thread that makes the steps
        self._threads: dict[int, _Thread] = {}
        self._several = False  # whether a step has had several passes
        self._n_observed = self._n_steps = 0
        self._first_unobserved = False
        self._last_objective: Value = math.nan

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say whose gradients the steps that follow use."""
        self._parameters = parameters

    def add(self, criterion: int, output: Tensor, denominator: Value, n_samples: Value) -> None:
        """Take note of a criterion's output; it counts if a pass that counts goes through it."""
        thread, node = self._here(), backward.node(output)
        if thread is None or node is None:
            return
        value = _value(output) if self._from_criteria else math.nan
        call = Call(criterion, node, value, denominator, n_samples)
        if self._sums[criterion]:
            grad_fn: Any = output.grad_fn
            grad_fn.register_prehook(self._guard(lambda gradients: _set_factor(call, *gradients)))
        thread.calls.append(call)

    def observe(self, loss: Value, n_samples: Value, denominator: Value) -> None:
        """Take the loss of the next backward pass, or of the last one if the step's has been."""
        value = _value(loss) if isinstance(loss, Tensor) else loss
        thread = self._here()
        if thread is None:
            return
        self._n_observed += 1
        if thread.counted and not _mark_of(thread.counted).is_untouched:
            self._drop_cleared(thread)  # the batch before may have led to no step
        observed = Observed(value, n_samples, denominator, comes_first=not thread.counted)
        if thread.counted:
            thread.counted[-1].observed.append(observed)
        else:
            thread.observed = observed

    def begins(self, roots: Sequence[Any], seeds: Sequence[Tensor | None]) -> None:
        """Take note of a backward pass that begins."""
        thread = self._here()
        if thread is None:
            return
        thread.open = None  # of a pass that has raised
        if thread.counted:
            self._drop_cleared(thread)
        self.n_waiting += 1
        scale = _scale_of(roots)
        thread.before = marks.state(self._parameters)
        calls = self._calls_of(thread, roots)
        thread.open = Pass(_objective(roots, seeds, scale), calls, scale)

    def ends(self) -> None:
        """Take note of its end."""
        thread = self._here()
        if thread is not None and thread.open is not None:
            self._close(thread, thread.open)

    def _close(self, thread: _Thread, ended: Pass) -> None:
        before = thread.before
        thread.open, thread.before = None, ([], [])
        mark = marks.changed(self._parameters, before)
        if mark is None:
            return
        if self._several or not self._n_steps:  # it takes time, and most loops make one pass
            mark = mark.with_contents()
        ended.mark = mark
        if thread.observed is not None:
            ended.observed = [thread.observed]
            thread.observed = None
        self._several |= bool(thread.counted)
        thread.counted.append(ended)

    def take(self, gradients: Sequence[Tensor | None]) -> StepLoss:
        """Return what is known of the loss of a step with these gradients; forget it."""
        self._owner = threading.get_ident()
        thread = self._threads.pop(self._owner, None) or _Thread()
        self._threads.clear()
        self.n_waiting = 0
        if thread.open is not None and torch._C._current_graph_task_id() != -1:
            self._close(thread, thread.open)  # the step is made by a hook of the running pass
        passes: list[Pass] = []
        for gradient in gradients:  # most often the first one tells
            if gradient is not None:
                passes = thread.counted
                break
        if passes and thread.has_dropped and not _mark_of(passes).is_there:
            passes = []  # gradients of several passes, put together by the loop
        observed = [seen for one in passes for seen in one.observed]
        if thread.observed is not None and not observed:
            observed = [thread.observed]
        taken = self._step_loss(passes, observed)
        self._n_steps += 1
        if self._n_steps == 1:
            self._first_unobserved = not observed and bool(passes)
        return taken

    def end_epoch(self) -> None:
        """Take the next step from any thread."""
        self._owner = None

    def forget(self) -> None:
        """Drop everything that waits for a step."""
        self._threads.clear()
        self.n_waiting = 0

    def look_for_shift(self) -> None:
        """Find out, at the end, whether each loss was observed after its step."""
        waits = any(thread.observed is not None for thread in self._threads.values())
        if waits and self._first_unobserved and self._n_observed == self._n_steps:
            self.is_late = True

    def _here(self) -> _Thread | None:
        me = threading.get_ident()
        if self._owner is not None and self._owner != me:
            return None
        thread = self._threads.get(me)
        if thread is None:
            thread = self._threads[me] = _Thread()
        return thread

    def _calls_of(self, thread: _Thread, roots: Sequence[Any]) -> list[Call]:
        """Return the calls that a pass from these roots goes through; they wait no more."""
        waiting = thread.calls
        if not waiting:
            return []
        if len(waiting) == 1 and len(roots) == 1 and backward.node(roots[0]) == waiting[0].node:
            found = waiting  # most often
            thread.calls = []
            return found
        reached = backward.reached(roots, {call.node for call in waiting})
        thread.calls = [call for call in waiting if call.node not in reached]
        return [call for call in waiting if call.node in reached]

    def _drop_cleared(self, thread: _Thread) -> None:
        mark = _mark_of(thread.counted)
        cleared = marks.was_cleared(mark, self._parameters)
        if mark.held_anything is None and mark.is_untouched:
            # All zeros: that may be `grad.data.zero_()`, or the gradient is exactly that.
            self._several = True
            if cleared is not False:
                self.unsure.append(cleared)
                for one in thread.counted:
                    one.value = _nan_where(cleared, one.value)
        elif isinstance(cleared, Tensor):
            for one in thread.counted:
                one.weight = torch.where(cleared, 0.0, one.weight)
                one.value = torch.where(cleared, 0.0, one.value)  # it may be infinite
        elif cleared:
            thread.counted, thread.has_dropped = [], True

    def _step_loss(self, passes: list[Pass], observed: list[Observed]) -> StepLoss:
        if not passes and not observed:
            return StepLoss()
        if len(passes) == 1 and not observed:  # the loop of the tutorials
            (one,) = passes
            if one.weight is _WHOLE and len(one.calls) == 1 and self._takes_objective(one.calls[0]):
                self._last_objective = one.value
                return StepLoss(one.value, one.calls[0].n_samples, one.calls[0].denominator)
        objective = _sum(_weighted_value(one) for one in passes) if passes else None
        n_samples, denominator, divisor = self._sizes(passes)
        last = self._last_objective
        self._last_objective = math.nan if objective is None else objective
        if observed and self._belongs_to(observed, last, objective):
            self.is_late, observed = True, []
        if observed:
            loss, n_samples, denominator = _mean_of(observed)
        elif self._from_criteria and any(one.calls for one in passes):
            loss = self._mean_of_criteria(passes)
        else:
            return StepLoss(self._last_objective, n_samples, denominator, None, divisor)
        if isinstance(loss, float) and loss == objective:
            objective = None
        return StepLoss(loss, n_samples, denominator, objective, divisor)

    def _takes_objective(self, call: Call) -> bool:
        return not self._from_criteria and not self._sums[call.criterion]

    def _sizes(self, passes: list[Pass]) -> tuple[Value, Value, Value | None]:
        """Return n_samples and denominator of a step, and if its criterion sums, the divisor.

        Several calls in one pass are most often about the same samples, seen through several
        heads, targets or views: the largest counts. Those of several passes are added up.
        """
        n_samples: Value = math.nan
        denominator: Value = math.nan
        divisor: Value | None = None
        for one, calls in zip(passes, _calls_of_first(passes), strict=True):
            if not calls:
                continue
            if denominator is math.nan:
                n_samples = denominator = 0.0
                divisor = 0.0 if self._sums[calls[0].criterion] else None
            n_samples = n_samples + one.weight * _largest(call.n_samples for call in calls)
            denominator = denominator + one.weight * _largest(call.denominator for call in calls)
            if divisor is not None:
                parts = (call.factor / one.scale * call.denominator for call in calls)
                divisor = divisor + one.weight * _sum(parts)
        return n_samples, denominator, divisor

    @staticmethod
    def _belongs_to(observed: list[Observed], last: Value, objective: Value | None) -> bool:
        """Return whether the loss observed is that of the step before, and not of this one."""
        seen = observed[0]
        known = seen.value, last, objective
        if len(observed) > 1 or not seen.comes_first or any(isinstance(v, Tensor) for v in known):
            return False
        return bool(last == seen.value != objective)

    def _mean_of_criteria(self, passes: list[Pass]) -> Value:
        total: Value = 0.0
        for criterion in sorted({call.criterion for one in passes for call in one.calls}):
            found = [(o, call) for o in passes for call in o.calls if call.criterion == criterion]
            weights = [one.weight * call.denominator for one, call in found]
            sums = [one.weight * call.value for one, call in found]
            if not self._sums[criterion]:
                pairs = zip(weights, found, strict=True)
                sums = [weight * call.value for weight, (_, call) in pairs]
            total = total + _sum(sums) / _sum(weights)
        return total


def _calls_of_first(passes: list[Pass]) -> list[list[Call]]:
    """Return the calls of the first criterion that was called, pass by pass."""
    first = min((call.criterion for one in passes for call in one.calls), default=0)
    return [[call for call in one.calls if call.criterion == first] for one in passes]


def _mark_of(passes: list[Pass]) -> Mark:
    mark = passes[-1].mark
    assert mark is not None  # as they have ended
    return mark


def _nan_where(flag: bool | Tensor, value: Value) -> Value:
    return torch.where(flag, math.nan, value) if isinstance(flag, Tensor) else math.nan


def _largest(values: Iterable[Value]) -> Value:
    def larger(a: Value, b: Value) -> Value:
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return torch.where(torch.as_tensor(a > b), a, b)
        return max(a, b)

    return functools.reduce(larger, values)


def _weighted_value(one: Pass) -> Value:
    """Return what a pass adds to the objective; that of no samples, which is nan, adds nothing."""
    value = one.value
    n = _sum(call.denominator for call in one.calls) if one.calls else math.nan
    if isinstance(n, Tensor) and isinstance(value, Tensor):
        return torch.where((n == 0) & value.isnan(), 0.0, value)
    if isinstance(n, Tensor) or n != 0:
        return value
    if isinstance(value, Tensor):
        return torch.where(value.isnan(), 0.0, value)
    return 0.0 if math.isnan(value) else value


def _mean_of(observed: list[Observed]) -> tuple[Value, Value, Value]:
    if len(observed) == 1:
        return observed[0][:3]
    n_samples = _sum(seen.n_samples for seen in observed)
    denominator = _sum(seen.denominator for seen in observed)
    return _sum(s.denominator * s.value for s in observed) / denominator, n_samples, denominator


def _sum(values: Iterable[Value]) -> Value:
    total: Value = 0.0
    for value in values:
        total = total + value
    return total


def _set_factor(call: Call, gradient: Tensor | None, *_: Tensor | None) -> None:
    if gradient is not None:
        call.factor = _value(gradient)


def _objective(roots: Sequence[Any], seeds: Sequence[Tensor | None], scale: Value) -> Value:
    """Return the sum of the roots, each times the gradient that the pass begins with."""
    total: Value | None = None
    for root, seed in zip(roots, seeds, strict=True):
        if not isinstance(root, Tensor):
            return math.nan  # an edge of the graph, whose value is gone
        unscaled = None if scale is _WHOLE else backward.before_scaling(root)
        plain = root if unscaled is None else unscaled
        value = _inner_product(gradients.on_this_process(plain), seed)
        if scale is not _WHOLE and unscaled is None:
            value = value / scale
        total = value if total is None else total + value
    return math.nan if total is None else total


def _inner_product(root: Tensor, seed: Tensor | None) -> Value:
    if root.is_complex():
        return math.nan
    seed = None if seed is None else gradients.on_this_process(seed)
    if root.numel() == 1:
        if root.is_cpu:
            return root.item() if seed is None else root.item() * seed.item()
        value = root.detach().reshape(())
        return value.clone() if seed is None else value * seed.reshape(())
    wide = torch.float32 if root.device.type == "mps" else torch.float64
    value = root.detach().to(wide)
    value = value.sum() if seed is None else (value * seed.detach()).sum()
    return value.item() if value.is_cpu else value


def _scale_of(roots: Sequence[Any]) -> Value:
    """Return the factor by which a GradScaler has multiplied the roots, 1 if none has."""
    known = backward.scaled()
    if not known:
        return _WHOLE
    nodes = [getattr(root, "grad_fn", None) for root in roots]
    for _ in range(3):  # scaled losses may have been added up, or divided
        for made_by in nodes:
            if made_by is not None and (found := known.get(made_by._sequence_nr())):
                return found.scale.item() if found.scale.is_cpu else found.scale.clone()
        nodes = [below for n in nodes if n is not None for below, _ in n.next_functions]
    return _WHOLE


def _value(loss: Tensor) -> Value:
    """Return a copy of a loss, or of its mean; a number unless it is on a device."""
    loss = gradients.on_this_process(loss)
    if loss.ndim or loss.is_complex():
        if loss.is_complex():
            return math.nan
        loss = loss.detach().float().mean() if loss.itemsize < 4 else loss.detach().mean()
    return loss.item() if loss.is_cpu else loss.detach().clone()
