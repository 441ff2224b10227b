"""Numbers on their way from torch to numpy, and what all rooms compute with them."""

from __future__ import annotations

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


@quiet
def norms(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the norms (n,) of vectors (n, n_parameters), summed up in double precision."""
    squares = np.einsum("ij,ij->i", vectors, vectors.conj(), dtype=double(vectors))
    return np.asarray(np.sqrt(squares.real))


@quiet
def weighted_means(
    values: NDArray[np.float64], weights: NDArray[np.float64], edges: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the weighted means (n, ...) of values (T, ...) from each of n + 1 edges to the next.

    A value with the weight 0 counts for nothing, and may be nan: that of a batch whose targets
    are all ignored, say.
    """
    weighted = np.where(weights == 0, 0.0, values * weights)
    return np.asarray(sums(weighted, edges) / sums(weights, edges))


def sums(values: NDArray[np.float64], edges: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the sums (n, ...) of values (T, ...) from each of n + 1 edges to the next."""
    if len(edges) == 1:
        return np.zeros((0, *values.shape[1:]))
    return np.asarray(np.add.reduceat(values[: edges[-1]], edges[:-1], axis=0))


def double(vectors: NDArray[Any]) -> Any:
    """Return the type to sum up vectors in: double precision, real or complex."""
    return np.result_type(vectors.dtype, np.float64)


def quotient(numerator: float, denominator: float) -> float:
    """Return a quotient as arrays have it: inf or nan where the denominator is zero."""
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))


Value: TypeAlias = float | Tensor  # a tensor where the value is left on its device
