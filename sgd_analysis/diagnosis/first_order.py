"""What an epoch's recorded steps tell of the global loss, to first order in the step size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import quiet
from sgd_analysis.history.history import History

_PLAIN = ("SGD", "PlainSGD")
_FEWEST_STEPS = 8  # for a trend


@dataclass(frozen=True)
class FirstOrder:
    """What an epoch's steps tell, in loss units."""

    running_loss: float
    own: float  # what the steps gain on their own batches, to first order
    drop: float  # by how much the epoch lowers F, to first order
    before_end: float  # the share of the drop, without the own gains, that comes after a batch
    fall: float  # of the batch losses along the epoch, by a straight line
    fall_error: float
    last: float  # what the last step gains on its own batch
    longest: float  # step, by its own gain, in units of its batch's loss

    @classmethod
    @quiet
    def of(cls, epoch: History) -> FirstOrder:
        """Return what one finished epoch of SGD tells."""
        share = epoch.denominator / epoch.denominator.sum()
        given, true = _norms(epoch)
        factor = np.divide(given, true, out=np.zeros_like(given), where=true > 0)
        nominal = np.where(epoch.skipped, 0.0, epoch.step_size[:, 0])
        lasting, whole = _effective(nominal, _settings(_groups(epoch)[0]))
        gains = lasting * given * true
        steps = whole * factor
        clipped = given / _divisor(epoch)
        shorter = np.mean(clipped[true > 0] / true[true > 0]) if true.any() else 1.0
        # In a random order the gradients of all pairs of batches have the same mean product.
        products = epoch.path_gradient_norm[0] ** 2 - share**2 @ clipped**2
        pair = products / (1 - share @ share) / shorter**2
        all_pairs = steps.sum() - share @ steps
        later_pairs = share @ (steps.sum() - np.cumsum(steps))
        # A batch without a loss has none to gain: what hinges have, and losses that underflow.
        gained = np.divide(gains, epoch.batch_loss, out=np.zeros_like(gains), where=gains != 0)
        running_loss, own = float(epoch.running_loss[0]), float(share @ gains)
        return cls(
            running_loss,
            own,
            own + float(pair * all_pairs),
            float(later_pairs / all_pairs),
            *_fall(epoch.batch_loss, share),
            last=float(whole[-1] * given[-1] * true[-1]),
            longest=float(np.max(gained)),
        )


def is_plain_sgd(history: History) -> bool:
    """Return whether the steps are known to be those of SGD, with momentum or without."""
    groups = _groups(history)
    is_sgd = history.metadata.get("optimizer") in _PLAIN
    return is_sgd and bool(groups) and not any(group.get("maximize") for group in groups)


def has_one_step_size(history: History) -> bool:
    """Return whether all parameters have the same step sizes and momenta."""
    groups = _groups(history)
    same = bool((history.step_size == history.step_size[:, :1]).all())
    return same and all(_settings(group) == _settings(groups[0]) for group in groups)


def _norms(epoch: History) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n_steps,) the norms of the gradients given, and those of the mean losses."""
    given = np.where(epoch.skipped, 0.0, epoch.gradient_norm)
    unclipped = epoch.also.get("unclipped_norm")
    true = given if unclipped is None else np.where(epoch.skipped, 0.0, unclipped)
    return given, true / _divisor(epoch)


def _divisor(epoch: History) -> NDArray[np.float64]:
    divisor = np.ones(epoch.n_steps) if epoch.divisor is None else epoch.divisor
    return np.where(np.isnan(divisor), 1.0, divisor)


def _effective(
    step_size: NDArray[np.float64], settings: dict[str, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by how much each gradient moves the weights until the epoch's end, and in the end."""
    momentum, factor = settings["momentum"], 1 - settings["dampening"]
    lasting, later = np.empty_like(step_size), 0.0
    for k in range(len(step_size) - 1, -1, -1):
        later = step_size[k] + momentum * later
        lasting[k] = step_size[k] + momentum * later if settings["nesterov"] else later
    return factor * lasting, factor * step_size / (1 - momentum)


def _fall(loss: NDArray[np.float64], share: NDArray[np.float64]) -> tuple[float, float]:
    """Return how far batch losses fall along an epoch, by a straight line, and its error."""
    if len(loss) < _FEWEST_STEPS:
        return math.nan, math.inf
    time = np.cumsum(share) - share / 2 - 0.5
    weights = share * time / (share @ time**2)
    rest = loss - share @ loss
    fall = -float(weights @ rest)
    rest = rest + fall * time
    return fall, math.sqrt(weights**2 @ rest**2 * len(loss) / (len(loss) - 2))


def _groups(history: History) -> list[dict[str, Any]]:
    return list(history.metadata.get("parameter_groups", []))


def _settings(group: dict[str, Any]) -> dict[str, float]:
    return {name: float(group.get(name) or 0) for name in ("momentum", "dampening", "nesterov")}
