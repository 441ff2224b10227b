"""What is recorded of each step where it is asked for, `record(..., also=[...])`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import read_only

BY_PARAMETER = "norms_by_parameter"  # (n_kept, n) of the first steps, as far as they fit
BY_STEP = ("unclipped_norm", "update_norm")  # (n_steps,)
NAMES = (*BY_STEP, BY_PARAMETER)
SEEN = "fingerprints"  # of each sample, and so no array with a row a step
MAY_BE_ASKED_FOR = (*NAMES, SEEN)

Also: TypeAlias = Mapping[str, NDArray[np.float64]]


def checked(given: Mapping[str, Any], n_steps: int) -> dict[str, NDArray[np.float64]]:
    """Return arrays that fit a history of so many steps, not to be written to.

    Raises:
        ValueError: if one has another name or shape.
    """
    arrays = {name: read_only(np.asarray(a, dtype=np.float64)) for name, a in given.items()}
    for name, array in arrays.items():
        if name not in NAMES:
            raise ValueError(f"also must have no other names than {', '.join(NAMES)}, got {name!r}")
        fits = array.shape == (n_steps,)
        if name == BY_PARAMETER:
            fits = array.ndim == 2 and len(array) <= n_steps
        if not fits:
            raise ValueError(
                f"{name} must have one row a step, {n_steps} (if it is by parameter, of the first "
                f"steps), got shape {array.shape}"
            )
    return arrays


def not_recorded(name: str) -> ValueError:
    """Return the error for reading what was not asked for."""
    return ValueError(f'{name} was not recorded: record(..., also=["{name}"]) does so')


def slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Return where each parameter's entries are in a vector over all of them."""
    edges = np.cumsum([0, *sizes.values()]).tolist()
    return {name: slice(*edge) for name, edge in zip(sizes, pairwise(edges), strict=True)}


def columns(also: Also, n_steps: int, names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the columns (n_steps,) for a table by step; nan where norms were not kept."""
    yield from ((name, also[name]) for name in BY_STEP if name in also)
    if BY_PARAMETER in also:
        kept = also[BY_PARAMETER]
        whole = np.full((n_steps, kept.shape[1]), np.nan)
        whole[: len(kept)] = kept
        for name, column in zip(names, whole.T, strict=True):
            yield f"norm of {name}", column
