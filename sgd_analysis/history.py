"""What was recorded along a run: one row a step, as arrays."""

import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_COLUMNS = {"loss": np.float64, "n_samples": np.int64, "epoch": np.int64, "step_size": np.float64}


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """The losses a training loop saw, one row a step, each at the weights **before** its update.

    `history[e]` is the history of epoch e alone (epochs count from 0; -1 is the last one). An
    epoch that was begun and not finished is `history[-1]` and is not counted by `n_epochs`.

    Args:
        loss: (n_steps,) each batch's loss, in loss units.
        n_samples: (n_steps,) each batch's number of samples.
        epoch: (n_steps,) the epoch each step belongs to, not decreasing.
        step_size: (n_steps, n_groups) the step size used, one column a parameter group.
        n_epochs: the number of finished epochs.

    Raises:
        ValueError: if the columns differ in length, if epochs are left out or go backwards, or if
            n_epochs is not the number of epochs begun, or one less.
    """

    loss: NDArray[np.float64]
    n_samples: NDArray[np.int64]
    epoch: NDArray[np.int64]
    step_size: NDArray[np.float64]
    n_epochs: int

    def __post_init__(self) -> None:
        for name, dtype in _COLUMNS.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        shapes = [getattr(self, name).shape for name in _COLUMNS]
        if [len(shape) for shape in shapes] != [1, 1, 1, 2] or len({s[0] for s in shapes}) > 1:
            raise ValueError(
                "loss, n_samples, epoch (n_steps,) and step_size (n_steps, n_groups) must have one "
                f"row a step each, got shapes {shapes}"
            )
        changes = self.epoch[1:] - self.epoch[:-1]
        if changes.size and (changes.min() < 0 or changes.max() > 1):
            raise ValueError(f"epoch must stay or grow by one from step to step, got {self.epoch}")
        if self.n_epochs not in {self._begun, max(self._begun - 1, 0)}:
            raise ValueError(
                f"n_epochs must be {self._begun}, the number of epochs begun, or one less if the "
                f"last was not finished, got {self.n_epochs}"
            )

    def __repr__(self) -> str:
        return f"History({self.n_steps} steps, {self.n_epochs} finished epochs)"

    @property
    def n_steps(self) -> int:
        """The number of steps recorded."""
        return len(self.loss)

    def __getitem__(self, epoch: int) -> "History":
        """Return the history of one epoch.

        Args:
            epoch: its position, from 0; negative positions count from the end.

        Returns:
            A History of that epoch's steps, without copying them.

        Raises:
            TypeError: if the position is not an integer.
            IndexError: if that epoch was not recorded.
        """
        if isinstance(epoch, bool) or not hasattr(epoch, "__index__"):
            raise TypeError(f"an epoch is selected by its position, an integer, got {epoch!r}")
        position = operator.index(epoch)
        if not -self._begun <= position < self._begun:
            raise IndexError(
                f"epoch {position} was not recorded: the history holds {self._begun} epochs"
            )
        position %= self._begun
        edges = np.searchsorted(self.epoch, self.epoch[0] + position + np.arange(2))
        steps = slice(*edges)
        return History(
            loss=self.loss[steps],
            n_samples=self.n_samples[steps],
            epoch=self.epoch[steps],
            step_size=self.step_size[steps],
            n_epochs=int(position < self.n_epochs),
        )

    @property
    def running_loss(self) -> NDArray[np.float64]:
        """(n_epochs,) the size-weighted mean of each finished epoch's batch losses, w moving."""
        weighted, n_samples = self._sums_by_epoch(self.loss * self.n_samples, self.n_samples)
        return weighted / n_samples

    @property
    def mean_batch_loss(self) -> NDArray[np.float64]:
        """(n_epochs,) the unweighted mean of each finished epoch's batch losses, w moving."""
        losses, n_batches = self._sums_by_epoch(self.loss, np.ones(self.n_steps))
        return losses / n_batches

    @property
    def _begun(self) -> int:
        return int(self.epoch[-1] - self.epoch[0]) + 1 if self.n_steps else 0

    def _sums_by_epoch(self, *columns: NDArray[np.number]) -> list[NDArray[np.float64]]:
        if self.n_epochs == 0:
            return [np.zeros(0) for _ in columns]
        edges = np.searchsorted(self.epoch, self.epoch[0] + np.arange(self.n_epochs + 1))
        return [np.add.reduceat(c[: edges[-1]], edges[:-1], dtype=np.float64) for c in columns]
