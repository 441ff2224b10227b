"""The path gradient: the size-weighted mean of an epoch's gradients, each at its own weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import double, norms, quiet

_BLOCK = 2**16  # numbers in double precision, which a processor's cache holds


@quiet
def weighted_sum(weights: NDArray[np.float64], vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of vectors times weights in double precision, leaving out the weights 0."""
    used = weights != 0
    if not used.all():
        weights, vectors = weights[used], vectors[used]
    return np.asarray(np.einsum("i,ij->j", weights, vectors, dtype=double(vectors)))


def as_means(values: NDArray[Any], divisor: NDArray[np.float64] | None) -> NDArray[Any]:
    """Return values of objectives (n,) divided by what makes means of those that are sums."""
    return values if divisor is None else values / np.where(np.isnan(divisor), 1.0, divisor)


def _weighted_sums(
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
            products = np.multiply(weights[rows, None], vectors[rows], dtype=double(vectors))
            products[weights[rows] == 0] = 0  # where a vector may be nan
            sums = np.add.reduceat(products, edges[first:end] - edges[first], axis=0)
            yield slice(first, end), sums
        first = end


def path_gradients(
    vectors: NDArray[Any],
    denominator: NDArray[np.float64],
    edges: NDArray[np.intp],
    divisor: NDArray[np.float64] | None = None,
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield the path gradients of epochs that follow each other, some at a time.

    Args:
        vectors: (n, n_parameters) the gradients of their steps, or of more.
        denominator: (n_steps,) what each batch's mean divides by; 0 where a step does not count.
        edges: (n_epochs + 1,) where the epochs begin and end.
        divisor: (n_steps,) of objectives that are sums, what makes means of them.

    Yields:
        Which epochs, and (k, n_parameters) their path gradients.
    """
    weights = np.where(denominator == 0, 0.0, as_means(denominator, divisor))
    for epochs, total in _weighted_sums(weights, vectors, edges):
        steps = slice(edges[epochs.start], edges[epochs.stop])
        weight = np.add.reduceat(denominator[steps], edges[epochs] - steps.start)
        yield epochs, total / weight[:, None]


@quiet
def path_gradient_norms(
    vectors: NDArray[Any],
    denominator: NDArray[np.float64],
    edges: NDArray[np.intp],
    divisor: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the norms (n_epochs,) of the `path_gradients` of epochs that follow each other."""
    paths = path_gradients(vectors, denominator, edges, divisor)
    return np.concatenate([np.zeros(0), *(norms(path) for _, path in paths)])
