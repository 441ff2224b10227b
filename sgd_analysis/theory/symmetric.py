"""Operators on matrices, and on the symmetric ones among them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


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


def kron(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Kronecker products of matrices on the last two axes."""
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    rows, columns = (x * y for x, y in zip(a.shape[-2:], b.shape[-2:], strict=True))
    return product.reshape(*product.shape[:-4], rows, columns)
