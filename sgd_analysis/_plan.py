"""What a training run is to do, and when it ends, whichever way its steps are computed."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._validation import integer_between, positive_number
from sgd_analysis._vectors import norms, quiet
from sgd_analysis.orders import Order, checked_epochs, known_order, without_the_rest
from sgd_analysis.problems import FiniteSum, LeastSquares, trainable
from sgd_analysis.stopping import StoppingRule, diverged, epochs_reached

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
    watch: "Watch"

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
            f"problem must be a FiniteSum or a LeastSquares, got {type(problem).__name__}: "
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


def check_method(problem: FiniteSum, optimizer: object, gradient: object) -> None:
    """Raise unless `train` knows the optimizer, and the gradient can be had that way.

    Raises:
        TypeError: if the optimizer is of the wrong kind.
        ValueError: if the optimizer's name is not known, or the gradient has no closed form.
    """
    expected = 'optimizer must be "sgd", a class from torch.optim or a functools.partial of one'
    if isinstance(optimizer, str):
        if optimizer != "sgd":
            raise ValueError(f"{expected}, got {optimizer!r}")
    else:
        cls = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
        if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
            raise TypeError(
                f"{expected} (train makes its own copy of the model), got {optimizer!r}"
            )
        if issubclass(cls, torch.optim.LBFGS):
            raise TypeError(
                "optimizer must make one update from one gradient, got LBFGS, which evaluates the "
                "loss several times a step"
            )
    if gradient not in ("autograd", "closed form"):
        raise ValueError(f'gradient must be "autograd" or "closed form", got {gradient!r}')
    if gradient == "closed form":
        if not isinstance(problem, LeastSquares):
            raise ValueError(
                'gradient="closed form" needs a LeastSquares, whose gradient has a formula, got a '
                f'{type(problem).__name__}: use gradient="autograd"'
            )
        dtype = trainable(problem.model)[0].dtype
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f'gradient="closed form" needs weights in float32 or float64, got {dtype}'
            )


class Watch:
    """How the quantities of a stopping rule went so far; it asks the rule after each epoch.

    Args:
        rule: the rule, or several joined.
        problem: what is minimised.
    """

    def __init__(self, rule: StoppingRule, problem: FiniteSum) -> None:
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
        known: dict[str, Callable[[], NDArray[np.float64]]] = {
            "running_loss": lambda: self._running_loss(losses, sizes, weights),
            "mean_batch_loss": lambda: losses.mean(axis=1),
            "last_batch_loss": lambda: losses[:, -1],
            **others,
        }
        if isinstance(self._problem, LeastSquares):
            problem = self._problem
            known["empirical_risk"] = lambda: problem.empirical_risk(weights)
            known["full_gradient_norm"] = lambda: norms(problem.full_gradient(weights))
        before, after = self.n_epochs, self.n_epochs + len(losses)
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

    def _running_loss(
        self,
        losses: NDArray[np.float64],
        sizes: NDArray[Any],
        weights: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        # Weights that are not finite make the next loss so: the run has diverged already.
        finite = np.isfinite(weights).all(axis=1)
        return np.where(finite, losses @ sizes / sizes.sum(), np.nan)

    def _until(self, n_epochs: int) -> dict[str, NDArray[np.float64]]:
        return {name: values[:n_epochs] for name, values in self._values.items()}


def load_weights(parameters: list[nn.Parameter], weights: NDArray[np.floating]) -> None:
    """Write a flat vector of weights into parameters, in their dtype."""
    parts = torch.from_numpy(weights).split([parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))
