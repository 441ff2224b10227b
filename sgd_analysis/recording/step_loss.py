"""The loss of a step and its sizes: of the passes it uses, of criteria, or as the loop tells it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from sgd_analysis._arrays import Value, quotient
from sgd_analysis.recording.passes import NO_CRITERION, Call, Observed, Pass
from sgd_analysis.recording.values import total
from sgd_analysis.recording.votes import Part, size_weighting

_Pairs: TypeAlias = list[tuple[Pass, list[Call]]]


class StepLoss(NamedTuple):
    """What is recorded of a step's loss; nan where it is not known."""

    loss: Value = math.nan
    n_samples: Value = math.nan
    denominator: Value = math.nan
    objective: Value | None = None  # where it is another than the loss
    divisor: Value | None = None  # of sums: what makes means of them
    size_weighting: Value | None = None  # what its passes lack to weigh by their sizes
    votes: Value = math.nan  # of these passes together: 1 if the objective is the mean of theirs

    @property
    def weight(self) -> Value:
        """The weight of the step's gradient in the sum of those of its batches' mean losses."""
        n, divisor = self.denominator, self.divisor
        if divisor is None or (isinstance(n, float) and n == 0):  # of no samples
            return n
        if isinstance(n, Tensor):
            return torch.where(n == 0, 0.0, n / divisor)
        return n / divisor if isinstance(divisor, Tensor) else quotient(n, divisor)


class StepLosses:
    """Makes the loss of a step, one step after the other.

    Args:
        from_criteria: whether it is what the criteria say instead of the objective.
    """

    def __init__(self, *, from_criteria: bool) -> None:
        self.is_late = False  # whether a loss was observed after the step it belongs to
        self._from_criteria = from_criteria
        self._last_objective: Value = math.nan

    def of(self, passes: Sequence[Pass], observed: Sequence[Observed]) -> StepLoss:
        """Return the loss of the step that uses these passes, and of which this was observed."""
        if not observed:
            if not passes:
                return StepLoss()
            if len(passes) == 1 and not self._from_criteria and passes[0].is_plain():
                value, (call,) = passes[0].value, passes[0].calls  # the loop of the tutorials
                self._last_objective = value
                return StepLoss(value, call.n_samples, call.denominator)
        last, objective = self._last_objective, _objective(passes)
        self._last_objective = math.nan if objective is None else objective
        if observed and _is_of_the_step_before(observed, last, objective):
            self.is_late, observed = True, []
        return self._of_all(passes, observed, objective)

    def _of_all(
        self, passes: Sequence[Pass], observed: Sequence[Observed], objective: Value | None
    ) -> StepLoss:
        pairs = _of_samples(passes)
        n_samples, denominator, divisor = _sizes(pairs)
        if observed:
            loss, n_samples, denominator = _mean_of_observed(observed)
        elif self._from_criteria and (calls := _calls_of_criteria(passes)):
            loss = _mean_of_criteria(calls)
        else:
            seen = StepLoss(self._last_objective, n_samples, denominator, None, divisor)
            return seen if len(passes) == 1 else _with_size_weighting(seen, passes, pairs)
        if isinstance(loss, float) and isinstance(objective, float) and loss == objective:
            objective = None
        return StepLoss(loss, n_samples, denominator, objective, divisor)


def _objective(passes: Sequence[Pass]) -> Value | None:
    return total(map(_weighted_value, passes)) if passes else None


def _weighted_value(one: Pass) -> Value:
    """Return what a pass adds to the objective; that of no samples, which is nan, adds nothing."""
    value = one.value
    n = total(call.denominator for call in one.calls) if one.calls else math.nan
    if isinstance(n, Tensor) and isinstance(value, Tensor):
        return torch.where((n == 0) & value.isnan(), 0.0, value)
    if isinstance(n, Tensor) or n != 0:
        return value
    if isinstance(value, Tensor):
        return torch.where(value.isnan(), 0.0, value)
    return 0.0 if math.isnan(value) else value


def _is_of_the_step_before(
    observed: Sequence[Observed], last: Value, objective: Value | None
) -> bool:
    """Return whether the loss observed is that of the step before, and not of this one."""
    seen = observed[0]
    known = seen.value, last, objective
    if len(observed) > 1 or not seen.comes_first or any(isinstance(v, Tensor) for v in known):
        return False
    return bool(last == seen.value != objective)


