"""When a run ends: the quantities of its stopping rule, and what it says after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import norms, quiet, weighted_means
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.stopping import StoppingRule, diverged, epochs_reached


class Watch:
    """How the quantities of a stopping rule went so far; it asks the rule after each epoch.

    Args:
        stop: a rule, or several joined; a run that diverges, or has made all its epochs, ends too.
        problem: what is minimised.
        max_epochs: the number of epochs after which a run ends in any case.

    Raises:
        TypeError: if stop is no stopping rule.
    """

    def __init__(self, stop: StoppingRule | None, problem: FiniteSum, max_epochs: int) -> None:
        if stop is not None and not isinstance(stop, StoppingRule):
            raise TypeError(
                f"stop must be a stopping rule such as running_loss_below(0.1), got {stop!r}"
            )
        last = epochs_reached(max_epochs)
        rule = diverged() | (last if stop is None else stop | last)
        self.quantities = rule.quantities
        self.n_epochs = 0
        self._rule, self._problem = rule, problem
        self._values = {name: np.empty(256) for name in self.quantities}

    @property
    def running_loss(self) -> float:
        """The last epoch's."""
        return float(self._values["running_loss"][self.n_epochs - 1])

    @quiet
    def after(
        self,
        losses: NDArray[np.float64],
        sizes: NDArray[Any],
        weights: NDArray[np.floating],
        **others: Callable[[], NDArray[np.float64]],
    ) -> StoppingRule | None:
        """Take some more epochs, but none past one after which the rule says to stop.

        Only what the rule looks at is computed: some quantities are dear.

        Args:
            losses: (n_epochs, n_batches) the batch losses.
            sizes: (n_batches,) the sizes of the batches.
            weights: (n_epochs, n_parameters) the weights at the epochs' ends.
            others: functions that give the quantities which these do not tell.

        Returns:
            The rule that holds after the last epoch taken, or None.
        """
        n_epochs, n_batches = losses.shape
        edges = np.arange(n_epochs + 1) * n_batches
        # Weights that are not finite make the next loss so: the run has diverged already.
        finite = np.isfinite(weights).all(axis=1)

        def mean_loss(weight: NDArray[Any]) -> NDArray[np.float64]:
            return weighted_means(losses.ravel(), np.resize(weight, losses.size), edges)

        known: dict[str, Callable[[], NDArray[np.float64]]] = {
            "running_loss": lambda: np.where(finite, mean_loss(sizes), np.nan),
            "mean_batch_loss": lambda: mean_loss(np.ones(1)),
            "last_batch_loss": lambda: losses[:, -1],
            **others,
        }
        if isinstance(self._problem, LeastSquares):
            problem = self._problem
            known["empirical_risk"] = lambda: problem.empirical_risk(weights)
            known["full_gradient_norm"] = lambda: norms(problem.full_gradient(weights))
        before, after = self.n_epochs, self.n_epochs + n_epochs
        for name, values in self._values.items():
            if after > len(values):
                values = self._values[name] = np.resize(values, 2 * after)
            values[before:after] = known[name]()
        for position in np.flatnonzero(self._rule.stops(self._until(after))[before:]):
            self.n_epochs = before + int(position) + 1
            if held := self._rule.verdict(self._until(self.n_epochs)):
                return held
        self.n_epochs = after
        return None

    def _until(self, n_epochs: int) -> dict[str, NDArray[np.float64]]:
        return {name: values[:n_epochs] for name, values in self._values.items()}
