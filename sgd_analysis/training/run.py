"""A finished run, and the average of where it went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from sgd_analysis._validation import float_array, integer_between
from sgd_analysis._weights import flat_weights, trainable
from sgd_analysis.history.history import History


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A finished training run: why it ended, where, and everything recorded on the way.

    Args:
        converged: whether a rule on what was wanted ended the run.
        reason: the rule that held, "max_epochs", or "diverged" (a loss or a weight that is not
            finite).
        checkpoints: (epochs + 1, n_parameters) the weights at the start and after each epoch, in
            the parameters' dtype.
        history: what a `Recorder` saw of the run: each step's loss and gradient, both before its
            own update, its batch's size and its step size.
        model: a trained copy of the problem's model.

    Example:
        >>> from sgd_analysis import quadratic_fit, running_loss_below, train
        >>> run = train(quadratic_fit(), step_size=2e-4, max_epochs=100, batch_size=100,
        ...             stop=running_loss_below(15.0))
        >>> run
        Run('running_loss_below(15)' after 5 epochs, 100 steps)
        >>> run.converged, run.checkpoints.shape
        (True, (6, 3))
    """

    converged: bool
    reason: str
    checkpoints: NDArray[np.floating]
    history: History
    model: nn.Module

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return self.history.n_epochs

    @property
    def steps(self) -> int:
        """The number of updates made; a loss that is not finite leads to none."""
        return int(np.isfinite(self.history.loss).sum())

    @property
    def weights(self) -> NDArray[np.floating]:
        """(n_parameters,) the weights at the end, as one vector."""
        return flat_weights(trainable(self.model))

    def __repr__(self) -> str:
        return f"Run({self.reason!r} after {self.epochs} epochs, {self.steps} steps)"


def iterate_average(checkpoints: ArrayLike, *, first: int = 0) -> NDArray[np.float64]:
    r"""Return the running means of a run's checkpoints (Polyak–Ruppert averaging).

    .. math:: \bar w_e = \frac{1}{e - e_0 + 1} \sum_{j = e_0}^{e} w_j

    With noisy labels, random batches and a constant step size the iterates do not come to rest:
    they fluctuate, on least squares with independent batches about the minimiser itself, and
    their average tends to it. Here the average is over the ends of epochs, which a `Run` keeps,
    and not over all steps; leaving out the first epochs, with the run still on its way, makes it
    good sooner.

    Args:
        checkpoints: (n, n_parameters) weights, for instance `run.checkpoints`.
        first: the position e₀ of the first checkpoint that counts; 0 is the start of the run.

    Returns:
        (n - first, n_parameters) the mean of the checkpoints from `first` up to each one;
        `problem.empirical_risk(...)` of it is the risk of the average, epoch by epoch.

    Raises:
        TypeError: if checkpoints does not hold real numbers, or first is not an integer.
        ValueError: if checkpoints is not of that shape, or first not a position in it.

    Example:
        >>> from sgd_analysis import iterate_average
        >>> iterate_average([[4.0], [2.0], [0.0]], first=1)
        array([[2.],
               [1.]])

    References:
        Polyak, Juditsky. Acceleration of Stochastic Approximation by Averaging. SIAM J. Control
        Optim. 30(4):838–855, 1992.
    """
    table = float_array("checkpoints", checkpoints)
    if table.ndim != 2 or len(table) == 0:
        raise ValueError(
            "checkpoints must be of shape (n, n_parameters), one row of weights an epoch, got "
            f"shape {table.shape}"
        )
    first = integer_between("first", first, 0, len(table) - 1, meaning="the last checkpoint")
    counts = np.arange(1, len(table) - first + 1)
    return np.asarray(table[first:].cumsum(axis=0) / counts[:, None])
