"""The batches that a loop asks f for."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from sgd_analysis.checks.messages import NotYet, Said
from sgd_analysis.checks.points import (
    BATCH_SIZES,
    BELOW_ALL,
    FEW,
    OTHER_SIZE,
    OTHER_SIZES,
    STEP_SIZE,
    Places,
)
from sgd_analysis.checks.steps import places_asked
from sgd_analysis.checks.tries import Loop, Try, try_loop


def batches_of(trial: Try) -> list[list[Places]]:
    """Return the batches of each epoch of a try.

    Args:
        trial: of two epochs, or of one if it has stopped too early.

    Returns:
        For each epoch, the places in `FEW` of each of its batches.

    Raises:
        NotYet: if they have other sizes than a loader's.
    """
    asked = _asked(trial)
    sizes = [len(places) for places in asked]
    half = len(asked) // 2
    if sizes not in (2 * BATCH_SIZES, BATCH_SIZES):  # one epoch only is told of elsewhere
        raise NotYet(_other_sizes(sizes))
    return [asked[:half], asked[half:]] if len(sizes) == 6 else [asked]


def _asked(trial: Try) -> list[Places]:
    return [
        np.array(places)  # once, though a loop may ask for a batch's values again
        for places, _ in groupby(map(tuple, places_asked(trial)))
        if len(places) < len(FEW)
    ]


def _other_sizes(sizes: list[int]) -> Said:
    if not sizes:
        return Said("batch_sizes", sizes=len(FEW))
    if set(sizes) == {1}:
        return Said("batches_of_one")
    epoch = sizes[: len(sizes) // 2 or 1]
    return Said("batch_sizes", sizes=_listed(epoch))


def _listed(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes[:6])) + ", …" * (len(sizes) > 6)


def require_batch_size(loop: Loop) -> None:
    """Refuse a loop whose batches are right only where minibatch is `BATCH_SIZE`.

    Args:
        loop: takes f, w, t, a step size, epsilon, a number of epochs, and minibatch.

    Raises:
        NotYet: if it has another minibatch, and not its batches.
    """
    trial = try_loop(loop, FEW, STEP_SIZE, BELOW_ALL, 1, OTHER_SIZE, calls=len(OTHER_SIZES))
    sizes = [len(places) for places in _asked(trial)]
    if sizes != OTHER_SIZES:
        raise NotYet("fixed_batch_size", given=OTHER_SIZE, sizes=_listed(sizes))


def require_shuffled(trial: Try) -> None:
    """Refuse batches that leave out a point, or that always come in the same order.

    Args:
        trial: of two epochs, or of one if it has stopped too early.

    Raises:
        NotYet: if they do.
    """
    orders = [np.concatenate(batches) for batches in batches_of(trial)]
    for order in orders:
        if sorted(order) != [*range(len(FEW))]:
            raise NotYet("not_each_once")
        if sorted(order) == [*order]:
            raise NotYet("unshuffled")
    if len(orders) == 2 and (orders[0] == orders[1]).all():
        raise NotYet("same_order")
