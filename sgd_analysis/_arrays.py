"""Numbers on their way from torch to numpy, and sums that keep their digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def as_array(tensor: Tensor) -> NDArray[np.floating]:
    """Return a tensor as a numpy array in its dtype; bfloat16, unknown to numpy, as float32."""
    plain = tensor.detach().cpu()
    return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view of an array that cannot be written to: what is kept must stay true."""
    view = array.view()
    view.setflags(write=False)
    return view


# Losses and gradients that overflow, and epochs without a step that counts, give inf and nan; a
# warning about them could end the loop that is being recorded.
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")


_BLOCK = 2**16  # numbers in double precision, which a processor's cache holds


@quiet
def norms(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the norms (n,) of vectors (n, n_parameters), summed up in double precision."""
    squares = np.einsum("ij,ij->i", vectors, vectors.conj(), dtype=_double(vectors))
    return np.asarray(np.sqrt(squares.real))


@quiet
def weighted_sum(weights: NDArray[np.float64], vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of vectors times weights in double precision, leaving out the weights 0."""
    used = weights != 0
    if not used.all():
        weights, vectors = weights[used], vectors[used]
    return np.asarray(np.einsum("i,ij->j", weights, vectors, dtype=_double(vectors)))


def as_means(values: NDArray[Any], divisor: NDArray[np.float64] | None) -> NDArray[Any]:
    """Return values of objectives (n,) divided by what makes means of those that are sums."""
    return values if divisor is None else values / np.where(np.isnan(divisor), 1.0, divisor)


@quiet
def weighted_means(
    values: NDArray[np.float64], weights: NDArray[np.float64], edges: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the weighted means (n, ...) of values (T, ...) from each of n + 1 edges to the next.

    A value with the weight 0 counts for nothing, and may be nan: that of a batch whose targets
    are all ignored, say.
    """
    if len(edges) == 1:
        return np.zeros((0, *values.shape[1:]))
    parts = np.where(weights == 0, 0.0, values * weights), weights
    sums, totals = (np.add.reduceat(part[: edges[-1]], edges[:-1], axis=0) for part in parts)
    return np.asarray(sums / totals)


def weighted_sums(
    weights: NDArray[np.float64], vectors: NDArray[Any], edges: NDArray[np.intp]
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield the `weighted_sum` of the vectors from each edge to the next, some epochs at a time.

    Short epochs are summed up together, in a block of memory of constant size.
    """
    n_rows = _BLOCK // max(vectors.shape[1], 1)
    first, n_epochs = 0, len(edges) - 1
    while first < n_epochs:
        within = np.searchsorted(edges, edges[first] + n_rows, side="right") - 1
        end = max(int(within), first + 1)
        rows = slice(edges[first], edges[end])
        if end == first + 1:
            yield slice(first, end), weighted_sum(weights[rows], vectors[rows])[None]
        else:
            products = np.multiply(weights[rows, None], vectors[rows], dtype=_double(vectors))
            products[weights[rows] == 0] = 0  # where a vector may be nan
            sums = np.add.reduceat(products, edges[first:end] - edges[first], axis=0)
            yield slice(first, end), sums
        first = end


def _double(vectors: NDArray[Any]) -> Any:
    return np.result_type(vectors.dtype, np.float64)


def quotient(numerator: float, denominator: float) -> float:
    """Return a quotient as arrays have it: inf or nan where the denominator is zero."""
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))


Value: TypeAlias = float | Tensor  # a tensor where the value is left on its device