def _sizes(pairs: _Pairs) -> tuple[Value, Value, Value | None]:
    """Return n_samples and denominator of a step, and if its criterion sums, the divisor.

    Several calls in one pass are most often about the same samples, seen through several
    heads, targets or views: the largest counts. Those of several passes are added up, unless the
    graphs tell that they are about the same samples.
    """
    if not pairs:
        return math.nan, math.nan, None
    n_samples = total(one.weight * _largest(c.n_samples for c in calls) for one, calls in pairs)
    denominator = total(one.weight * _largest(c.denominator for c in calls) for one, calls in pairs)
    if not pairs[0][1][0].is_sum:
        return n_samples, denominator, None
    return n_samples, denominator, total(one.weight * _divisor(one, calls) for one, calls in pairs)


def _with_size_weighting(seen: StepLoss, passes: Sequence[Pass], pairs: _Pairs) -> StepLoss:
    """Return the same with what several passes lack to weigh by their sizes."""
    if not any(one.calls for one in passes):  # nothing tells them
        return seen._replace(size_weighting=math.nan)
    if len(pairs) < len(passes) or not _are_of_a_kind(pairs):  # they are no parts of a batch
        return seen
    parts = [_part(one, calls) for one, calls in pairs]
    votes = total(part.vote for part in parts)
    return seen._replace(size_weighting=size_weighting(parts), votes=votes)


def _part(one: Pass, calls: Sequence[Call]) -> Part:
    size = one.weight * _largest(call.denominator for call in calls)
    return Part(_weighted_value(one), size, total(call.vote for call in calls) / one.scale)


def _are_of_a_kind(pairs: _Pairs) -> bool:
    return len({tuple(call.kind for call in calls) for _, calls in pairs}) == 1


def _of_samples(passes: Sequence[Pass]) -> _Pairs:
    """Return the passes that tell the samples of a step, each with its calls that do."""
    pairs = _calls_of_first(passes)
    return _once_each(pairs) if len(pairs) > 1 else pairs


def _calls_of_first(passes: Sequence[Pass]) -> _Pairs:
    """Return the passes through the first criterion that was called, each with those calls."""
    first = min((call.criterion for one in passes for call in one.calls), default=0)
    found = [(one, [call for call in one.calls if call.criterion == first]) for one in passes]
    return [(one, calls) for one, calls in found if calls]


def _once_each(pairs: _Pairs) -> _Pairs:
    """Return those passes that are not about the samples of one before, through another head.

    Where the means of heads divide by different numbers, the denominator becomes nan.
    """
    others: _Pairs = []
    for one, calls in pairs:
        rows = set().union(*(call.rows for call in calls))
        heads = [c for _, before in others for c in before if not rows.isdisjoint(c.rows)]
        if not heads:
            others.append((one, calls))
        elif len({call.denominator for call in (*heads, *calls)}) > 1:
            for head in heads:
                head.denominator = math.nan
    return others


def _divisor(one: Pass, calls: Sequence[Call]) -> Value:
    """Return what makes a mean of the sums that these calls are in the objective of a pass."""
    return total(call.factor / one.scale * call.denominator for call in calls)


def _largest(values: Iterable[Value]) -> Value:
    def larger(a: Value, b: Value) -> Value:
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return torch.where(torch.as_tensor(a > b), a, b)
        return max(a, b)

    return functools.reduce(larger, values)


def _mean_of_observed(observed: Sequence[Observed]) -> tuple[Value, Value, Value]:
    if len(observed) == 1:
        return observed[0][:3]
    n_samples = total(seen.n_samples for seen in observed)
    denominator = total(seen.denominator for seen in observed)
    return total(s.denominator * s.value for s in observed) / denominator, n_samples, denominator


def _calls_of_criteria(passes: Sequence[Pass]) -> list[tuple[Value, Call]]:
    """Return all calls of criteria, each with the weight of its pass."""
    calls = [(one.weight, call) for one in passes for call in one.calls]
    return [(weight, call) for weight, call in calls if call.criterion != NO_CRITERION]


def _mean_of_criteria(calls: Sequence[tuple[Value, Call]]) -> Value:
    """Return the means of the criteria over all of their calls, added up."""
    criteria = sorted({call.criterion for _, call in calls})
    return total(_mean_of_calls([c for c in calls if c[1].criterion == one]) for one in criteria)


def _mean_of_calls(calls: Sequence[tuple[Value, Call]]) -> Value:
    """Return the mean of what calls of one criterion say, each times its weight."""
    weights = [weight * call.denominator for weight, call in calls]
    if calls[0][1].is_sum:
        return total(weight * call.value for weight, call in calls) / total(weights)
    pairs = zip(weights, calls, strict=True)
    return total(weight * call.value for weight, (_, call) in pairs) / total(weights)
