"""Up to which step size the second moments of the weights stay bounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.random_step import StepMoments, checked_step, subset_spread
from sgd_analysis.theory.symmetric import on_symmetric


def mean_square_radius(problem: LeastSquares, step_size: float, batch_size: int) -> float:
    r"""Return by which factor a step multiplies the mean square distance in the long run.

    This is the spectral radius of Z ↦ E[(I − ηH_b) Z (I − ηH_b)] on the symmetric matrices Z over
    the row space of the features, for a fresh uniform batch b of B samples each step. Below 1 the
    second moments of w stay bounded, and without noise E‖w − ŵ‖² tends to 0 at this rate; above
    1 they diverge, from almost every start. See `mean_square_step_limit` for where it crosses 1.

    Args:
        problem: a least-squares problem; its targets do not matter.
        step_size: η > 0.
        batch_size: B, between 1 and n_samples.

    Returns:
        The radius ρ a step, ≥ 0; 0 if all features are zero.

    Raises:
        TypeError: if problem is not a LeastSquares, or a number is of the wrong kind.
        ValueError: if step_size is not positive and finite, or so large that the matrix
            overflows, or batch_size is not between 1 and n_samples.

    Example:
        >>> from sgd_analysis import LeastSquares, mean_square_radius
        >>> line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])
        >>> round(mean_square_radius(line, 0.125, 1), 6)  # mean of (1 − 1/4)² and (1 − 1)²
        0.28125
    """
    eta, size = checked_step(problem, step_size, batch_size)
    moments, _, unit = _on_row_space(problem)
    operator = moments.operator(eta * unit, subset_spread(problem.n_samples, size))
    # The operator is self-adjoint, since each I − ηH_b is symmetric.
    return float(np.abs(np.linalg.eigvalsh(on_symmetric(operator))).max(initial=0))


def mean_square_step_limit(problem: LeastSquares, batch_size: int) -> float:
    r"""Return the step size up to which the second moments stay bounded.

    Below this limit η* the radius is below 1, above it above 1, with

    .. math:: \frac1{\eta^*} = \lambda_{\max}\bigl(L^{-1/2} G L^{-1/2}\bigr), \quad
              L = H \otimes I + I \otimes H, \quad G = E[H_b \otimes H_b],

    on the symmetric matrices over the row space of the features.

    *Proof.* A step's operator is Tη = I − ηL + η²G = E[A ⊗ A] with the symmetric A = I − ηH_b.
    L is positive definite there, and G is positive semi-definite, as H_b is. Tη is self-adjoint,
    so that its radius is max(λmax, −λmin). Moreover λmin ≥ −λmax. For write a symmetric S as P − Q
    with its positive and negative parts, and let R = P + Q, which has the same norm. Then
    tr(SASA) + tr(RARA) = 2tr(PAPA) + 2tr(QAQA) ≥ 0. With the mean over batches, and S the
    eigenvector of λmin, this says λmin ≥ −(the quadratic form of Tη at R) ≥ −λmax. Hence
    radius < 1 ⟺ λmax(Tη) < 1 ⟺ L − ηG is positive definite ⟺ η < η*. □

    With all samples in each batch, G = H ⊗ H and η* = 2/λmax, the limit of gradient descent.

    Args:
        problem: a least-squares problem; its targets do not matter.
        batch_size: B, between 1 and n_samples.

    Returns:
        η*; inf if all features are zero. The cost grows as d⁶.

    Raises:
        TypeError: if problem is not a LeastSquares, or batch_size not an integer.
        ValueError: if batch_size is not between 1 and n_samples.

    Example:
        >>> from sgd_analysis import LeastSquares, mean_square_step_limit
        >>> line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])  # E(1 − ηh)² with h = 2 or 8
        >>> [round(mean_square_step_limit(line, b), 6) for b in (1, 2)]
        [0.294118, 0.4]
    """
    _, size = checked_step(problem, 1.0, batch_size)
    moments, eigenvalues, unit = _on_row_space(problem)
    squares = on_symmetric(moments.mean_square(subset_spread(problem.n_samples, size)))
    rows, columns = np.triu_indices(len(eigenvalues))
    scale = np.sqrt(eigenvalues[rows] + eigenvalues[columns])
    largest = np.linalg.eigvalsh(squares / scale / scale[:, None]).max(initial=0)
    return float(1 / (largest * unit)) if largest > 0 else float("inf")


def _on_row_space(problem: LeastSquares) -> tuple[StepMoments, NDArray[np.float64], float]:
    """Return the moments of the Hessians in the risk's eigenbasis, and its non-zero eigenvalues.

    Both in units of the largest eigenvalue, the third value, so that no fourth power overflows.
    """
    nonzero = problem.eigenvalues > 0
    unit = float(problem.eigenvalues[-1]) if nonzero.any() else 1.0
    rows = problem.features @ problem.eigenvectors[:, nonzero] / np.sqrt(unit)
    return StepMoments.of(rows, rows), problem.eigenvalues[nonzero] / unit, unit
