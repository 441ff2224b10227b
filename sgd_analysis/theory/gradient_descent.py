"""Gradient descent on least squares in closed form: its risk, and its steps to a threshold."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._validation import finite_vector, instance_of, integer_between, positive_number
from sgd_analysis.problems.least_squares import LeastSquares


def gradient_descent_risk(
    problem: LeastSquares, step_size: float, steps: int, start: ArrayLike | None = None
) -> NDArray[np.float64]:
    r"""Return the global loss at every step of gradient descent, without running it.

    In the eigenbasis of the Hessian, with cᵢ the coordinates of w₀ − ŵ, each coordinate is
    multiplied by 1 − ηλᵢ a step, so that

    .. math:: F(w_k) = F(\hat w) + \tfrac12 \sum_i \lambda_i c_i^2 (1 - \eta\lambda_i)^{2k}.

    Args:
        problem: a least-squares problem.
        step_size: η > 0; past the stable limit the risks grow, up to inf.
        steps: the number of steps.
        start: (d,) the weights w₀; where the problem's model starts unless given.

    Returns:
        (steps + 1,) the risks F(w₀), …, F(w_steps), in loss units.

    Raises:
        TypeError: if problem is not a LeastSquares, or a number is of the wrong kind.
        ValueError: if step_size is not positive and finite, steps is negative, or start is not a
            finite vector of d weights.

    Example:
        >>> from sgd_analysis import LeastSquares, gradient_descent_risk
        >>> line = LeastSquares([[1.0], [1.0]], [0.0, 2.0])
        >>> gradient_descent_risk(line, 0.25, 3)
        array([2.      , 1.25    , 1.0625  , 1.015625])
    """
    curve = _RiskCurve(problem, step_size, start)
    steps = integer_between("steps", steps, 0)
    return curve.at(np.arange(steps + 1))


def gradient_descent_steps(
    problem: LeastSquares, step_size: float, epsilon: float, start: ArrayLike | None = None
) -> int:
    """Return the first step of gradient descent whose global loss is below ε, without running it.

    This is min{k ≥ 0 : F(w_k) < ε}. A loop that computes a loss, makes the update it leads to,
    and then tests that loss stops one step later, at the end of epoch k + 1.

    F(w_k) is a sum of exponentials in k, hence convex: it either never rises, or falls to its
    least value and then grows. The search doubles and bisects, so that it costs O(log k).

    Args:
        problem: a least-squares problem.
        step_size: η > 0. Past the stable limit the run may still pass below ε on its way.
        epsilon: the threshold ε, in loss units.
        start: (d,) the weights w₀; where the problem's model starts unless given.

    Returns:
        The number of steps k; 0 if the start is already below ε.

    Raises:
        TypeError: if problem is not a LeastSquares, or a number is of the wrong kind.
        ValueError: if step_size or epsilon is not positive and finite, start is not a finite
            vector of d weights, or no step of this run goes below ε.

    Example:
        >>> from sgd_analysis import LeastSquares, gradient_descent_steps
        >>> line = LeastSquares([[1.0], [1.0]], [0.0, 2.0])
        >>> gradient_descent_steps(line, 0.25, 1.05)
        3
    """
    curve = _RiskCurve(problem, step_size, start)
    epsilon = positive_number("epsilon", epsilon)
    if curve.grows:
        turn = _first_integer(curve.no_longer_falls)
        if not curve.at(turn) < epsilon:
            raise ValueError(
                f"epsilon must be above {curve.at(turn):.6g}, the least risk that this run of "
                f"gradient descent reaches (at step {turn}, before it diverges), got {epsilon:g}"
            )
    elif epsilon <= curve.limit:
        raise ValueError(
            f"epsilon must be above {curve.limit:.6g}, the risk that this run of gradient "
            f"descent tends to, got {epsilon:g}"
        )
    # Up to the turn the risk falls, so "below ε" is false, then true; past it the answer is known.
    return _first_integer(
        lambda k: bool(curve.at(k) < epsilon) or (curve.grows and curve.no_longer_falls(k))
    )


class _RiskCurve:
    """F(w_k) as the least risk plus a sum of exponentials in k, Σ amplitude · exp(k · rate).

    `limit` is what it tends to, unless it `grows` without end.
    """

    def __init__(self, problem: LeastSquares, step_size: float, start: ArrayLike | None) -> None:
        instance_of("problem", problem, LeastSquares, "the only kind with closed forms")
        eta = positive_number("step_size", step_size)
        first = (
            problem.start if start is None else finite_vector("start", start, problem.n_parameters)
        )
        with np.errstate(over="ignore", invalid="ignore"):
            coordinates = (first - problem.minimiser) @ problem.eigenvectors
            amplitudes = 0.5 * problem.eigenvalues * coordinates**2
            present = amplitudes > 0
            x = eta * problem.eigenvalues[present]
            self._changes = x * (x - 2)  # (1 - x)^2 - 1: the sign of each term's change a step
        if not (np.isfinite(amplitudes).all() and np.isfinite(self._changes).all()):
            raise ValueError(
                "start and step_size must be small enough for the first risks to be finite, got a "
                f"start up to {np.abs(first).max():g} and a step size of {eta:g}"
            )
        # log((1 - x)^2), exact to rounding where x is small, which is where k is large.
        with np.errstate(divide="ignore"):
            self._rates = 2 * np.where(x < 1, np.log1p(-np.minimum(x, 1)), np.log(np.abs(x - 1)))
        self._amplitudes = amplitudes[present]
        self.grows = bool((self._changes > 0).any())
        self.limit = problem.least_risk + float(self._amplitudes[self._changes == 0].sum())
        self._least_risk = problem.least_risk

    def at(self, steps: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(self._least_risk + self._terms(steps).sum(-1))

    def no_longer_falls(self, step: int) -> bool:
        return bool((self._terms(step) * self._changes).sum() >= 0)

    def _terms(self, steps: ArrayLike) -> NDArray[np.float64]:
        k = np.asarray(steps, dtype=np.float64)[..., None]
        with np.errstate(over="ignore", invalid="ignore"):
            decay = np.where(k == 0, 1.0, np.exp(k * self._rates))
            return np.asarray(self._amplitudes * decay)


def _first_integer(holds: Callable[[int], bool]) -> int:
    """Return the first k >= 0 for which `holds`, which must stay true once it is.

    Raises:
        ValueError: if there is none up to 2**1000, where k no longer fits a float.
    """
    exponent = bisect_left(range(1001), True, key=lambda exponent: holds(2**exponent))
    if exponent > 1000:
        raise ValueError("step_size must be larger: more than 2**1000 steps would be needed")
    # What bisect searches may have 2**63 - 1 items: beyond, it goes in steps finer than a float's.
    unit = 1 << max(exponent - 62, 0)
    return unit * bisect_left(range(2**exponent // unit), True, key=lambda k: holds(unit * k))
