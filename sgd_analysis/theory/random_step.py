"""A step with a random batch, by the moments of its samples' steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import instance_of, integer_between, positive_number, room_for
from sgd_analysis.problems.least_squares import LeastSquares


def checked_step(problem: LeastSquares, step_size: float, batch_size: int) -> tuple[float, int]:
    """Return step size and batch size, or raise unless they are those of a step on the problem."""
    instance_of("problem", problem, LeastSquares, "the only kind with closed forms")
    eta = positive_number("step_size", step_size)
    return eta, integer_between(
        "batch_size", batch_size, 1, problem.n_samples, meaning="the number of samples"
    )


def subset_spread(n_samples: int, batch_size: int) -> float:
    """Return the covariance of the mean of a uniform B-subset, by that of one sample.

    (N − B)/(B(N − 1)), the samples' covariance being normalised by 1/N.
    """
    return (n_samples - batch_size) / (batch_size * max(n_samples - 1, 1))


def homogeneous(
    features: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows (φᵢ, 0) and (φᵢ, −yᵢ), (n_samples, d + 1) each."""
    return np.pad(features, ((0, 0), (0, 1))), np.column_stack([features, -targets])


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
