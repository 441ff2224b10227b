"""One vector a step: the first ones whole, of the rest the norms and the sums of an epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Losses and gradients that overflow, and epochs without a step that counts, give inf and nan; a
# warning about them could end the loop that is being recorded.
quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")

_BLOCK = 2**16  # numbers in double precision, which a processor's cache holds


@dataclass(frozen=True, eq=False)
class Vectors:
    """The gradients of a run: those of the first n_kept steps whole, of the rest the norms.

    Args:
        kept: (n_kept, n_parameters) the vectors of the first n_kept steps.
        norm: (n_steps,) the Euclidean norm of every step's vector.
        path_norm: (n_epochs,) for each finished epoch that was not kept whole, the norm of its
            path gradient, summed up along the epoch; for the others any value.
        last_path: (n_parameters,) the path gradient of the last epoch, finished or not, if that
            epoch was not kept whole.

    Raises:
        ValueError: if the shapes are others.
    """

    kept: NDArray[Any]
    norm: NDArray[np.float64]
    path_norm: NDArray[np.float64] | None = None
    last_path: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.kept.ndim != 2 or self.norm.ndim != 1 or len(self.kept) > len(self.norm):
            raise ValueError(
                "the vectors kept (n_kept, n_parameters) must be those of the first steps, and "
                f"the norms (n_steps,), got shapes {self.kept.shape} and {self.norm.shape}"
            )
        for name in ("path_norm", "last_path"):
            array = getattr(self, name)
            if array is not None and array.ndim != 1:
                raise ValueError(f"{name} must have one dimension, got the shape {array.shape}")
        for name, array in self.arrays():
            view = array.view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    def part(self, steps: slice, epochs: slice, *, is_last: bool) -> "Vectors":
        """Return the part that belongs to some steps, those of some epochs."""
        return Vectors(
            kept=self.kept[steps],
            norm=self.norm[steps],
            path_norm=None if self.path_norm is None else self.path_norm[epochs],
            last_path=self.last_path if is_last else None,
        )

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the name and value of each array there is."""
        yield from ((name, array) for name, array in vars(self).items() if array is not None)


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
