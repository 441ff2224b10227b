"""What a training run is to do, and when it ends, whichever way its steps are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._validation import integer_between, kind_of, positive_number
from sgd_analysis.orders import Order, checked_epochs, known_order, without_the_rest
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.stopping import StoppingRule, diverged, epochs_reached
from sgd_analysis.training.watch import Watch

StepSize: TypeAlias = float | Callable[[int], float]


@dataclass(frozen=True)
class Plan:
    """The settings of a run, checked.

    Args:
        problem: what is minimised.
        batch_size: B, or None for one step an epoch.
        order: the order in which samples are visited.
        drop_last: whether to leave out a last batch smaller than B.
        step_size: a number, or a function of the step.
        watch: when to stop.
    """

    problem: FiniteSum
    batch_size: int | None
    order: Order
    drop_last: bool
    step_size: StepSize
    watch: Watch

    def visits(self, batch_size: int) -> Iterator[Tensor]:
        """Yield each epoch's sample indices, without those of a last batch that is dropped.

        Raises:
            ValueError: if the order yields anything but indices of samples, or ends.
        """
        generator = torch.default_generator
        for indices in checked_epochs(self.order, self.problem.n_samples, batch_size, generator):
            yield without_the_rest(indices, batch_size) if self.drop_last else indices

    def step_sizes(self, first: int, n_steps: int) -> NDArray[np.float64]:
        """Return η of some steps that follow each other.

        Raises:
            TypeError: if the function returns no number.
            ValueError: if it is not positive and finite.
        """
        if not callable(self.step_size):
            return np.full(n_steps, self.step_size)
        steps = range(first, first + n_steps)
        return np.array([positive_number("step_size", self.step_size(k)) for k in steps])


def checked_plan(
    problem: FiniteSum,
    step_size: StepSize,
    max_epochs: int,
    batch_size: int | None,
    order: str | Order,
    *,
    drop_last: bool,
    stop: StoppingRule | None,
) -> Plan:
    """Return a plan of these settings, or raise if one is wrong.

    Raises:
        TypeError: if a setting is of the wrong kind.
        ValueError: if it is out of range, or no order has that name.
    """
    if not isinstance(problem, FiniteSum):
        raise TypeError(
            f"problem must be a FiniteSum or a LeastSquares, got {kind_of(problem)}: "
            "FiniteSum.from_loader makes one from a model and a DataLoader"
        )
    if not isinstance(drop_last, bool):
        raise TypeError(f"drop_last must be True or False, got {drop_last!r}")
    if stop is not None and not isinstance(stop, StoppingRule):
        raise TypeError(
            f"stop must be a stopping rule such as running_loss_below(0.1), got {stop!r}"
        )
    if batch_size is not None:
        batch_size = integer_between(
            "batch_size", batch_size, 1, problem.n_samples, meaning="the number of samples"
        )
    if not callable(step_size):
        step_size = positive_number("step_size", step_size)
    last = epochs_reached(integer_between("max_epochs", max_epochs, 1))
    watch = Watch(diverged() | (last if stop is None else stop | last), problem)
    return Plan(problem, batch_size, known_order(order), drop_last, step_size, watch)
