"""One vector a step: the first ones whole, of the rest the norms and the sums of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import read_only


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

    Example:
        >>> from sgd_analysis import quadratic_fit, train
        >>> history = train(quadratic_fit(), step_size=1e-5, max_epochs=3).history
        >>> history.gradients.kept.shape, history.gradients.norm.shape
        ((3, 3), (3,))
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
            object.__setattr__(self, name, read_only(array))

    def part(self, steps: slice, epochs: slice, *, is_last: bool) -> Vectors:
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
