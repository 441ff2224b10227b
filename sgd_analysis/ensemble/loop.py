"""The training loop of many replicas, and what it records."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import as_array, norms, quiet, weighted_means
from sgd_analysis._validation import finite_vector
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
from sgd_analysis.orders import cyclic, without_the_rest
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.training.optimizers import Optimizer, descend, make_optimizer
from sgd_analysis.training.plan import Plan


def train_all(
    plan: Plan,
    seeds: Sequence[int],
    memory: int,
    advance: Callable[[int], object],
    *,
    keep_checkpoints: bool,
) -> Records:
    """Train one replica a seed, as many at once as the memory has room for.

    Args:
        plan: what is the same for all of them.
        seeds: one seed a replica.
        memory: how many bytes those trained at once may take.
        advance: told the number of replicas that have finished another epoch.
        keep_checkpoints: whether to keep the weights of every epoch, or those at the end alone.

    Returns:
        Each recorded quantity, (n_replicas, n_epochs), and `checkpoints`, (n_replicas, n_kept,
        n_parameters), of which the last are the weights at the end.
    """
    start = finite_vector("start", plan.start, plan.problem.n_parameters)
    # Inference mode spares each operation some bookkeeping, which autograd could not do without.
    with torch.inference_mode(plan.in_closed_form), torch.no_grad():
        n_fit, kind = _n_and_kind(plan, memory)
        parts = []
        for first in range(0, len(seeds), n_fit):
            some = seeds[first : first + n_fit]
            n_replicas = min(-(-len(some) // LANES) * LANES, n_fit)
            replicas = kind(plan.problem, start, n_replicas)
            parts.append(_train_together(plan, replicas, some, advance, keep_checkpoints))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _n_and_kind(plan: Plan, memory: int) -> tuple[int, Callable[..., Replicas]]:
    """Return how many replicas to train at once, and a function that makes some."""
    if plan.in_closed_form and isinstance(plan.problem, LeastSquares):
        return n_closed_form(plan.problem, plan.samples_a_step, memory), ReplicasInClosedForm
    return n_autograd(plan.problem, plan.samples_a_step, memory), ReplicasByAutograd


def _train_together(
    plan: Plan,
    replicas: Replicas,
    seeds: Sequence[int],
    advance: Callable[[int], object],
    keep_checkpoints: bool,
) -> Records:
    checkpoints = [replicas.vectors(replicas.parameters)]
    order = plan.order if plan.batch_size else cyclic
    orders = epochs_of_all(
        order, plan.problem.n_samples, plan.samples_a_step, seeds, plan.max_epochs
    )
    epochs = []
    for along_the_epoch in _epochs(plan, replicas, widened(orders, len(checkpoints[0]))):
        epochs.append(along_the_epoch | replicas.at_fixed_weights(plan.samples_a_step))
        if not keep_checkpoints:
            checkpoints.clear()
        checkpoints.append(replicas.vectors(replicas.parameters))
        advance(len(seeds))
    records = {name: np.stack([epoch[name] for epoch in epochs], axis=1) for name in epochs[0]}
    records["checkpoints"] = np.stack(checkpoints, axis=1)
    return {name: values[: len(seeds)] for name, values in records.items()}


def _epochs(plan: Plan, replicas: Replicas, orders: Iterator[Tensor]) -> Iterator[Records]:
    """Train all replicas together, one epoch after another.

    Yields:
        (n_replicas,) each quantity that is recorded along an epoch, weights moving.
    """
    step = _stepping(plan.optimizer, replicas.parameters)
    step_sizes = map(plan.step_size_at, itertools.count())
    for indices in orders:
        if plan.drop_last:
            indices = without_the_rest(indices, plan.samples_a_step)
        losses, sizes = [], []
        path = [torch.zeros_like(p, dtype=_at_least_float32(p)) for p in replicas.parameters]
        for batch in indices.split(plan.samples_a_step):
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
    edges = np.array([0, len(sizes)])
    return {
        "running_loss": weighted_means(batch_loss, sizes, edges)[0],
        "mean_batch_loss": weighted_means(batch_loss, np.ones_like(sizes), edges)[0],
        "last_batch_loss": batch_loss[-1],
        "path_gradient_norm": path_norm / sizes.sum(axis=0),
    }


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _stepping(optimizer: Optimizer, parameters: list[Tensor]) -> Callable[[float], None]:
    """Return a function of the step size that updates parameters from their `.grad`."""
    if isinstance(optimizer, str):
        return partial(descend, parameters)
    instance = make_optimizer(optimizer, parameters, 1.0)  # set before each step

    def step(step_size: float) -> None:
        for group in instance.param_groups:
            group["lr"] = step_size
        instance.step()

    return step
