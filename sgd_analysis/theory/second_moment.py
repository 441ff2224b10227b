"""What a step with a random batch does to the second moments of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import instance_of, integer_between, positive_number, room_for
from sgd_analysis.problems.least_squares import LeastSquares


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
        >>> line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])
        >>> float(second_moment_operator(line, 0.125, 1)[0, 0])  # mean of (1 − 1/4)², (1 − 1)²
        0.28125
    """
    eta, size = checked_step(problem, step_size, batch_size)
    moments = StepMoments.of(*homogeneous(problem.features, problem._float64_targets))
    return moments.operator(eta, subset_spread(problem.n_samples, size))


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


@dataclass(frozen=True, eq=False)
class StepMoments:
    """The first two moments over the samples of Xᵢ, by which sample i's step is z ↦ z − ηXᵢz.

    Args:
        mean: (n, n) the mean of Xᵢ.
        square: (n², n²) the mean of Xᵢ ⊗ Xᵢ.
    """

    mean: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(cls, left: NDArray[np.float64], right: NDArray[np.float64]) -> StepMoments:
        """Return the moments of Xᵢ = 2 leftᵢ rightᵢᵀ, from (n_samples, n) rows.

        Raises:
            ValueError: if they overflow.
        """
        n_samples, n = left.shape
        room_for(
            f"features must have fewer independent columns than {n}: there are second moments of "
            "each pair with each pair of them",
            3 * n**4 + 2 * n_samples * n**2,
        )
        with np.errstate(over="ignore", invalid="ignore"):
            lefts, rights = (
                (rows[:, :, None] * rows[:, None, :]).reshape(n_samples, n * n)
                for rows in (left, right)
            )
            moments = cls(2 / n_samples * left.T @ right, 4 / n_samples * lefts.T @ rights)
        if not np.isfinite(moments.square).all():
            raise ValueError(
                "features and targets must be small enough for their fourth powers to be finite: "
                "rescale them"
            )
        largest = np.abs(left).max(initial=0)
        if 0 < largest and largest**4 < np.finfo(np.float64).tiny:
            raise ValueError(
                "features must be large enough for their fourth powers to have all digits, got "
                f"values up to {largest:g}: rescale them"
            )
        return moments

    def mean_square(self, spread: float) -> NDArray[np.float64]:
        """Return E[X_b ⊗ X_b], for means X_b whose covariance is `spread` times the samples'."""
        pairs = np.kron(self.mean, self.mean)
        return np.asarray(pairs + spread * (self.square - pairs))

    def operator(self, step_size: float, spread: float) -> NDArray[np.float64]:
        """Return E[(I − ηX_b) ⊗ (I − ηX_b)].

        Raises:
            ValueError: if it overflows.
        """
        identity = np.eye(len(self.mean))
        sides = np.kron(self.mean, identity) + np.kron(identity, self.mean)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = step_size * (step_size * self.mean_square(spread) - sides)
        if not np.isfinite(moved).all():
            raise ValueError(
                "step_size must be small enough for the second moments to be finite, got "
                f"{step_size:g}"
            )
        return np.asarray(np.eye(len(moved)) + moved)


def homogeneous(
    features: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows (φᵢ, 0) and (φᵢ, −yᵢ), (n_samples, d + 1) each."""
    return np.pad(features, ((0, 0), (0, 1))), np.column_stack([features, -targets])


def subset_spread(n_samples: int, batch_size: int) -> float:
    """Return the covariance of the mean of a uniform B-subset, by that of one sample.

    (N − B)/(B(N − 1)), the samples' covariance being normalised by 1/N.
    """
    return (n_samples - batch_size) / (batch_size * max(n_samples - 1, 1))


def symmetric_basis(n: int) -> NDArray[np.float64]:
    """Return (n², n(n+1)/2) orthonormal columns: a basis of the symmetric matrices."""
    rows, columns = np.triu_indices(n)
    basis = np.zeros((n, n, len(rows)))
    position = np.arange(len(rows))
    basis[rows, columns, position] = basis[columns, rows, position] = np.where(
        rows == columns, 1, np.sqrt(0.5)
    )
    return basis.reshape(n * n, len(rows))


def on_symmetric(operator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return operators (..., n², n²) on matrices as (..., p, p), on the symmetric ones' basis."""
    basis = symmetric_basis(math.isqrt(operator.shape[-1]))
    return np.asarray(basis.T @ operator @ basis)


def checked_step(problem: LeastSquares, step_size: float, batch_size: int) -> tuple[float, int]:
    """Return step size and batch size, or raise unless they are those of a step on the problem."""
    instance_of("problem", problem, LeastSquares, "the only kind with closed forms")
    eta = positive_number("step_size", step_size)
    return eta, integer_between(
        "batch_size", batch_size, 1, problem.n_samples, meaning="the number of samples"
    )


def _on_row_space(problem: LeastSquares) -> tuple[StepMoments, NDArray[np.float64], float]:
    """Return the moments of the Hessians in the risk's eigenbasis, and its non-zero eigenvalues.

    Both in units of the largest eigenvalue, the third value, so that no fourth power overflows.
    """
    nonzero = problem.eigenvalues > 0
    unit = float(problem.eigenvalues[-1]) if nonzero.any() else 1.0
    rows = problem.features @ problem.eigenvectors[:, nonzero] / np.sqrt(unit)
    return StepMoments.of(rows, rows), problem.eigenvalues[nonzero] / unit, unit
