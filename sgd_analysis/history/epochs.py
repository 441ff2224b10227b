"""Which rows of a run belong to which epoch."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Epochs:
    """The epochs of a run, or of a part of one.

    Args:
        of_steps: (n_steps,) the position of the epoch that each step belongs to.
        n_finished: how many of them are finished.
    """

    of_steps: NDArray[np.int64]
    n_finished: int

    def check(self) -> None:
        """Raise unless the epochs follow each other, and at most the last is unfinished.

        Raises:
            ValueError: if they do not.
        """
        changes = self.of_steps[1:] - self.of_steps[:-1]
        if changes.size and (changes.min() < 0 or changes.max() > 1):
            raise ValueError(
                f"epoch must stay or grow by one from step to step, got {self.of_steps}"
            )
        if self.n_finished not in {self.n_begun, max(self.n_begun - 1, 0)}:
            raise ValueError(
                f"n_epochs must be {self.n_begun}, the number of epochs begun, or one less if the "
                f"last was not finished, got {self.n_finished}"
            )

    @property
    def n_begun(self) -> int:
        """How many there are, a last one that is not finished included."""
        return int(self.of_steps[-1] - self.of_steps[0]) + 1 if len(self.of_steps) else 0

    @property
    def edges(self) -> NDArray[np.intp]:
        """(n_finished + 1,) where the steps of the finished epochs begin and end."""
        return self._edges(np.arange(self.n_finished + 1))

    def steps(self, first: int, end: int) -> slice:
        """Return the steps of the epochs from one position to before another."""
        return slice(*self._edges(np.array([first, end])).tolist())

    def selected(self, epochs: int | slice) -> tuple[int, int]:
        """Return the first position, and that after the last, of one epoch or several.

        Raises:
            TypeError: if it is neither an integer nor a slice.
            IndexError: if there is no such epoch.
            ValueError: if a slice does not go forward one epoch at a time.
        """
        if isinstance(epochs, slice):
            first, end, stride = epochs.indices(self.n_begun)
            if stride != 1:
                raise ValueError(f"a slice of epochs must go forward one by one, got {epochs}")
            return first, max(first, end)
        if isinstance(epochs, bool) or not hasattr(epochs, "__index__"):
            raise TypeError(
                "an epoch is selected by its position, an integer, or several by a slice, got "
                f"{epochs!r}"
            )
        position = operator.index(epochs)
        if not -self.n_begun <= position < self.n_begun:
            raise IndexError(
                f"epoch {position} was not recorded: the history holds {self.n_begun} epochs"
            )
        return position % self.n_begun, position % self.n_begun + 1

    def _edges(self, positions: NDArray[np.intp]) -> NDArray[np.intp]:
        if not len(self.of_steps):
            return np.zeros_like(positions)
        return np.asarray(np.searchsorted(self.of_steps, self.of_steps[0] + positions))
