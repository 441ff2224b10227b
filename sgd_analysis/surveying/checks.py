"""What a survey has to know of a model and a loader before its numbers are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sgd_analysis._random_state import seed_all
from sgd_analysis.surveying.batches import Batch, has_length, length_of
from sgd_analysis.surveying.drawing import would_draw_in_training
from sgd_analysis.surveying.evaluation import FixedWeights


def noise_is_known(weights: FixedWeights) -> bool:
    """Return whether no module is kept from drawing by evaluation mode, as far as seen."""
    if weights.first is None:
        return True
    forward, (inputs, targets, _) = weights.forward, weights.first
    in_training = dict.fromkeys(forward.modules, True)
    return not would_draw_in_training(
        forward.modules,
        lambda: forward.call(inputs, targets, mode=in_training),
        forward.generators,
    )


def couples(weights: FixedWeights, *, compare: bool) -> bool:
    """Return whether samples change each other's loss by sharing a batch.

    A batch norm in training mode tells; of modules and criteria that are not torch's own, the
    loss of a batch is compared with those of its halves, if that is asked for.
    """
    if any(map(_normalises_by_batch, weights.forward.modules)):
        return True
    if not compare or weights.forward.is_known or weights.first is None:
        return False
    inputs, targets, loss = weights.first
    n = length_of(inputs) or 0
    if n < 2 or n != length_of(targets):
        return False
    try:
        batches = [(inputs, targets), *_halves(inputs, targets, n)]
        means, counts = _without_drawing(weights, batches)
    except Exception:
        return True  # nobody knows, and to survey the batches visited is always right
    together = np.average(means[1:], weights=counts[1:]) if sum(counts[1:]) else means[0]
    return not _are_close(means[0], together, loss)


def check_repeatable(weights: FixedWeights, *, seed_for: Callable[[int, int], None] | None) -> None:
    """Raise if the first batch has by now another loss.

    Args:
        weights: after the survey.
        seed_for: seeds the generators for a batch and a draw, where there are draws.

    Raises:
        ValueError: if it has.
    """
    forward = weights.forward
    if forward.is_known or weights.first is None or forward.n_passes == 1:
        return
    inputs, targets, loss = weights.first
    before = forward.states()
    if seed_for:
        seed_for(0, 0)
    again = forward.call(inputs, targets)[0].detach()
    before.restore()
    if not _are_close(float(again), float(loss), loss):
        raise ValueError(
            f"the first batch had the loss {float(loss):.6g}, and at the end of the survey "
            f"{float(again):.6g}, at the same weights: the model or the criterion keeps "
            "something from call to call (in a global variable or a closure, say), so that a "
            "batch has no loss of its own; keep it in a buffer or in an attribute of a "
            "module, which a survey puts back, or leave it out while surveying"
        )


def _normalises_by_batch(module: nn.Module) -> bool:
    is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return is_norm and (module.training or module.running_mean is None)


def _without_drawing(weights: FixedWeights, batches: list[Batch]) -> tuple[list[float], list[Any]]:
    """Return the batches' mean losses, the modules that draw silenced, and their denominators."""
    quiet = dict.fromkeys(weights.forward.drawing, False)
    before, means, counts = weights.forward.states(), [], []
    try:
        for inputs, targets in batches:
            seed_all(0, weights.forward.generators)
            loss, predictions = weights.forward.call(inputs, targets, mode=quiet)
            read = weights.counts.read(loss, targets)
            (count,), _ = weights.counts.of([predictions], [targets], [read])
            is_sum = weights.takes_sums or read.is_sum
            means.append(float(loss.detach()) / (count if is_sum else 1.0))
            counts.append(count)
    finally:
        before.restore()
    return means, counts


def _halves(inputs: Any, targets: Any, n: int) -> list[Batch]:
    halves = slice((n + 1) // 2), slice((n + 1) // 2, n)
    return [(_part(inputs, half), _part(targets, half)) for half in halves]


def _part(batch: Any, rows: slice) -> Any:
    """Return some samples of a batch that has one length."""
    if isinstance(batch, Mapping):
        return {name: part[rows] if has_length(part) else part for name, part in batch.items()}
    if isinstance(batch, (tuple, list)):
        return [part[rows] if has_length(part) else part for part in batch]
    return batch[rows]


def _are_close(one: float, other: float, like: Tensor) -> bool:
    tolerance = torch.finfo(like.dtype).eps ** 0.5
    return bool(np.isclose(one, other, rtol=tolerance, atol=0, equal_nan=True))
