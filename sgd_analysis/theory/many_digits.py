"""An epoch in a fixed order with as many digits as its growth costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis.problems.least_squares import LeastSquares

BEARABLE = 1e10  # rounding in double precision may grow so far, to one part in a million


def digits_needed(step_size: float, hessians: NDArray[np.float64]) -> int | None:
    """Return how many decimal digits a product of steps needs, None if double precision will do.

    Rounding in one step is multiplied by those that follow, whose norm is at most the product of
    theirs.

    Args:
        step_size: η > 0.
        hessians: (m, r, r) the batches' Hessians.
    """
    factors = np.abs(1 - step_size * np.linalg.eigvalsh(hessians)).max(axis=-1, initial=0)
    growth = float(np.log10(np.maximum(factors, 1)).sum())
    return None if growth < math.log10(BEARABLE) else 25 + math.ceil(growth)


def affine_maps(
    problem: LeastSquares,
    step_size: float,
    visits: Sequence[NDArray[np.integer]],
    centre: NDArray[np.float64],
    digits: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the affine maps of the first steps of an epoch, and what the whole epoch removes.

    Args:
        problem: a least-squares problem, whose float64 values are taken as they are.
        step_size: η > 0.
        visits: index arrays, one a batch.
        centre: (d,) the reference point c.
        digits: how many decimal digits to compute with.

    Returns:
        (m + 1, d, d + 1) after k steps, Pₖ and by how much the weights that start at c have
        moved; and (d, d) I − Pₘ. Both are rounded to double precision at the end, inf where it
        cannot hold them.
    """
    d = len(centre)
    with localcontext(Context(prec=digits)):
        rows, identity = _decimals(problem.features), _decimals(np.eye(d))
        residuals = rows @ _decimals(centre) - _decimals(problem._float64_targets)
        now = np.column_stack([identity, _decimals(np.zeros(d))])
        affine = np.empty((len(visits) + 1, d, d + 1))
        affine[0] = now.astype(np.float64)
        for k, batch in enumerate(visits):
            seen = rows[batch] @ now
            seen[:, -1] += residuals[batch]
            now = now - 2 * Decimal(step_size) / len(batch) * (rows[batch].T @ seen)
            affine[k + 1] = now.astype(np.float64)
        return affine, (identity - now[:, :-1]).astype(np.float64)


def _decimals(values: NDArray[np.float64]) -> NDArray[Any]:
    """Return numbers as decimals, exactly."""
    return np.array([Decimal(v) for v in values.ravel().tolist()], object).reshape(values.shape)
