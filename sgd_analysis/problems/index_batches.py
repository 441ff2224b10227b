"""Batches that are given by the indices of their samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sgd_analysis._validation import sample_indices


def index_batches(
    batches: Iterable[ArrayLike | Tensor], n_samples: int
) -> list[NDArray[np.integer]]:
    """Return batches as index arrays, or raise unless each names some of the samples.

    Raises:
        ValueError: if one is empty or names a sample that does not exist.
    """
    indices = []
    for position, batch in enumerate(batches):
        vector = sample_indices(batch)
        if vector is None or not len(vector):
            raise ValueError(
                f"batch {position} must be a non-empty vector of sample indices, got {batch!r}"
            )
        index = vector.numpy()
        if index.min() < 0 or index.max() >= n_samples:
            raise ValueError(
                f"batch {position} must hold indices between 0 and {n_samples - 1}, got "
                f"values between {index.min()} and {index.max()}"
            )
        indices.append(index)
    return indices
