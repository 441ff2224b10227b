"""The largest eigenvalue of a symmetric matrix that is known by its products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_MOST_KEPT = 256 << 20  # bytes of vectors and their products
_LONGEST_BASIS = 40
_ROUNDING = 16  # of the last digit of the largest eigenvalue found, in modulus


class Eigenvalue(NamedTuple):
    """An estimate θ = x·Ax with ‖x‖ = 1: an eigenvalue is within ‖Ax − θx‖ of it.

    Unless the products turn out not to be those of a symmetric matrix: asymmetry is the largest
    |x·Ay − y·Ax| of the vectors tried, relative to the largest eigenvalue in modulus.
    """

    value: float
    residual: float
    asymmetry: float
    is_certain: bool


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, max_products: int
) -> Eigenvalue:
    """Return the algebraically largest eigenvalue, by Lanczos' method with thick restarts.

    The basis is extended by the residual of its best vector, which spans what Lanczos' method
    does; when it is full, the better half of its Ritz vectors is kept. All of it is
    orthogonalised twice, so that no eigenvalue appears more often than it is there.

    Args:
        product: the matrix times a vector.
        start: (n,) any vector with a part in every direction.
        tolerance: of the residual, relative to the eigenvalue.
        max_products: how often `product` is called at most.

    Returns:
        The eigenvalue; certain where the residual is within the tolerance, or is rounding, as it
        is when the basis spans all directions.
    """
    n = len(start)
    most = max(3, min(_LONGEST_BASIS, _MOST_KEPT // (2 * start.nbytes), n))
    basis, images = start.new_empty((2, most, n))
    direction, size, asymmetry = start, 0, 0.0
    for _ in range(max_products):
        for _ in range(2):
            direction = direction - (basis[:size] @ direction) @ basis[:size]
            direction = direction / torch.linalg.vector_norm(direction)
        basis[size], images[size] = direction, product(direction)
        size += 1
        matrix = (basis[:size] @ images[:size].T).double().cpu()
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        scale = float(values.abs().max())
        asymmetry = max(asymmetry, float((matrix - matrix.T).abs().max()) / (scale or 1.0))
        best, value = vectors[:, -1].to(basis), float(values[-1])
        direction = best @ images[:size] - value * (best @ basis[:size])
        residual = float(torch.linalg.vector_norm(direction))
        rounding = _ROUNDING * torch.finfo(start.dtype).eps * scale
        is_certain = residual <= max(tolerance * abs(value), rounding) or size == n
        if is_certain:
            break
        if size == most:
            size //= 2
            kept = vectors[:, -size:].to(basis).T
            basis[:size], images[:size] = kept @ basis, kept @ images
    return Eigenvalue(value, residual, asymmetry, is_certain)
