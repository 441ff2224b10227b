"""What was recorded along a run: one row a step, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
        ValueError: if the columns differ in length.
    """

    loss: NDArray[np.float64]
    n_samples: NDArray[np.int64]
    epoch: NDArray[np.int64]
    step_size: NDArray[np.float64]
    n_epochs: int

    def __post_init__(self) -> None:
        lengths = [len(self.loss), len(self.n_samples), len(self.epoch), len(self.step_size)]
        if len(set(lengths)) > 1:
            raise ValueError(
                "loss, n_samples, epoch and step_size must have one row a step each, got "
                f"{lengths} rows"
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
            IndexError: if that epoch was not recorded.
        """
        first, begun = (
            (self.epoch[0], self.epoch[-1] - self.epoch[0] + 1) if self.n_steps else (0, 0)
        )
        if not -begun <= epoch < begun:
            raise IndexError(f"epoch {epoch} was not recorded: the history holds {begun} epochs")
        position = epoch % begun
        low, high = np.searchsorted(self.epoch, [first + position, first + position + 1])
        steps = slice(low, high)
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
        return self._sum_by_epoch(self.loss * self.n_samples) / self._sum_by_epoch(self.n_samples)

    @property
    def mean_batch_loss(self) -> NDArray[np.float64]:
        """(n_epochs,) the unweighted mean of each finished epoch's batch losses, w moving."""
        return self._sum_by_epoch(self.loss) / self._sum_by_epoch(np.ones(self.n_steps))

    def _sum_by_epoch(self, values: NDArray[np.number]) -> NDArray[np.float64]:
        if self.n_epochs == 0:
            return np.zeros(0)
        edges = np.searchsorted(self.epoch, self.epoch[0] + np.arange(self.n_epochs + 1))
        finished = np.asarray(values[: edges[-1]], dtype=np.float64)
        return np.add.reduceat(finished, edges[:-1])
