"""Which samples each step has seen, told by a number for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._arrays import read_only


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """The fingerprints of the samples that the steps of a run have seen, in their order.

    The same sample has the same one whenever it comes, and another one in practice never has.

    Args:
        values: (n_seen,) a number of 64 bits for each sample seen.
        ends: (n_kept,) how many samples each of the first n_kept steps, and all before it, have
            seen.

    Raises:
        ValueError: if there are other than `ends[-1]` values, or the ends decrease.

    Example:
        >>> from sgd_analysis.history.fingerprints import Fingerprints
        >>> seen = Fingerprints([11, 12, 13, 13], [2, 4])
        >>> seen.part(slice(1, 2)).values
        array([13, 13], dtype=uint64)
    """

    values: NDArray[np.uint64]
    ends: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, dtype in (("values", np.uint64), ("ends", np.int64)):
            array: ArrayLike = getattr(self, name)
            object.__setattr__(self, name, read_only(np.asarray(array, dtype)))
        n_seen = self.ends[-1] if self.ends.size else 0
        shapes = self.values.shape, self.ends.shape
        if [*map(len, shapes)] != [1, 1] or len(self.values) != n_seen:
            raise ValueError(
                "there must be as many fingerprints (n_seen,) as the last of the ends (n_kept,) "
                f"says, {n_seen}, got shapes {shapes}"
            )
        if (np.diff(self.ends, prepend=0) < 0).any():
            raise ValueError(f"the ends must not decrease, got {self.ends}")

    def part(self, steps: slice) -> Fingerprints:
        """Return those of some steps that follow each other."""
        first, end, _ = steps.indices(len(self.ends))
        begin = self.ends[first - 1] if first and self.ends.size else 0
        ends = self.ends[first : max(first, end)]
        return Fingerprints(self.values[begin : ends[-1] if ends.size else begin], ends - begin)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the name and value of both arrays."""
        yield from vars(self).items()
