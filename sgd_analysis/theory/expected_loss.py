"""The mean over all seeds of a run's losses, epoch by epoch, without running it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._validation import finite_vector, integer_between
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.epoch_moments import EpochMoments
from sgd_analysis.theory.random_step import checked_step, subset_spread

SPREADS: dict[str, Callable[[int, int], float]] = {
    "independent": subset_spread,
    "with_replacement": lambda n_samples, batch_size: 1 / batch_size,
    "reshuffle": subset_spread,
}


def expected_running_loss(
    problem: LeastSquares,
    step_size: float,
    batch_size: int,
    epochs: int,
    start: ArrayLike | None = None,
    *,
    order: str = "independent",
) -> NDArray[np.float64]:
    r"""Return the running loss of each epoch, its mean over all seeds, without running one.

    With order="independent" batch b_k is drawn anew whatever came before, hence independent of
    w_k, and E f_{b_k}(w_k) = E F(w_k): a linear function of the second moments of w_k, which
    `second_moment_operator` takes from step to step. The size-weighted mean over the epoch's
    batches, the ragged tail included, is **exact**; so it is with order="with_replacement", where
    the covariance of a batch's mean has the factor 1/B in place of (N − B)/(B(N − 1)).

    With order="reshuffle" the batches of an epoch are disjoint: a sample that an earlier batch has
    fitted does not come again. The prediction is then of **first order** in that dependence. A
    function of a batch, such as what its step does to second moments, is its mean, plus a sum
    Σ_{s∈b} h_s over its samples, plus what no such sum expresses. Between disjoint batches of n
    and n' samples the sums have the covariance

    .. math:: -\frac{n n'}{N - 1} \cdot \frac1N \sum_s h_s \otimes h'_s,

    for equal batches −1/(m − 1) times the variance of one. Each pair of batches of an epoch is
    corrected by it; products of two corrections, and what no sum expresses, are left out. That is
    of third order in η an epoch, where taking the batches as independent misses second order, and
    it counts near the mean-square limit.

    What noise adds in an epoch, reshuffled, is smaller than all of these: batches of equal size
    take back what they have added, up to the fourth order in η in E[(w − ŵ)(w − ŵ)ᵀ]. This part is
    computed apart, in coordinates in which that has happened already, so that the floor to which
    a run with noise comes down is of first order, too: up to a share of order 1/m, at every η.

    Args:
        problem: a least-squares problem, with or without noise.
        step_size: η > 0; where the means diverge, they grow up to inf.
        batch_size: B, between 1 and n_samples; the last batch of an epoch holds what is left.
        epochs: the number of epochs.
        start: (d,) the weights w₀; where the problem's model starts unless given.
        order: "independent", "with_replacement" or "reshuffle". For a handful of weights: the
            cost grows as d⁶, for "reshuffle" as N d⁸.

    Returns:
        (epochs,) expected running losses, in loss units. The first of them below ε is where a run
        with `stop=running_loss_below(ε)` is predicted to end, as far as runs differ little.

    Raises:
        TypeError: if problem is not a LeastSquares, or a number is of the wrong kind.
        ValueError: if step_size is not positive and finite, or so large that one step overflows,
            batch_size is not between 1 and n_samples, epochs is below 1, start is not a finite
            vector of d weights, or order is not one of these.

    Example:
        >>> from sgd_analysis import expected_running_loss, quadratic_fit, running_loss_below
        >>> predicted = expected_running_loss(quadratic_fit(), 2e-4, batch_size=10, epochs=50)
        >>> stops = running_loss_below(0.1).stops({"running_loss": predicted})
        >>> int(stops.argmax()) + 1  # the source notebook's 48 epochs
        48
    """
    running, _ = _expectations(problem, step_size, batch_size, epochs, start, order)
    return running


def expected_risk(
    problem: LeastSquares,
    step_size: float,
    batch_size: int,
    epochs: int,
    start: ArrayLike | None = None,
    *,
    order: str = "independent",
) -> NDArray[np.float64]:
    """Return the global loss F at the end of each epoch, its mean over all seeds.

    As exact as `expected_running_loss`, whose docstring says for which order it is.

    Args:
        problem: a least-squares problem, with or without noise.
        step_size: η > 0; where the means diverge, they grow up to inf.
        batch_size: B, between 1 and n_samples; the last batch of an epoch holds what is left.
        epochs: the number of epochs.
        start: (d,) the weights w₀; where the problem's model starts unless given.
        order: "independent", "with_replacement" or "reshuffle".

    Returns:
        (epochs + 1,) expected risks, in loss units, the first of them F(w₀).

    Raises:
        TypeError: as `expected_running_loss`.
        ValueError: as `expected_running_loss`.

    Example:
        >>> from sgd_analysis import LeastSquares, expected_risk
        >>> line = LeastSquares([[1.0], [2.0]], [1.0, 2.0])
        >>> expected_risk(line, 0.1, batch_size=1, epochs=2).round(4)
        array([2.5   , 0.289 , 0.0334])
    """
    _, risk = _expectations(problem, step_size, batch_size, epochs, start, order)
    return risk


def _expectations(
    problem: LeastSquares,
    step_size: float,
    batch_size: int,
    epochs: int,
    start: ArrayLike | None,
    order: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    eta, size = checked_step(problem, step_size, batch_size)
    epochs = integer_between("epochs", epochs, 1)
    first = problem.start if start is None else finite_vector("start", start, problem.n_parameters)
    if order not in SPREADS:
        raise ValueError(f"order must be one of {sorted(SPREADS)}, got {order!r}")
    model = EpochMoments(problem, eta, SPREADS[order])
    n_whole, tail = divmod(problem.n_samples, size)
    sizes = [size] * n_whole + [tail] * (tail > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        loss, matrix = (model.reshuffled if order == "reshuffle" else model.independent)(sizes)
        moments = [model.moments(first)]
        for _ in range(epochs):
            moments.append(matrix @ moments[-1])
        running, risk = np.array(moments[:-1]) @ loss, np.array(moments) @ model.risk
    # All of it is bounded below by 0, so that what is not a number has overflowed.
    return np.nan_to_num(running, nan=np.inf, posinf=np.inf), np.nan_to_num(
        risk, nan=np.inf, posinf=np.inf
    )
