"""Do the losses of one epoch come back in the next, place by place? Then so does the order."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import kind_of
from sgd_analysis.history.history import History

_FEWEST = 20  # batches
_SMALL = 0.5  # of the epoch's median batch: the losses of smaller ones are another kind of number


@dataclass(frozen=True, eq=False, repr=False)
class OrderCorrelation:
    """How much each epoch's batch losses are like those at the same places of the one before.

    Args:
        correlation: (n_epochs − 1,) near 1 for a fixed order, about 0 for a shuffle; nan where
            `unknown` says why.
        standard_error: (n_epochs − 1,) how far from 0 it is for a shuffle.
        unknown: for each, why it is nan; empty if it is not.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import OrderCorrelation
        >>> OrderCorrelation(np.array([0.5, 0.3]), np.array([0.06, 0.08]), unknown=("", ""))
        OrderCorrelation(0.40 ± 0.05 over 2 pairs of epochs: much of the order comes again)
    """

    correlation: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    unknown: tuple[str, ...]

    @property
    def mean(self) -> float:
        """The mean of the correlations that are known; nan if none is."""
        known = self.correlation[~np.isnan(self.correlation)]
        return float(known.mean()) if known.size else math.nan

    @property
    def error_of_mean(self) -> float:
        """The standard error of that mean, which is smaller than a single one's."""
        known = self.standard_error[~np.isnan(self.correlation)]
        return math.sqrt(float(np.square(known).sum())) / known.size if known.size else math.nan

    def __repr__(self) -> str:
        n_known = int((~np.isnan(self.correlation)).sum())
        if not n_known:
            return f"OrderCorrelation(unknown: {(*self.unknown, 'no two epochs have ended')[0]})"
        says = "much of the order comes again" if self._is_sure else "as of a shuffle"
        pairs = f"{n_known} pair{'s' * (n_known > 1)} of epochs"
        return f"OrderCorrelation({self.mean:.2f} ± {self.error_of_mean:.2f} over {pairs}: {says})"

    @property
    def _is_sure(self) -> bool:
        return self.mean > 3 * self.error_of_mean


def order_correlation(history: History) -> OrderCorrelation:
    r"""Return the correlation of successive epochs' batch losses, by place in the epoch.

    Batches that are drawn anew have losses that say nothing about those of the next epoch. If
    batch k is again made of much the same samples, because nothing shuffles them or a shuffle
    buffer is smaller than the stretches in which the data is alike, its loss is again high or low.
    It takes no look at the data: where samples can be told from each other, `repeated_samples`
    says more.

    Learning lowers the losses along every epoch: of their logarithms (of themselves, if some are
    not positive) a straight line is taken away first, a fall by the same factor at each step. Then
    r is the plain correlation of the m rests. For a shuffle it is

    .. math:: 0 \pm \sqrt{\tfrac1m \Big(1 + 2 \sum_{\tau \ge 1} \rho_e(\tau)
        \rho_{e+1}(\tau)\Big)}

    with the autocorrelations ρ of the rests (Bartlett), at least 1/√m: losses that rise and fall
    slowly, as momentum makes them, have fewer places that count. A single pair of epochs may leave
    doubts, then; the `mean` over many does not.

    Batches with fewer than half the samples that are usual in their epoch, and those whose loss
    is nan, are left out. What looks like an order that comes again and is none: a step size that
    is restarted in each epoch, and a steep first epoch, which is not a straight line; compare
    later epochs alone, `order_correlation(history[5:])`.

    Args:
        history: of two finished epochs at least.

    Returns:
        An `OrderCorrelation`, one value for each finished epoch but the first; nan where epochs
        have different numbers of batches, fewer than 20 of them, or losses that do not vary.

    Raises:
        TypeError: if history is no History.

    References:
        Bartlett, "Some aspects of the time-correlation problem in regard to tests of significance"
        (1935).

    Example:
        >>> from sgd_analysis import order_correlation, quadratic_fit, train
        >>> options = {"batch_size": 10, "max_epochs": 20, "gradient": "closed form"}
        >>> options |= {"step_size": 1e-5}
        >>> order_correlation(train(quadratic_fit(), order="cyclic", **options).history)
        OrderCorrelation(0.98 ± 0.08 over 19 pairs of epochs: much of the order comes again)
        >>> order_correlation(train(quadratic_fit(), order="reshuffle", **options).history)
        OrderCorrelation(-0.02 ± 0.02 over 19 pairs of epochs: as of a shuffle)
    """
    if not isinstance(history, History):
        raise TypeError(f"history must be a History, got {kind_of(history)}")
    epochs = [history[e] for e in range(history.n_epochs)]
    each = [_of_pair(*pair) for pair in itertools.pairwise(epochs)]
    correlation, error = np.array([pair[:2] for pair in each]).reshape(-1, 2).T
    return OrderCorrelation(correlation, error, unknown=tuple(why for *_, why in each))


def _of_pair(one: History, other: History) -> tuple[float, float, str]:
    """Return the correlation of two epochs, its standard error, and why both are nan."""
    if one.n_steps != other.n_steps:
        why = f"epochs of {one.n_steps} and {other.n_steps} batches have no places in common"
        return math.nan, math.nan, why
    used = _usual(one) & _usual(other)
    n_used = int(used.sum())
    if n_used < _FEWEST:
        return math.nan, math.nan, f"{n_used} batches are too few: it takes {_FEWEST}"
    x, y = _rest(one.batch_loss[used]), _rest(other.batch_loss[used])
    square = float(x @ x * (y @ y))
    if not 0 < square < math.inf:
        return math.nan, math.nan, "the losses do not vary, or beyond all bounds"
    shared = 1 + 2 * float((_autocorrelation(x) * _autocorrelation(y))[1:].sum())
    return float(x @ y) / math.sqrt(square), math.sqrt(max(shared, 1.0) / n_used), ""


def _usual(epoch: History) -> NDArray[np.bool_]:
    """Return which batches have a loss, and not a much smaller number of samples than others."""
    is_small = epoch.n_samples < _SMALL * np.median(epoch.n_samples)
    return np.isfinite(epoch.batch_loss) & ~is_small


def _rest(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is left of losses (m,) without the straight line that fits them best."""
    values = np.log(losses) if losses.min() > 0 else losses
    place = np.arange(len(values)) - (len(values) - 1) / 2
    values = values - values.mean()
    return np.asarray(values - place * (place @ values) / (place @ place))


def _autocorrelation(rest: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(rest)
    sums = np.fft.irfft(np.abs(np.fft.rfft(rest, 2 * n)) ** 2, 2 * n)[:n]
    return np.asarray(sums / sums[0])
