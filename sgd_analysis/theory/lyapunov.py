"""How fast a typical run converges or diverges: the Lyapunov exponents of its random steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sgd_analysis._validation import integer_between
from sgd_analysis.orders import subsets
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.random_step import checked_step


@dataclass(frozen=True, eq=False)
class LyapunovExponents:
    """The exponential rates of a product of random steps, and how well they are known.

    Args:
        exponents: (r,) rates a step in descending order, one a dimension of the row space of the
            features (r = d if they are independent); −inf where steps are singular.
        standard_errors: (r,) their standard errors; nan where the exponent is −inf.

    Example:
        >>> from sgd_analysis import LeastSquares, lyapunov_exponents
        >>> line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])  # steps multiply by 1/2 or −1
        >>> found = lyapunov_exponents(line, 0.25, steps=1000, seed=0)
        >>> found.exponents.round(2), bool(found.standard_errors[0] < 0.01)  # −½ ln 2
        (array([-0.35]), True)
    """

    exponents: NDArray[np.float64]
    standard_errors: NDArray[np.float64]


def lyapunov_exponents(
    problem: LeastSquares,
    step_size: float,
    batch_size: int = 1,
    *,
    steps: int,
    seed: int,
    replicas: int = 64,
) -> LyapunovExponents:
    r"""Return the rates at which steps with random batches stretch and shrink, by QR.

    Without noise, d = w − ŵ is multiplied by I − ηH_b a step, each batch b a fresh uniform subset
    of B samples. By Oseledets' theorem (1/k) ln‖d_k‖ tends to the **largest** exponent, in almost
    every run and from almost every start: if it is negative a run converges, even where the mean
    of ‖d‖² over all runs diverges.

    The exponents are the long-run means of ln|Rᵢᵢ| in (I − ηH_b)Q = Q₊R, with Q₊ the next step's Q.
    Their **sum** is E ln|det(I − ηH_b)|, for single samples the mean of ln|1 − ηqᵢ|, qᵢ = 2‖φᵢ‖²:
    a scalar. The largest of r exponents is at least an r-th of it, and may be positive where it is
    negative.

    Args:
        problem: a least-squares problem; its targets do not matter.
        step_size: η > 0.
        batch_size: B, between 1 and n_samples.
        steps: how many steps of each replica count; a tenth as many go before them, in which Q,
            at first any orthonormal directions, settles.
        seed: of everything random, an integer ≥ 0; the global random state is left as it was.
        replicas: how many independent products there are, at least 2.

    Returns:
        The exponents in units of one a step, means over the replicas, with standard errors from
        the scatter of the replicas' own means.

    Raises:
        TypeError: if problem is not a LeastSquares, or a number is of the wrong kind.
        ValueError: if step_size is not positive and finite, or so large that a step overflows, or
            batch_size is not between 1 and n_samples, steps below 1, replicas below 2 or seed
            negative.

    Example:
        >>> from sgd_analysis import LeastSquares, lyapunov_exponents
        >>> line = LeastSquares([[1.0], [2.0]], [0.0, 0.0])  # steps multiply by 1/2 or −1
        >>> lyapunov_exponents(line, 0.25, steps=1000, seed=0).exponents.round(2)
        array([-0.35])
    """
    eta, size = checked_step(problem, step_size, batch_size)
    steps = integer_between("steps", steps, 1)
    replicas = integer_between("replicas", replicas, 2)
    generator = torch.Generator().manual_seed(integer_between("seed", seed, 0, 2**63 - 1))
    basis = problem.eigenvectors[:, problem.eigenvalues > 0]
    with np.errstate(over="ignore"):
        rows = np.sqrt(2 * eta / size) * (problem.features @ basis)  # ηH_b = rowsᵀ rows
        finite = np.isfinite(np.square(rows).sum())
    if not finite:
        raise ValueError(f"step_size must be small enough for a step to be finite, got {eta:g}")
    r = rows.shape[1]
    directions = torch.randn(replicas, r, r, generator=generator, dtype=torch.float64)
    q, _ = np.linalg.qr(directions.numpy())
    total = np.zeros((replicas, r))
    with np.errstate(divide="ignore", invalid="ignore"):  # a singular step has the logarithm −inf
        for step in range(-(steps // 10), steps):
            batch = rows[subsets(problem.n_samples, size, replicas, generator).numpy()]
            q, triangle = np.linalg.qr(q - batch.swapaxes(1, 2) @ (batch @ q))
            if step >= 0:
                total += np.log(_diagonal(triangle, batch))
        means = total / steps
        exponents = means.mean(axis=0)
        errors = means.std(axis=0, ddof=1) / np.sqrt(replicas)
    descending = np.argsort(-exponents)
    return LyapunovExponents(exponents[descending], errors[descending])


def _diagonal(triangle: NDArray[np.float64], batch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |Rᵢᵢ| (replicas, r), exactly 0 where it is the rounding of a singular step.

    Every |Rᵢᵢ| is at least the smallest singular value of I − ηH_b, in whose entries the rounding
    is that of 1 + ‖ηH_b‖.
    """
    diagonal = np.abs(np.diagonal(triangle, axis1=-2, axis2=-1))
    size = 1 + (batch**2).sum(axis=(-2, -1))
    rounding = 4 * np.finfo(np.float64).eps * size[:, None]
    return np.where(diagonal > rounding, diagonal, 0)
