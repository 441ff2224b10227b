"""The steps of a loop, seen from how f is called, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sgd_analysis.checks.messages import NotYet, Said
from sgd_analysis.checks.points import (
    BATCH_SIZE,
    BELOW_ALL,
    FEW,
    POINTS,
    STEP_SIZE,
    Places,
    Vector,
    are_points,
    gradient_at,
    places_of,
    squared_mean_gradient,
    unsquared_gradients,
)
from sgd_analysis.checks.tries import Loop, Try, try_loop


@dataclass(frozen=True)
class Step:
    """A movement of w, and the places in `FEW` of what f was asked for since the last one."""

    before: Vector
    after: Vector
    asked: list[Places]

    @property
    def moved(self) -> Vector:
        """By how much w changes, (3,)."""
        return self.after - self.before

    def gradients(self) -> list[Vector]:
        """Return the gradient of the mean loss, (3,) for each thing that was asked for."""
        return [gradient_at(self.before, places) for places in self.asked]


def places_asked(trial: Try) -> list[Places]:
    """Return, call by call, the places in `FEW` of the inputs that f was asked for.

    Args:
        trial: a loop's try with these points.

    Returns:
        An array for each call.

    Raises:
        NotYet: if there is no call, or one with other inputs.
    """
    if not trial.calls:
        raise NotYet("never_asked")
    found = []
    for call in trial.calls:
        places = places_of(call.inputs)
        if places is None:
            raise NotYet("other_points" if are_points(call.inputs) else "other_inputs")
        found.append(places)
    return found


def steps_of(trial: Try) -> list[Step]:
    """Return the movements of w; calls of f between which it stays belong to one."""
    pairs = zip(trial.calls, places_asked(trial), strict=True)
    groups = [
        (np.array(weights), [places for _, places in group])
        for weights, group in groupby(pairs, lambda pair: tuple(pair[0].weights))
    ]
    ends = [*(weights for weights, _ in groups[1:]), trial.weights]
    return [
        Step(before, after, asked)
        for (before, asked), after in zip(groups, ends, strict=True)
        if (before != after).any()
    ]


def two_epochs(loop: Loop, *, calls: int, settings: Sequence[float] = ()) -> Try:
    """Return a try of two epochs that nothing should end before.

    Args:
        loop: takes f, w, t, a step size, epsilon, a number of epochs, and the settings.
        calls: how many calls of f make an epoch.
        settings: what the loop is given after the number of epochs.

    Returns:
        What it did.

    Raises:
        NotYet: if it returns after its first batch, or asks f for other points.
    """
    trial = try_loop(loop, FEW, STEP_SIZE, BELOW_ALL, 2, *settings, calls=2 * calls)
    parts = [places for places in places_asked(trial) if len(places) < len(FEW)]
    if len(parts) == 1 and calls > 1 and trial.returned is not None:
        raise NotYet("inside")
    return trial


def require_movement(trial: Try) -> None:
    """Refuse a try that leaves w where it was.

    Args:
        trial: of a loop that makes its steps by hand.

    Raises:
        NotYet: if it does, with what w.grad tells of the reason.
    """
    if not trial.weights.any():
        raise NotYet(_unmoved(trial))


def _unmoved(trial: Try) -> str:
    """Return the key of what a loop has done that leaves w where it was."""
    another = any(call.weights.any() for call in trial.calls)
    if trial.gradient is None or not trial.gradient.any():
        without = "no_backward" if trial.gradient is None else "no_step"
        return "copy" if another else without
    return "new_tensor" if another else "only_backward"


def require_count(trial: Try, steps: list[Step], an_epoch: int, what: str) -> None:
    """Refuse a try of two epochs that has not made so many steps in each.

    Args:
        trial: what it has done.
        steps: its steps.
        an_epoch: how many steps each epoch should have made.
        what: the key of what a step belongs to.

    Raises:
        NotYet: if there are more or fewer.
    """
    if len(steps) == 2 * an_epoch:
        return
    if len(steps) == an_epoch and trial.returned is not None:
        raise NotYet("stops_at_once", epoch=1)
    if an_epoch > 1 and len(steps) == 2:
        raise NotYet("once", what=Said(what))
    if len(steps) == 2 * an_epoch - 1 and len(steps[0].asked) > 1:
        raise NotYet("late", what=Said(what))
    raise NotYet(_other_count(steps, 2 * an_epoch))


def _other_count(steps: list[Step], expected: int) -> Said:
    """Return what is wrong with the steps of two epochs, which should be so many."""
    times, rest = divmod(len(steps), expected)
    if times == 3 and not rest and all(np.count_nonzero(s.moved) == 1 for s in steps):
        return Said("one_by_one")
    if times > 1 and not rest:
        return Said("often", made=len(steps) // 2, expected=expected // 2)
    return Said("n_steps", epochs=2, expected=expected, made=len(steps))


def require_descent(steps: list[Step]) -> None:
    """Refuse steps that are not the step size times the gradient of the mean.

    Args:
        steps: those of a try, the first one first.

    Raises:
        NotYet: if one of them is not.
    """
    earlier = np.zeros(3)  # the sum of the gradients of the steps before
    for number, step in enumerate(steps, 1):
        gradients = step.gradients()
        right = [g for g in gradients if close(step.moved, -STEP_SIZE * g)]
        if not right:
            raise NotYet(_wrong_step(step, number, gradients, earlier))
        earlier += right[0]


def _wrong_step(step: Step, number: int, gradients: list[Vector], earlier: Vector) -> Said:
    for gradient, places in zip(gradients, step.asked, strict=True):
        expected = -STEP_SIZE * gradient
        if number > 1 and close(step.moved, expected - STEP_SIZE * earlier):
            return Said("kept")
        if any(
            close(step.moved, -STEP_SIZE * other)
            for other in unsquared_gradients(step.before, places)
        ):
            return Said("unsquared" if len(places) > 1 else "unsquared_sample")
        if close(step.moved, -STEP_SIZE * squared_mean_gradient(step.before, places)):
            return Said("square_of_mean")
        ratio = float(step.moved @ expected / (expected @ expected))
        if close(step.moved, ratio * expected):
            return _wrong_length(ratio, len(places))
    return elsewhere(
        step, number, step.before - STEP_SIZE * gradients[-1], Said("of_gradient_descent")
    )


def _wrong_length(ratio: float, n: int) -> Said:
    """Return why a step over n points is so many times as long as it should be."""
    usual = {1 / STEP_SIZE: "no_eta", 0.5: "half", 2: "twice"}
    if n > 1:
        # The last batch is shorter than the others, which were right to be divided by their size.
        short = {n / BATCH_SIZE: "sum_by_minibatch"} if n < BATCH_SIZE else {}
        sums = {n: "sum", n / len(POINTS): "sum_by_all", n / len(FEW): "sum_by_t"}
        usual |= {**sums, **short}
    for expected, key in usual.items():
        if abs(ratio / expected - 1) < 0.002 and expected != 1:
            return Said(key, n=n, all=len(POINTS))
    for by in (n, len(FEW), len(POINTS)):
        if abs(ratio * by - 1) < 0.002:
            return Said("divided_again" if n > 1 else "divided_sample", by=by)
    if ratio < 0:
        return Said("uphill")
    return Said("length", ratio=ratio, eta=ratio * STEP_SIZE, given=STEP_SIZE)


def elsewhere(step: Step, number: int, expected: Vector, of_what: Said) -> Said:
    """Return where a step should have led, and where it has, in words."""
    ends = {"before": tuple(step.before), "expected": tuple(expected), "after": tuple(step.after)}
    return Said("elsewhere", step=of_what, number=number, **ends)


def close(one: Vector, other: Vector) -> bool:
    """Return whether two movements are equal, but for rounding in single precision."""
    return bool(np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other) + 2e-6)
