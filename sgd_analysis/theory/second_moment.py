"""What a step with a random batch does to the second moments of the weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.random_step import (
    StepMoments,
    checked_step,
    homogeneous,
    subset_spread,
)


def second_moment_operator(
    problem: LeastSquares, step_size: float, batch_size: int
) -> NDArray[np.float64]:
    r"""Return the matrix that takes E[zzᵀ], z = (w, 1), from before a step to after it.

    The step's batch b is a fresh uniform subset of B samples without replacement, independent of
    w, as `order="independent"` draws it. With zᵀ = (wᵀ, 1) the step is linear, noise or not,

    .. math:: z \leftarrow A_b z, \quad A_b = \frac1B \sum_{i \in b} A_i, \quad
              A_i = I - \eta X_i, \quad X_i = 2 \begin{pmatrix} \varphi_i \\ 0 \end{pmatrix}
              \begin{pmatrix} \varphi_i^\top & -y_i \end{pmatrix},

    so that E[zzᵀ] ← E[A_b zzᵀ A_bᵀ], whose matrix is E[A_b ⊗ A_b]. With X̄ the mean of all Xᵢ and
    the covariance of a mean of B out of N,

    .. math:: E[A_b \otimes A_b] = I - \eta(\bar X \otimes I + I \otimes \bar X)
              + \eta^2 \Bigl[\bar X \otimes \bar X + \frac{N - B}{B(N - 1)} \Bigl(
              \frac1N \sum_i X_i \otimes X_i - \bar X \otimes \bar X\Bigr)\Bigr].

    This is exact: no linearisation, no sampling. One of its eigenvalues is 1, that of the constant
    z_{d+1} = 1; whether second moments stay bounded is for `mean_square_radius` to say.

    Args:
        problem: a least-squares problem, with or without noise.
        step_size: η > 0.
        batch_size: B, between 1 and n_samples.

    Returns:
        ((d+1)², (d+1)²) matrix K for moments read row by row. With Z = E[zzᵀ] before the step,
        `(K @ Z.ravel()).reshape(d + 1, d + 1)` is the moment matrix after it. Z is symmetric, so
        that reading it column by column is the same.

    Raises:
        TypeError: if problem is not a LeastSquares, or a number is of the wrong kind.
        ValueError: if step_size is not positive and finite, or so large that the matrix
            overflows, or batch_size is not between 1 and n_samples.

    Example:
        >>> from sgd_analysis import LeastSquares, second_moment_operator
        >>> line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])
        >>> float(second_moment_operator(line, 0.125, 1)[0, 0])  # mean of (1 − 1/4)², (1 − 1)²
        0.28125
    """
    eta, size = checked_step(problem, step_size, batch_size)
    moments = StepMoments.of(*homogeneous(problem.features, problem._float64_targets))
    return moments.operator(eta, subset_spread(problem.n_samples, size))
