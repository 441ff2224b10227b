"""One training loop for every variant."""

import copy
import functools
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sgd_analysis._validation import finite_vector, integer_between, positive_number
from sgd_analysis.history import History
from sgd_analysis.orders import Order, checked_epochs, known_order
from sgd_analysis.problems import FiniteSum, flat_weights, trainable
from sgd_analysis.stopping import StoppingRule

StepSize: TypeAlias = float | Callable[[int], float]
Optimizer: TypeAlias = str | Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A finished training run: why it ended, where, and everything recorded on the way.

    Args:
        converged: whether a stopping rule ended the run.
        reason: the rule that held, "max_epochs", or "diverged" (a loss or a weight that is not
            finite).
        checkpoints: (epochs + 1, n_parameters) the weights at the start and after each epoch, in
            the parameters' dtype.
        history: every batch's loss, before its own update.
        model: a trained copy of the problem's model.
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


def train(
    problem: FiniteSum,
    optimizer: Optimizer = "sgd",
    *,
    step_size: StepSize,
    max_epochs: int,
    batch_size: int | None = None,
    order: str | Order = "reshuffle",
    stop: StoppingRule | None = None,
    start: ArrayLike | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Run:
    r"""Minimise a finite sum by (mini-batch) gradient descent, recording every batch's loss.

    .. math:: w_{k+1} = w_k - \eta_k \nabla f_{b_k}(w_k)

    A batch's loss is computed at the weights **before** the update it leads to, and an epoch's
    stopping rule is asked after its last update. With one step an epoch, the first step k for
    which F(w_k) < ε therefore ends the run in epoch k + 1.

    Args:
        problem: what to minimise; its model is copied, never changed.
        optimizer: "sgd", the update written by hand, which equals `torch.optim.SGD` bit for bit;
            or a class from `torch.optim`, or a `functools.partial` of one.
        step_size: η > 0, or a function of the step (from 0) that returns it.
        max_epochs: the number of epochs after which the run ends in any case.
        batch_size: B, between 1 and n_samples; the last batch of an epoch holds what is left.
            None: all samples in their given order, one step an epoch.
        order: the order in which samples are visited: "reshuffle" (batch for batch what a
            `DataLoader(shuffle=True)` does after `torch.manual_seed(seed)`), "cyclic", or a
            function of your own with their signature.
        stop: a stopping rule, or several joined with `|`.
        start: (n_parameters,) the weights to start from; the model's own unless given.
        seed: of everything random in the run, an integer >= 0; the caller's random state is left
            as it was.
        progress: show a bar with the running loss (never when the variable CI is set).

    Returns:
        The finished `Run`. A step size past the stable limit does not raise: the run ends with
        reason "diverged" at the first loss or weight that is not finite, with all that was
        recorded so far, that loss in its last row.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if step_size is not positive and finite, batch_size is not between 1 and
            n_samples, max_epochs is below 1, an optimizer or order is not known by that name, an
            order does not yield indices of samples, start has the wrong shape or is not finite,
            or the criterion does not give one differentiable loss for predictions of the targets'
            shape. Whatever ends a run by an exception, an interrupt included, finds what was
            recorded in the exception's attribute `run`.

    Example:
        >>> from sgd_analysis import LeastSquares, running_loss_below
        >>> line = LeastSquares([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 3.0, 5.0])
        >>> train(line, step_size=0.2, max_epochs=500, stop=running_loss_below(1e-6))
        Run('running_loss_below(1e-06)' after 46 epochs, 46 steps)
    """
    _check_kinds(problem, optimizer, stop)
    max_epochs = min(integer_between("max_epochs", max_epochs, 1), sys.maxsize)
    seed = integer_between("seed", seed, 0, 2**63 - 1)
    if batch_size is not None:
        batch_size = integer_between(
            "batch_size", batch_size, 1, problem.n_samples, meaning="the number of samples"
        )
    visit = known_order(order)
    step_size_at = step_size if callable(step_size) else _constant(step_size)
    model = copy.deepcopy(problem.model)
    parameters = trainable(model)
    if start is not None:
        _load(parameters, finite_vector("start", start, problem.n_parameters))
    update = _update(optimizer, parameters)
    rows = _Rows()
    series: dict[str, list[float]] = {
        name: [] for name in ("running_loss", "mean_batch_loss", "last_batch_loss")
    }
    checkpoints = [flat_weights(parameters)]

    def run(reason: str, *, converged: bool = False) -> Run:
        return Run(converged, reason, np.stack(checkpoints), rows.history(), model)

    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
            _progress_bar(progress, max_epochs) as bar,
        ):
            torch.default_generator.manual_seed(seed)
            for batches in itertools.islice(_epochs(problem, batch_size, visit), max_epochs):
                for inputs, targets in batches:
                    eta = positive_number("step_size", step_size_at(rows.n_steps))
                    loss = _mean_loss(problem, model, inputs, targets)
                    rows.append(loss.item(), len(inputs), eta)
                    if not math.isfinite(rows.loss[-1]):
                        return run("diverged")
                    for parameter in parameters:
                        parameter.grad = None
                    loss.backward()
                    update(eta)
                checkpoints.append(flat_weights(parameters))
                epoch = rows.end_epoch()
                if not np.isfinite(checkpoints[-1]).all():
                    return run("diverged")
                if not bar.disable:
                    bar.set_postfix_str(f"running loss {epoch.running_loss[0]:.6g}", refresh=False)
                    bar.update()
                series["running_loss"].append(epoch.running_loss[0])
                series["mean_batch_loss"].append(epoch.mean_batch_loss[0])
                series["last_batch_loss"].append(epoch.loss[-1])
                rule = stop and stop.verdict({n: np.array(v) for n, v in series.items()})
                if rule is not None:
                    return run(rule.name, converged=True)
    except BaseException as error:
        error.run = run(type(error).__name__)  # type: ignore[attr-defined]
        error.add_note(f"What was recorded, {rows.n_steps} steps, is this exception's `run`.")
        raise
    return run("max_epochs")


