"""Where epochs in a fixed order end, for small step sizes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.visits import Visits


def fixed_point_expansion(
    problem: LeastSquares, batches: Iterable[ArrayLike]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Return where epochs in a fixed order end for small step sizes, to first order in η.

    With H̄ the plain mean of the batches' Hessians, w̄ the minimiser of the plain mean of their
    losses and gⱼ the gradient of batch j there,

    .. math:: w_\eta = \bar w + \eta c + O(\eta^2), \qquad
              c = \frac1m \bar H^{-1} \sum_{i < j} H_j g_i \quad (i \text{ is visited before } j).

    *Proof.* From w̄ + u an epoch reaches w̄ + Mu − η Σᵢ Rᵢgᵢ, with Rᵢ = ∏_{j>i}(I − ηHⱼ) =
    I − η Σ_{j>i} Hⱼ + O(η²). Since Σ gᵢ = 0 at w̄, the sum leaves +η² Σ_{i<j} Hⱼgᵢ + O(η³); and
    I − M = ηmH̄ + O(η²). The fixed point solves (I − M)u = η² Σ_{i<j} Hⱼgᵢ + O(η³).

    In the reverse order c is −c − (1/m)H̄⁻¹ Σⱼ Hⱼgⱼ: the mean of an order and its reverse is the
    same for all orders, and in general not 0.

    For batches of equal size that are a partition of the samples, w̄ is the minimiser ŵ of the
    risk. With a **ragged tail** it is not: each batch makes one step of the same η, so that the
    samples of the short batch weigh more, and the distance from ŵ does not vanish with η.

    Args:
        problem: a least-squares problem.
        batches: index arrays, one a batch, in the order in which they are visited.

    Returns:
        The limit w̄ (d,), of least norm, and the slope c (d,), in units of weight a step size.

    Raises:
        TypeError: if problem is not a LeastSquares.
        ValueError: if there is no batch, or one is empty or names a sample that does not exist.

    Example:
        >>> from sgd_analysis import LeastSquares, epoch_operator, fixed_point_expansion
        >>> line, order = LeastSquares([[1.0], [2.0]], [2.0, 2.0]), [[0], [1]]
        >>> limit, slope = fixed_point_expansion(line, order)
        >>> limit.round(3), slope.round(3)
        (array([1.2]), array([-1.28]))
        >>> abs(epoch_operator(line, 1e-3, order).fixed_point - limit - 1e-3 * slope) < 1e-4
        array([ True])
    """
    visits = Visits(problem, batches)
    mean_hessian = visits.hessians.mean(axis=0)
    shift = -np.linalg.solve(mean_hessian, visits.gradients.mean(axis=0))
    gradients = visits.gradients + visits.hessians @ shift
    before = np.cumsum(gradients, axis=0) - gradients
    total = np.einsum("jab,jb->a", visits.hessians, before)
    slope = np.linalg.solve(mean_hessian, total) / len(gradients)
    return visits.centre + visits.basis @ shift, visits.basis @ slope
