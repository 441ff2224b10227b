"""The gradient noise scale along an epoch, from what several processes have recorded anyway."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import double, norms, quiet, quotient
from sgd_analysis._validation import kind_of
from sgd_analysis.history.history import History

_FEWEST_STEPS = 10
_FEWEST_ERRORS = 4  # that ‖∇F‖² must be from zero, for a quotient with it to have an error at all
_LARGEST_SHARE = 0.1  # of the samples an epoch deals out, for a noise scale
_ROWS = 64  # vectors of each rank that are averaged at once
_RESCALED = (
    "the gradients seem to have been clipped or rescaled after averaging, and of the ranks' own "
    "only norms were kept: give record() enough memory= for the vectors"
)


@dataclass(frozen=True, eq=False)
class NoiseOfRanks:
    """What the spread of the ranks' gradients says of each epoch: means over its steps.

    Args:
        gradient_noise_scale: (n_epochs,) tr Σ / ‖∇F‖², a number of samples, as that of a `Survey`,
            but of an epoch's means of both, the weights moving; nan where `unknown` says why.
        standard_error: (n_epochs,) that of the noise scale, from how it varies between steps.
        gradient_variance: (n_epochs,) tr Σ, the spread of single samples' gradients.
        full_gradient_norm_squared: (n_epochs,) ‖∇F‖²; as an estimate without bias it may be
            negative.
        unknown: for each epoch, why its noise scale is nan, and what to do; empty if it is not.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import NoiseOfRanks
        >>> found = NoiseOfRanks(*np.array([[40.0], [3.0], [8.0], [0.2]]), unknown=("",))
        >>> found.gradient_noise_scale, found.standard_error
        (array([40.]), array([3.]))
    """

    gradient_noise_scale: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    gradient_variance: NDArray[np.float64]
    full_gradient_norm_squared: NDArray[np.float64]
    unknown: tuple[str, ...]


def noise_of_ranks(history: History, *, n_samples: float | None = None) -> NoiseOfRanks:
    r"""Estimate each epoch's gradient noise scale from the gradients of ranks that train together.

    At each step K ranks have gradients :math:`g_r` of their own batches of :math:`b_r` samples at
    the same weights, and the step uses their mean :math:`\bar g`. If all batches are random, then

    .. math:: \frac1K \sum_r \mathbb E \lVert g_r \rVert^2
        = \lVert \nabla F \rVert^2 + h \operatorname{tr} \Sigma, \qquad
        \mathbb E \lVert \bar g \rVert^2
        = \lVert \nabla F \rVert^2 + \frac hK \operatorname{tr} \Sigma, \qquad
        h = \frac1K \sum_r \frac1{b_r},

    two equations that give both unknowns without bias. The estimates of a single step are
    worthless; the noise scale is the quotient of their means over an epoch, with the standard
    error of such a quotient (by the delta method). They cost nothing: a recorder under
    `DistributedDataParallel` has kept these norms.

    If an epoch deals out its N samples without repeating any, as a `DistributedSampler` does, the
    batches of a step are disjoint, and at weights that do not depend on the epoch's samples the
    two estimates have the expectations tr Σ · N/(N − 1) and ‖∇F‖² − tr Σ/(N − 1), exactly and
    whatever the sizes. That is corrected for. Weights that have moved with the epoch's own
    samples leave an error of the order of tr Σ/N in ‖∇F‖²: a noise scale above N/10 is nan.

    Args:
        history: what `recorder.gather()` returns on rank 0.
        n_samples: N, how many samples the batches are drawn from without repeating any; by
            default as many as the epoch has. math.inf: each batch is drawn anew, or the epochs
            are parts of one pass over far more data.

    Returns:
        A `NoiseOfRanks`, one value a finished epoch. Σ is that of single samples and normalised
        by 1/N, as for `Survey.gradient_noise_scale`. A factor that the gradients of all ranks have
        in common (a GradScaler's) leaves the noise scale as it is, and changes the other two.
        What is accumulated before a step counts as one batch.

    Raises:
        TypeError: if history is no History.
        ValueError: if it is not gathered from several ranks that have gradients of their own, if
            the numbers of samples are not known, if samples weigh differently in their batches'
            means, or if n_samples is below 2.

    References:
        McCandlish et al., "An empirical model of large-batch training" (2018), appendix A.1, for
        ranks of equal size and N infinite.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import History, noise_of_ranks
        >>> from sgd_analysis.history.vectors import Vectors
        >>> rng = np.random.default_rng(0)
        >>> gradients = 1 + rng.normal(size=(2, 500, 4)) / 8**0.5  # ranks, steps: batches of 8
        >>> def recorded(kept):
        ...     return Vectors(kept, np.linalg.norm(kept, axis=1))
        >>> row = {"loss": np.ones(500), "epoch": np.zeros(500, int), "n_epochs": 1}
        >>> row |= {"step_size": np.zeros((500, 1)), "n_samples": np.full(500, 8)}
        >>> ranks = tuple(History(**row, local_gradients=recorded(g)) for g in gradients)
        >>> both = History(**row, gradients=recorded(gradients.mean(axis=0)), ranks=ranks)
        >>> found = noise_of_ranks(both, n_samples=np.inf)  # the right answer is 4 / 4
        >>> print(f"{found.gradient_noise_scale[0]:.2f} ± {found.standard_error[0]:.2f}")
        1.03 ± 0.04
    """
    _check(history, n_samples)
    each = [_of_epoch(history[e], n_samples) for e in range(history.n_epochs)]
    scale, error, variance, square = np.array([one for one, _ in each]).reshape(-1, 4).T
    return NoiseOfRanks(scale, error, variance, square, unknown=tuple(why for _, why in each))


@quiet
def _of_epoch(epoch: History, n_samples: float | None) -> tuple[list[float], str]:
    """Return the four numbers of one epoch, and why the first two are nan."""
    sizes, divisors = _of_ranks(epoch, "n_samples"), _divisors(epoch)
    local = np.array([rank.local_gradient_norm for rank in epoch.ranks]) / divisors
    used = ~epoch.skipped & (sizes > 0).all(axis=0)
    mean, why = _norm_of_mean(epoch, used)
    sizes, divisors, local = sizes[:, used], divisors[:, used], local[:, used]
    shares = divisors / divisors.sum(axis=0)  # of each rank's mean gradient in that of the step
    small, large = np.mean(local**2, axis=0), (mean[used] / divisors.mean(axis=0)) ** 2
    h, q = np.mean(1 / sizes, axis=0), np.sum(shares**2 / sizes, axis=0)
    variance, square = (small - large) / (h - q), (h * large - q * small) / (h - q)
    n = float(sizes.sum()) if n_samples is None else float(n_samples)
    variance, square = variance * (1 - 1 / n), square + variance / n
    scale = quotient(variance.mean(), square.mean())
    error = _error((variance - scale * square) / square.mean())
    why = why or _doubt(square, scale / n)
    scale, error = (math.nan, math.nan) if why else (scale, error)
    return [scale, error, float(variance.mean()), float(square.mean())], why


def _norm_of_mean(epoch: History, used: NDArray[np.bool_]) -> tuple[NDArray[np.float64], str]:
    """Return the norms (n_steps,) of the ranks' mean gradient, or why they are not known."""
    local = [rank.local_gradients.kept for rank in epoch.ranks if rank.local_gradients]
    if min(map(len, local)) == epoch.n_steps:
        blocks = [slice(i, i + _ROWS) for i in range(0, epoch.n_steps, _ROWS)]
        means = (np.mean([own[b] for own in local], axis=0, dtype=double(local[0])) for b in blocks)
        return np.concatenate([norms(mean) for mean in means]), ""
    return epoch.gradient_norm, _RESCALED * _seems_rescaled(epoch, used)


def _seems_rescaled(epoch: History, used: NDArray[np.bool_]) -> bool:
    """Return whether the step's gradient is not the mean of the ranks', as far as norms tell."""
    norm = epoch.gradient_norm[used]
    bound = np.mean([rank.local_gradient_norm for rank in epoch.ranks], axis=0)[used]
    # What is clipped is equally long at steps at which the ranks' own gradients are not.
    at_limit = bound[norm > norm.max(initial=0) * (1 - 1e-5)]
    is_clipped = at_limit.size and np.ptp(at_limit) > 1e-4 * at_limit.max()
    return bool(is_clipped or (norm > bound * (1 + 1e-3)).any())


def _doubt(square: NDArray[np.float64], share: float) -> str:
    """Return why a noise scale is not to be trusted, if it is not.

    Args:
        square: (n_steps,) the estimates of ‖∇F‖².
        share: the noise scale, divided by the number of samples that the epoch deals out.
    """
    if len(square) < _FEWEST_STEPS:
        return f"{len(square)} steps are too few for an estimate: it takes {_FEWEST_STEPS}"
    mean, error = square.mean(), _error(square)
    if mean < -_FEWEST_ERRORS * error:  # never by chance
        return _RESCALED
    if not mean > _FEWEST_ERRORS * error:
        return (
            f"‖∇F‖² cannot be told from zero, {mean:.3g} ± {error:.2g}: it takes longer epochs, or "
            "larger batches"
        )
    if share > _LARGEST_SHARE:
        return (
            f"it is {share:.2g} times the number of samples that the epoch deals out, and then "
            "cannot be told at weights that move: survey the batches at fixed weights, or, if each "
            "batch is drawn anew, give n_samples=math.inf"
        )
    return ""


def _divisors(epoch: History) -> NDArray[np.float64]:
    """Return (n_ranks, n_steps) what makes means of the ranks' gradients."""
    if epoch.ranks[0].divisor is None:
        return np.ones((len(epoch.ranks), epoch.n_steps))
    divisors = _of_ranks(epoch, "divisor")
    return np.where(np.isnan(divisors), 1.0, divisors)


def _of_ranks(history: History, name: str) -> NDArray[np.float64]:
    return np.array([getattr(rank, name) for rank in history.ranks])


def _error(values: NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else math.nan


@quiet
def _check(history: History, n_samples: float | None) -> None:
    if not isinstance(history, History):
        raise TypeError(f"history must be a History, got {kind_of(history)}")
    if len(history.ranks) < 2:
        raise ValueError(
            "history must be gathered from at least two ranks, got one of "
            f"{len(history.ranks)}: give what recorder.gather() returns on rank 0"
        )
    if any(rank.local_gradients is None for rank in history.ranks):
        raise ValueError(
            "the ranks' own gradients were not recorded: they are under DistributedDataParallel, "
            'unless gradients="none"; with sharded parameters no rank has one'
        )
    if n_samples is not None and not n_samples >= 2:
        raise ValueError(f"n_samples must be at least 2, got {n_samples!r}")
    sizes = _of_ranks(history, "n_samples")
    if np.isnan(sizes).any():
        raise ValueError(
            "a noise scale is a number of samples, and those of some batches are not known: say "
            "them by record(..., n_samples=)"
        )
    weights = (_of_ranks(history, "denominator") / sizes)[sizes > 0]
    if weights.size and not np.allclose(weights, weights[0], rtol=1e-12, atol=0):
        raise ValueError(
            "the samples must all weigh the same in their batch's mean for the spread of their "
            "gradients to be defined, got batches whose denominator is between "
            f"{weights.min():g} and {weights.max():g} times their number of samples: leave out "
            "class weights and ignored targets"
        )
