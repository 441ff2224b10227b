"""One training loop for every variant."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from sgd_analysis._progress import progress_bar
from sgd_analysis._validation import integer_between
from sgd_analysis._weights import flat_weights, load_weights, trainable
from sgd_analysis.orders import Order
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.stopping import StoppingRule
from sgd_analysis.training.closed_form import ClosedFormLoop
from sgd_analysis.training.loop import TrainingLoop
from sgd_analysis.training.optimizers import Optimizer, make_optimizer
from sgd_analysis.training.plan import Plan, StepSize, checked_plan
from sgd_analysis.training.run import Run
from sgd_analysis.training.watch import Watch


def train(
    problem: FiniteSum,
    optimizer: Optimizer = "sgd",
    *,
    step_size: StepSize,
    max_epochs: int,
    batch_size: int | None = None,
    order: str | Order = "reshuffle",
    drop_last: bool = False,
    stop: StoppingRule | None = None,
    start: ArrayLike | None = None,
    seed: int = 0,
    gradient: Literal["autograd", "closed form"] = "autograd",
    progress: bool = False,
) -> Run:
    r"""Minimise a finite sum by (mini-batch) gradient descent, recording every step.

    .. math:: w_{k+1} = w_k - \eta_k \nabla f_{b_k}(w_k)

    A batch's loss is computed at the weights **before** the update it leads to, and an epoch's
    stopping rule is asked after its last update. With one step an epoch, the first step k for
    which F(w_k) < ε therefore ends the run in epoch k + 1.

    Args:
        problem: what to minimise; its model is copied, never changed. `FiniteSum.from_loader`
            makes one from a DataLoader.
        optimizer: "sgd", the update written by hand, which equals `torch.optim.SGD` bit for bit;
            or a class from `torch.optim`, or a `functools.partial` of one.
        step_size: η > 0, or a function of the step (from 0) that returns it.
        max_epochs: the number of epochs after which the run ends in any case.
        batch_size: B, between 1 and n_samples. None: all samples in their given order, whatever
            `order` says, one step an epoch.
        order: the order in which samples are visited: "reshuffle" (batch for batch what a
            `DataLoader(shuffle=True)` does after `torch.manual_seed(seed)`), "cyclic",
            "shuffle_once", "with_replacement", "independent", or a function of your own with
            their signature.
        drop_last: leave out what is left for a last batch smaller than B.
        stop: a stopping rule, or several joined with `|`.
        start: (n_parameters,) the weights to start from; the model's own unless given.
        seed: of everything random in the run, an integer >= 0; the caller's random state is left
            as it was.
        gradient: "autograd"; or "closed form", that of a LeastSquares by its formula, the same
            to rounding. Together with "sgd" it is tens of times as fast, and computes several
            steps at once: an exception then keeps the epochs finished before.
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
            the gradient is to have a closed form and the problem has none, the criterion does not
            give one differentiable loss for predictions of the targets' shape, or the rule looks
            at the global loss of a model that draws random numbers. Whatever ends a run by an
            exception, an interrupt included, finds what was recorded in the exception's
            attribute `run`.

    Example:
        >>> from sgd_analysis import LeastSquares, running_loss_below, train
        >>> line = LeastSquares([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 3.0, 5.0])
        >>> train(line, step_size=0.2, max_epochs=500, stop=running_loss_below(1e-6))
        Run('running_loss_below(1e-06)' after 46 epochs, 46 steps)
    """
    plan = checked_plan(
        problem,
        optimizer,
        step_size=step_size,
        max_epochs=max_epochs,
        batch_size=batch_size,
        order=order,
        drop_last=drop_last,
        start=start,
        gradient=gradient,
    )
    watch = Watch(stop, problem, plan.max_epochs)
    seed = integer_between("seed", seed, 0, 2**63 - 1)
    model = copy.deepcopy(problem.model)
    parameters = trainable(model)
    load_weights(parameters, plan.start)
    engine = _engine(plan, watch, model)
    checkpoints = [flat_weights(parameters)[None]]

    def run(reason: str, *, converged: bool = False) -> Run:
        return Run(converged, reason, np.concatenate(checkpoints), engine.history, model)

    try:
        with (
            _surroundings(seed),
            contextlib.closing(engine.epochs()) as epochs,
            progress_bar(progress, max_epochs) as bar,
        ):
            for weights in epochs:
                checkpoints.append(weights)
                if not bar.disable:
                    loss = watch.running_loss
                    bar.set_postfix_str(f"running loss {loss:.6g}", refresh=False)
                    bar.update(len(weights))
    except BaseException as error:
        kept = error.run = run(type(error).__name__)  # type: ignore[attr-defined]
        n_steps = kept.history.n_steps
        error.add_note(f"What was recorded, {n_steps} steps, is this exception's `run`.")
        raise
    return run(engine.ended_by.name, converged=engine.ended_by.converged)


def _engine(plan: Plan, watch: Watch, model: nn.Module) -> TrainingLoop | ClosedFormLoop:
    problem = plan.problem
    if (
        plan.in_closed_form
        and isinstance(plan.optimizer, str)
        and isinstance(problem, LeastSquares)
    ):
        return ClosedFormLoop(plan, problem, watch, model)
    first = 1.0 if callable(plan.step_size) else plan.step_size  # the former is set before steps
    optimizer = make_optimizer(plan.optimizer, trainable(model), first)
    return TrainingLoop(plan, watch, model, optimizer)


@contextlib.contextmanager
def _surroundings(seed: int) -> Iterator[None]:
    with (
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        warnings.catch_warnings(),
    ):
        # Who asks the history for gradients that did not fit is told so then.
        warnings.filterwarnings("ignore", message="whole vectors were kept")
        warnings.filterwarnings("ignore", message="no epoch has ended")  # it diverged in the first
        torch.default_generator.manual_seed(seed)
        yield
