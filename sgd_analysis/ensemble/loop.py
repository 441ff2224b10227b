"""The training loop of many replicas, and what it records."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import as_array, norms, quiet
from sgd_analysis.ensemble.orders import epochs_of_all, widened
from sgd_analysis.ensemble.replicas import (
    LANES,
    Records,
    Replicas,
    ReplicasByAutograd,
    ReplicasInClosedForm,
    add_weighted,
    n_autograd,
    n_closed_form,
)
from sgd_analysis.orders import Order, without_the_rest
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.training.optimizers import Optimizer


@dataclass(frozen=True)
class EnsemblePlan:
    """What is the same for all replicas, checked.

    Args:
        problem: what to minimise.
        optimizer: an elementwise one.
        step_size_at: the step size as a function of the step.
        batch_size: the mini-batch size B.
        order: the order in which samples are visited.
        drop_last: whether to leave out a last batch smaller than B.
        max_epochs: the number of epochs.
        start: (n_parameters,) the weights that all replicas start from.
        in_closed_form: whether to write gradients out, for a `LeastSquares`.
        checkpoints: whether to keep the weights of every epoch, or those at the end alone.
    """

    problem: FiniteSum
    optimizer: Optimizer
    step_size_at: Callable[[int], float]
    batch_size: int
    order: Order
    drop_last: bool
    max_epochs: int
    start: NDArray[np.float64]
    in_closed_form: bool
    checkpoints: bool


def train_all(
    plan: EnsemblePlan, seeds: Sequence[int], memory: int, advance: Callable[[int], object]
) -> Records:
    """Train one replica a seed, as many at once as the memory has room for.

    Args:
        plan: what is the same for all of them.
        seeds: one seed a replica.
        memory: how many bytes those trained at once may take.
        advance: told the number of replicas that have finished another epoch.

    Returns:
        Each recorded quantity, (n_replicas, n_epochs), and `checkpoints`, (n_replicas, n_kept,
        n_parameters), of which the last are the weights at the end.
    """
    # Inference mode spares each operation some bookkeeping, which autograd could not do without.
    with torch.inference_mode(plan.in_closed_form), torch.no_grad():
        n_fit, replicas_of = _kind_of_replicas(plan, memory)
        parts = []
        for first in range(0, len(seeds), n_fit):
            some = seeds[first : first + n_fit]
            n_replicas = min(-(-len(some) // LANES) * LANES, n_fit)
            parts.append(_train_together(plan, replicas_of(n_replicas), some, advance))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _kind_of_replicas(plan: EnsemblePlan, memory: int) -> tuple[int, Callable[[int], Replicas]]:
    """Return how many replicas to train at once, and a function that makes some."""
    problem = plan.problem
    if plan.in_closed_form and isinstance(problem, LeastSquares):
        n_fit = n_closed_form(problem, plan.batch_size, memory)
        return n_fit, partial(ReplicasInClosedForm, problem, plan.start)
    return n_autograd(problem, plan.batch_size, memory), partial(
        ReplicasByAutograd, problem, plan.start
    )


def _train_together(
    plan: EnsemblePlan, replicas: Replicas, seeds: Sequence[int], advance: Callable[[int], object]
) -> Records:
    checkpoints = [replicas.vectors(replicas.parameters)]
    orders = epochs_of_all(
        plan.order, plan.problem.n_samples, plan.batch_size, seeds, plan.max_epochs
    )
    epochs = []
    for along_the_epoch in _epochs(plan, replicas, widened(orders, len(checkpoints[0]))):
        epochs.append(along_the_epoch | replicas.at_fixed_weights(plan.batch_size))
        if not plan.checkpoints:
            checkpoints.clear()
        checkpoints.append(replicas.vectors(replicas.parameters))
        advance(len(seeds))
    records = {name: np.stack([epoch[name] for epoch in epochs], axis=1) for name in epochs[0]}
    records["checkpoints"] = np.stack(checkpoints, axis=1)
    return {name: values[: len(seeds)] for name, values in records.items()}


def _epochs(plan: EnsemblePlan, replicas: Replicas, orders: Iterator[Tensor]) -> Iterator[Records]:
    """Train all replicas together, one epoch after another.

    Yields:
        (n_replicas,) each quantity that is recorded along an epoch, weights moving.
    """
    step = update(plan.optimizer, replicas.parameters)
    step_sizes = map(plan.step_size_at, itertools.count())
    for indices in orders:
        if plan.drop_last:
            indices = without_the_rest(indices, plan.batch_size)
        losses, sizes = [], []
        path = [torch.zeros_like(p, dtype=_at_least_float32(p)) for p in replicas.parameters]
        for batch in indices.split(plan.batch_size):
            loss, size = replicas.losses(batch)
            losses.append(loss)
            sizes.append(size)
            for total, parameter in zip(path, replicas.parameters, strict=True):
                if parameter.grad is not None:
                    add_weighted(total, parameter.grad, size)
            step(next(step_sizes))
        yield _along_the_epoch(losses, np.array(sizes), norms(replicas.vectors(path)))


@quiet
def _along_the_epoch(
    losses: list[Tensor], sizes: NDArray[np.float64], path_norm: NDArray[np.float64]
) -> Records:
    # In numpy: torch would split sums of this length between threads.
    batch_loss = as_array(torch.stack(losses)).astype(np.float64)
    return {
        "running_loss": (sizes * batch_loss).sum(axis=0) / sizes.sum(axis=0),
        "mean_batch_loss": batch_loss.mean(axis=0),
        "last_batch_loss": batch_loss[-1],
        "path_gradient_norm": path_norm / sizes.sum(axis=0),
    }


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def update(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Callable[[float], None]:
    """Return a function of the step size that updates parameters from their `.grad`.

    Args:
        optimizer: one that `check_elementwise` has let pass.
        parameters: what it updates.

    Returns:
        A function to call once a step, without building a graph.
    """
    if isinstance(optimizer, str):

        def by_hand(eta: float) -> None:
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
