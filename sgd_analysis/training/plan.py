"""What a run is to do, or many runs at once, whichever way their steps are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sgd_analysis._validation import finite_vector, integer_between, kind_of, positive_number
from sgd_analysis._weights import trainable
from sgd_analysis.orders import Order, checked_epochs, known_order, without_the_rest
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.training.optimizers import Optimizer, check_optimizer

StepSize: TypeAlias = float | Callable[[int], float]


@dataclass(frozen=True)
class Plan:
    """The settings of a run, checked.

    Args:
        problem: what is minimised.
        optimizer: what makes the updates.
        step_size: a number, or a function of the step.
        max_epochs: the number of epochs after which the run ends in any case.
        batch_size: B, or None for one step an epoch.
        order: the order in which samples are visited.
        drop_last: whether to leave out a last batch smaller than B.
        start: (n_parameters,) the weights to start from.
        in_closed_form: whether gradients are those of the formula for least squares.
    """

    problem: FiniteSum
    optimizer: Optimizer
    step_size: StepSize
    max_epochs: int
    batch_size: int | None
    order: Order
    drop_last: bool
    start: NDArray[np.floating]
    in_closed_form: bool

    @property
    def samples_a_step(self) -> int:
        """B, or all samples."""
        return self.batch_size or self.problem.n_samples

    def visits(self, batch_size: int) -> Iterator[Tensor]:
        """Yield each epoch's sample indices, without those of a last batch that is dropped.

        Raises:
            ValueError: if the order yields anything but indices of samples, or ends.
        """
        generator = torch.default_generator
        for indices in checked_epochs(self.order, self.problem.n_samples, batch_size, generator):
            yield without_the_rest(indices, batch_size) if self.drop_last else indices

    def step_size_at(self, step: int) -> float:
        """Return η of a step.

        Raises:
            TypeError: if the function returns no number.
            ValueError: if it is not positive and finite.
        """
        if not callable(self.step_size):
            return self.step_size
        return positive_number("step_size", self.step_size(step))

    def step_sizes(self, first: int, n_steps: int) -> NDArray[np.float64]:
        """Return η of some steps that follow each other."""
        if not callable(self.step_size):
            return np.full(n_steps, self.step_size)
        return np.array([self.step_size_at(first + k) for k in range(n_steps)])


def checked_plan(
    problem: FiniteSum,
    optimizer: Optimizer,
    *,
    step_size: StepSize,
    max_epochs: int,
    batch_size: int | None,
    order: str | Order,
    drop_last: bool,
    start: ArrayLike | None,
    gradient: str,
    elementwise: bool = False,
) -> Plan:
    """Return a plan of these settings, or raise if one is wrong.

    Raises:
        TypeError: if a setting is of the wrong kind.
        ValueError: if it is out of range, no order or optimizer has that name, or the optimizer
            is to be elementwise and is not.
    """
    if not isinstance(problem, FiniteSum):
        raise TypeError(
            f"problem must be a FiniteSum or a LeastSquares, got {kind_of(problem)}: "
            "FiniteSum.from_loader makes one from a model and a DataLoader"
        )
    if not isinstance(drop_last, bool):
        raise TypeError(f"drop_last must be True or False, got {drop_last!r}")
    if batch_size is not None:
        batch_size = integer_between(
            "batch_size", batch_size, 1, problem.n_samples, meaning="the number of samples"
        )
    check_optimizer(optimizer, elementwise=elementwise)
    n_parameters = problem.n_parameters
    return Plan(
        problem=problem,
        optimizer=optimizer,
        step_size=step_size if callable(step_size) else positive_number("step_size", step_size),
        max_epochs=integer_between("max_epochs", max_epochs, 1),
        batch_size=batch_size,
        order=known_order(order),
        drop_last=drop_last,
        start=problem.start if start is None else finite_vector("start", start, n_parameters),
        in_closed_form=_in_closed_form(problem, gradient),
    )


def _in_closed_form(problem: FiniteSum, gradient: object) -> bool:
    if gradient not in ("autograd", "closed form"):
        raise ValueError(f'gradient must be "autograd" or "closed form", got {gradient!r}')
    if gradient == "autograd":
        return False
    if not isinstance(problem, LeastSquares):
        raise ValueError(
            'gradient="closed form" needs a LeastSquares, whose gradient has a formula, got a '
            f'{kind_of(problem)}: use gradient="autograd"'
        )
    dtype = trainable(problem.model)[0].dtype
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f'gradient="closed form" needs weights in float32 or float64, got {dtype}')
    return True
