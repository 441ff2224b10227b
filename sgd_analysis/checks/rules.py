"""What a loop compares with epsilon: no loop says it, so thresholds are tried."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import isclose
from typing import Any

import numpy as np
from torch import Tensor

from sgd_analysis.checks.errors import ignores
from sgd_analysis.checks.messages import NotYet, Said
from sgd_analysis.checks.points import BATCH_SIZE, BELOW_ALL, FEW, POINTS, STEP_SIZE, loss_at
from sgd_analysis.checks.steps import places_asked, steps_of
from sgd_analysis.checks.tries import Loop, Try, try_loop

DIVIDED_INSIDE = tuple(f"divided_inside_{k}" for k in range(6))  # sums divided in the inner loop
_SEEDS = 10
_EPSILON = 4  # its place after f, w, t and a step size


def require_stop(loop: Loop, *settings: float, calls: int) -> None:
    """Refuse a loop that does not return 1 where its first loss is below epsilon, or only there.

    Args:
        loop: takes f, w, t, a step size, epsilon, a number of epochs, and the settings.
        settings: what comes after these.
        calls: how many calls of f make an epoch.

    Raises:
        NotYet: if it stops at once, or never, or within an epoch, or returns something else.
    """

    def trial(epsilon: float) -> Try:
        return try_loop(loop, FEW, STEP_SIZE, epsilon, 2, *settings, calls=2 * calls)

    above = trial(BELOW_ALL)
    if above.returned is not None:
        key = "stops_at_once" if len(steps_of(above)) <= calls else "gives_up"
        raise NotYet(key, epoch=1, returned=repr(above.returned))
    below = trial(-BELOW_ALL)
    made = len(steps_of(below))
    if made > calls:
        raise NotYet("no_epsilon" if ignores(loop, _EPSILON) else "never_stops")
    if made < calls - 1 and any(len(places) < len(FEW) for places in places_asked(below)):
        raise NotYet("inside")
    if below.returned is None:
        raise NotYet("returns_nothing")
    epoch = epoch_in(below.returned)
    if epoch != 1:
        raise NotYet("from_zero" if epoch == 0 else "returns", returned=repr(below.returned))


def require_rule(loop: Loop, *settings: float, calls: int, names: Mapping[str, str]) -> None:
    """Refuse a loop that compares another number with epsilon than it should.

    Args:
        loop: as for `require_stop`, which it has passed.
        settings: what it is given after the number of epochs.
        calls: how many calls of f make an epoch.
        names: numbers of an epoch, as `_numbers` calls them, and what a message calls them; the
            first is what should be compared.

    Raises:
        NotYet: if it is another one.
    """

    def trial(epsilon: float, seed: int) -> Try:
        return try_loop(loop, FEW, STEP_SIZE, epsilon, 1, *settings, calls=calls, seed=seed)

    def compares(number: float) -> bool:
        margin = max(0.001 * number, 1e-9)
        above, below = (trial(number + side * margin, seed).returned for side in (1, -1))
        return above is not None and below is None

    wanted, *others = names
    for seed in range(_SEEDS):  # in some orders the last loss is the smallest, too
        numbers = _numbers(trial(BELOW_ALL, seed))
        if not any(isclose(numbers[wanted], numbers[name], rel_tol=0.01) for name in others):
            break
    found = next((name for name in names if compares(numbers[name])), None)
    if found is None:
        raise NotYet("other_rule", wanted=Said(names[wanted]), value=numbers[wanted])
    if found != wanted:
        raise NotYet("rule", found=Said(names[found]), wanted=Said(names[wanted]))


def epoch_in(returned: Any) -> int | None:
    """Return what a loop has returned as a number, if it is a whole one."""
    if isinstance(returned, Tensor | np.ndarray | np.generic) and returned.size == 1:
        returned = returned.item()
    return (
        int(returned) if isinstance(returned, int | float) and returned == int(returned) else None
    )


def _numbers(trial: Try) -> dict[str, float]:
    """Return what an epoch of so many steps may be summed up by."""
    steps = steps_of(trial)
    # It may look at all points, too, and at the batch before.
    batches = [([a for a in step.asked if len(a) < len(FEW)] or step.asked)[-1] for step in steps]
    losses = np.array([loss_at(s.before, b) for s, b in zip(steps, batches, strict=True)])
    sizes = np.array([len(batch) for batch in batches])
    after = np.array([loss_at(s.after, b) for s, b in zip(steps, batches, strict=True)])
    n, padded = sizes.sum(), len(sizes) * BATCH_SIZE
    times = np.arange(len(sizes), 0.0, -1.0)  # how often a sum is divided that is so each time
    inside = product((sizes, np.ones(len(sizes))), (n, len(sizes), BATCH_SIZE))
    return {
        "running": losses @ sizes / n,
        "unweighted": losses.mean(),
        "undivided": losses @ sizes,
        "sum_of_means": losses.sum(),
        "by_batches": losses @ sizes / len(losses),
        "by_samples": losses.sum() / n,
        "nothing": 0.0,
        "by_minibatch": losses @ sizes / BATCH_SIZE,
        "by_padded": losses @ sizes / padded,
        "by_all": losses @ sizes / len(POINTS),
        "times_minibatch": losses.sum() * BATCH_SIZE / n,
        "times_by_batches": losses.sum() * BATCH_SIZE / len(losses),
        "means_by_minibatch": losses.sum() / BATCH_SIZE,
        "running_after": after @ sizes / n,
        "only_last": losses[-1] * sizes[-1] / n,
        "last": losses[-1],
        "after": loss_at(trial.weights, batches[-1]),
        "root": float(np.sqrt(losses[-1])),
        "smallest": losses.min(),
        "largest": losses.max(),
        "at_end": loss_at(trial.weights),
    } | {
        name: losses @ (added / by**times)
        for name, (added, by) in zip(DIVIDED_INSIDE, inside, strict=True)
    }