class _Rows:
    """The rows recorded so far, in lists that grow; `history` gives them as arrays."""

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.n_samples: list[int] = []
        self.epoch: list[int] = []
        self.step_size: list[float] = []
        self.n_epochs = 0
        self.epoch_start = 0

    @property
    def n_steps(self) -> int:
        return len(self.loss)

    def append(self, loss: float, n_samples: int, step_size: float) -> None:
        self.loss.append(loss)
        self.n_samples.append(n_samples)
        self.epoch.append(self.n_epochs)
        self.step_size.append(step_size)

    def end_epoch(self) -> History:
        self.n_epochs += 1
        first, self.epoch_start = self.epoch_start, self.n_steps
        return self._history(slice(first, None), 1)

    def history(self) -> History:
        return self._history(slice(None), self.n_epochs)

    def _history(self, steps: slice, n_epochs: int) -> History:
        return History(
            loss=np.array(self.loss[steps]),
            n_samples=np.array(self.n_samples[steps]),
            epoch=np.array(self.epoch[steps]),
            step_size=np.array(self.step_size[steps]).reshape(-1, 1),
            n_epochs=n_epochs,
        )


def _epochs(
    problem: FiniteSum, batch_size: int | None, visit: Order
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    if batch_size is None:
        yield from itertools.repeat([(problem.inputs, problem.targets)])
        return
    for indices in checked_epochs(visit, problem.n_samples, batch_size, torch.default_generator):
        # Gathering once and splitting costs far less than indexing batch by batch.
        yield zip(
            problem.inputs[indices].split(batch_size),
            problem.targets[indices].split(batch_size),
            strict=True,
        )


def _mean_loss(problem: FiniteSum, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    predictions = model(inputs)
    # Tensors of shapes (n, 1) and (n,) would broadcast to (n, n), most often without a warning.
    if targets.is_floating_point() and predictions.shape != targets.shape:
        raise ValueError(
            "predictions and targets must have the same shape, got "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}: reshape one of them"
        )
    loss = problem.criterion(predictions, targets)
    if not isinstance(loss, Tensor) or loss.ndim:
        given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
        raise ValueError(
            f"criterion must return a scalar tensor, the mean over the batch, got {given}"
        )
    if not loss.requires_grad:
        raise ValueError(
            "criterion must return a loss that depends on the weights, got one without a gradient: "
            "remove .detach(), .item() or torch.no_grad() on its way"
        )
    return loss


def _update(optimizer: Optimizer, parameters: list[nn.Parameter]) -> Callable[[float], None]:
    if isinstance(optimizer, str):

        def by_hand(eta: float) -> None:
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.add_(parameter.grad, alpha=-eta)

        return by_hand

    instance = optimizer(parameters, lr=1.0)  # its step size is set before each step

    def through_optimizer(eta: float) -> None:
        for group in instance.param_groups:
            group["lr"] = eta
        instance.step()

    return through_optimizer


def _load(parameters: list[nn.Parameter], weights: NDArray[np.float64]) -> None:
    parts = torch.from_numpy(weights).split([parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))


def _progress_bar(progress: bool, total: int) -> tqdm:
    if progress and not os.environ.get("CI"):
        return tqdm(total=total, unit="epoch")  # TQDM_DISABLE, tqdm's own switch, is respected
    return tqdm(disable=True)


def _constant(step_size: float) -> Callable[[int], float]:
    value = positive_number("step_size", step_size)
    return lambda step: value


def _check_kinds(problem: object, optimizer: object, stop: object) -> None:
    if not isinstance(problem, FiniteSum):
        raise TypeError(
            f"problem must be a FiniteSum or a LeastSquares, got {type(problem).__name__}"
        )
    if isinstance(optimizer, str):
        if optimizer != "sgd":
            raise ValueError(
                'optimizer must be "sgd", a class from torch.optim or a functools.partial of '
                f"one, got {optimizer!r}"
            )
    else:
        cls = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
        if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
            raise TypeError(
                'optimizer must be "sgd", a class from torch.optim or a functools.partial of '
                f"one (train makes its own copy of the model), got {optimizer!r}"
            )
        if issubclass(cls, torch.optim.LBFGS):
            raise TypeError(
                "optimizer must make one update from one gradient, got LBFGS, which evaluates the "
                "loss several times a step"
            )
    if stop is not None and not isinstance(stop, StoppingRule):
        raise TypeError(
            f"stop must be a stopping rule such as running_loss_below(0.1), got {stop!r}"
        )
