"""The eigenvalues of a least-squares problem's Hessian, and where its risk is least."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import read_only

Array = NDArray[np.float64]


class Spectrum(NamedTuple):
    """What one singular value decomposition of the features tells; see `LeastSquares`."""

    eigenvalues: Array
    eigenvectors: Array
    minimiser: Array


def spectrum(features: Array, targets: Array) -> Spectrum:
    """Decompose the features, whose singular values keep small eigenvalues accurate.

    Args:
        features: (n_samples, d) the matrix Φ.
        targets: (n_samples,) the vector y.

    Returns:
        The eigenvalues (d,) of (2/N) ΦᵀΦ, ascending and exactly 0 where they are rounding, its
        unit eigenvectors (d, d) and the minimiser (d,), of least norm where there are several.

    Raises:
        ValueError: if an eigenvalue overflows, or is too small to have all digits.
    """
    n_samples, d = features.shape
    # Rows of zeros change neither the spectrum nor the minimiser; with fewer samples than
    # weights they give the reduced decomposition all d right singular vectors.
    padding = max(d - n_samples, 0)
    matrix = np.pad(features, ((0, padding), (0, 0)))
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    tolerance = singular[0] * max(n_samples, d) * np.finfo(np.float64).eps
    kept = singular > tolerance
    _check_range(features, 2 / n_samples, singular, kept)
    projections = np.divide(
        left.T @ np.pad(targets, (0, padding)), singular, out=np.zeros(d), where=kept
    )
    eigenvalues = np.where(kept, 2 / n_samples * singular**2, 0.0)[::-1]
    largest = np.argmax(np.abs(right), axis=1)
    signs = np.where(right[np.arange(d), largest] < 0, -1.0, 1.0)
    eigenvectors = (signs[:, None] * right)[::-1].T
    return Spectrum(*map(read_only, (eigenvalues, eigenvectors, projections @ right)))


def _check_range(features: Array, scale: float, singular: Array, kept: NDArray[np.bool_]) -> None:
    with np.errstate(over="ignore"):
        if not np.isfinite(singular**2).all():
            raise ValueError(
                "features must be small enough for their squares to be finite, got values up "
                f"to {np.abs(features).max():g}: rescale them"
            )
    if (scale * singular[kept] ** 2 < np.finfo(np.float64).tiny).any():
        raise ValueError(
            "features must be large enough for their squares to have all digits, got values "
            f"up to {np.abs(features).max():g}: rescale them"
        )
