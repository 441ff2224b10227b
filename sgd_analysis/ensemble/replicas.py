"""Many copies of a problem's weights side by side: the losses and gradients of all at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from sgd_analysis._arrays import as_array, norms
from sgd_analysis._criteria import denominator_of, mean_loss, of_each, require_gradient
from sgd_analysis._weights import trainable
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.least_squares import LeastSquares

Records: TypeAlias = dict[str, NDArray[Any]]

LANES = 64
"""Replicas come in multiples of this, where so many fit, the last ones unused. A vectorized loop
may round what is left at its end in another way; with nothing left, a replica's bits do not
depend on its place among the others."""


class Replicas(Protocol):
    """What the two ways to the gradients have in common."""

    parameters: list[Tensor]
    """The weights of all replicas, in the tensors that an optimizer steps."""

    def losses(self, indices: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        """Return each replica's loss on its own batch, and leave its gradient in `.grad`.

        Args:
            indices: (n, n_replicas) the samples of each replica's batch.

        Returns:
            (n_replicas,) mean losses, and what each of these means divides by.
        """

    def vectors(self, tensors: Sequence[Tensor]) -> NDArray[np.floating]:
        """Return tensors laid out as the parameters as one vector a replica, in a copy.

        Args:
            tensors: the parameters, or others of their shapes.

        Returns:
            (n_replicas, n_parameters) array in their dtype.
        """

    def at_fixed_weights(self, samples_at_once: int) -> Records:
        """Return what all samples give at the present weights.

        Args:
            samples_at_once: how many samples to pass through a model at once.

        Returns:
            `empirical_risk`, (n_replicas,), and for a `LeastSquares` `full_gradient_norm`, too.
        """


class ReplicasInClosedForm:
    """Replicas of a `LeastSquares` whose residuals and gradients are written out.

    Args:
        problem: the least-squares problem.
        start: (d,) the weights that all replicas start from.
        n_replicas: how many there are.
    """

    def __init__(self, problem: LeastSquares, start: NDArray[np.float64], n_replicas: int) -> None:
        dtype = trainable(problem.model)[0].dtype
        doubled = 2 * torch.from_numpy(problem.features.T.copy())
        # A row for each feature and one for −y: the last row of a gathered batch is what its
        # residual starts from. Replicas lie next to each other, for arithmetic to run along them.
        self._table = torch.cat([doubled, -problem.targets[None].double()]).to(dtype)
        self._problem = problem
        self._weights = torch.from_numpy(start).to(dtype)[:, None].repeat(1, n_replicas)
        self._weight_rows = self._weights.unbind()  # views, which follow every step
        self.parameters = [self._weights]

    def losses(self, indices: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        """Return (n_replicas,) the means of the squared residuals; gradients are in `.grad`."""
        gathered = self._table.index_select(1, indices.flatten()).view(-1, *indices.shape)
        *doubled, residual = gathered.unbind()
        for feature, weight in zip(doubled, self._weight_rows, strict=True):
            residual.addcmul_(feature, weight, value=0.5)
        # 2φr in the rows of the features, r² in the last.
        means = (gathered * residual).sum(1).div_(len(indices))
        self._weights.grad, losses = means[:-1], means[-1]
        return losses, np.full(len(losses), float(len(indices)))

    def vectors(self, tensors: Sequence[Tensor]) -> NDArray[np.floating]:
        """Return (n_replicas, d) a copy of a tensor laid out as the parameters."""
        (tensor,) = tensors
        return as_array(tensor.T.clone())

    def at_fixed_weights(self, samples_at_once: int) -> Records:
        """Return `empirical_risk` and `full_gradient_norm`, (n_replicas,) each."""
        return _in_closed_form(self._problem, self.vectors(self.parameters))


class ReplicasByAutograd:
    """Replicas of any problem: its model is called once, with the weights of all of them.

    Args:
        problem: the problem.
        start: (n_parameters,) the weights that all replicas start from.
        n_replicas: how many there are.
    """

    def __init__(self, problem: FiniteSum, start: NDArray[np.float64], n_replicas: int) -> None:
        self._problem = problem
        self._denominator = denominator_of(problem.criterion)
        self._model = copy.deepcopy(problem.model)
        trained = {n: p for n, p in self._model.named_parameters() if p.requires_grad}
        parts = torch.from_numpy(start).split([p.numel() for p in trained.values()])
        self._parameters = {
            name: part.view_as(parameter)
            .to(parameter.dtype)
            .repeat(n_replicas, *[1] * parameter.ndim)
            .requires_grad_()
            for (name, parameter), part in zip(trained.items(), parts, strict=True)
        }
        self.parameters = list(self._parameters.values())

    def losses(self, indices: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        """Return (n_replicas,) the criterion's values; gradients are in `.grad`."""
        batches = indices.T
        inputs, targets = (
            values.index_select(0, batches.flatten()).unflatten(0, batches.shape)
            for values in (self._problem.inputs, self._problem.targets)
        )
        for parameter in self.parameters:
            parameter.grad = None
        with torch.enable_grad():
            losses, predictions = torch.vmap(self._loss)(self._parameters, inputs, targets)
            # No replica's loss depends on another's weights: the sum's gradients are those of each.
            losses.sum().backward()
        return losses.detach(), of_each(self._denominator, predictions.detach(), targets)

    def vectors(self, tensors: Sequence[Tensor]) -> NDArray[np.floating]:
        """Return (n_replicas, n_parameters) a copy of tensors laid out as the parameters."""
        return as_array(torch.cat([tensor.detach().flatten(1) for tensor in tensors], dim=1))

    def at_fixed_weights(self, samples_at_once: int) -> Records:
        """Return `empirical_risk`, (n_replicas,), or what a `LeastSquares` has in closed form."""
        if isinstance(self._problem, LeastSquares):
            return _in_closed_form(self._problem, self.vectors(self.parameters))
        total, denominator = torch.zeros(len(self.parameters[0]), dtype=torch.float64), 0.0
        inputs = self._problem.inputs.split(samples_at_once)
        targets = self._problem.targets.split(samples_at_once)
        for some_inputs, some_targets in zip(inputs, targets, strict=True):
            each = torch.vmap(self._loss, in_dims=(0, None, None))
            losses, predictions = each(self._parameters, some_inputs, some_targets)
            (size,) = of_each(self._denominator, predictions[:1], some_targets[None])
            if size:  # a mean over none is nan
                total, denominator = total + size * losses.double(), denominator + size
        return {"empirical_risk": (total / denominator).numpy()}

    def _loss(
        self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        predictions = functional_call(self._model, parameters, (inputs,))
        return mean_loss(self._problem.criterion, predictions, targets), predictions


def add_weighted(total: Tensor, gradient: Tensor, weights: NDArray[np.float64]) -> None:
    """Add to a sum of gradients, laid out as the parameters, those of a step, each with a weight.

    Args:
        total: what is added to.
        gradient: of its shape.
        weights: (n_replicas,) equal for all replicas, or for those of `ReplicasByAutograd`.
    """
    if (weights == weights[0]).all():
        total.add_(gradient, alpha=weights[0])
    else:  # their first axis is that of the replicas
        factors = torch.from_numpy(weights).to(total.dtype)
        total.add_(gradient * factors.view(-1, *[1] * (gradient.ndim - 1)))


def n_closed_form(problem: LeastSquares, batch_size: int, memory: int) -> int:
    """Return how many replicas to step at once in closed form.

    Args:
        problem: the least-squares problem.
        batch_size: the mini-batch size B.
        memory: how many bytes they may take.

    Returns:
        A multiple of LANES, at least one.
    """
    d = problem.n_parameters
    # A gathered batch and its products; the weights, their gradient and what an optimizer keeps.
    numbers = 2 * (d + 1) * batch_size + 8 * d
    fit = memory // (numbers * problem.targets.element_size() + _bytes_of_orders(problem))
    # Torch splits operations on more than 2^15 numbers between its threads, which costs more than
    # it saves where the next operation waits for them; and few more stay in the nearer caches.
    elements = 1 << (15 if torch.get_num_threads() > 1 else 16)
    return max(min(fit, elements // ((d + 1) * batch_size)) // LANES, 1) * LANES


def n_autograd(problem: FiniteSum, batch_size: int, memory: int) -> int:
    """Return how many replicas to step at once by automatic differentiation.

    Args:
        problem: any problem.
        batch_size: the mini-batch size B.
        memory: how many bytes they may take.

    Returns:
        At least one; a multiple of LANES if it is not below.

    Raises:
        ValueError: if the model cannot be stepped so, or the criterion does not give one
            differentiable loss.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    model = copy.deepcopy(problem.model)
    inputs, targets = problem.inputs[:batch_size], problem.targets[:batch_size]
    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = mean_loss(problem.criterion, model(inputs), targets)
    require_gradient(loss)
    try:
        ReplicasByAutograd(problem, problem.start.astype(np.float64), 2).losses(
            torch.zeros((len(inputs), 2), dtype=torch.int64)
        )
    except RuntimeError as error:
        raise ValueError(
            "model and criterion must be such that torch.vmap can call them with the weights of "
            "all replicas: no random numbers (dropout in training mode), no buffers that change "
            "(batch norm in training mode), no Python branches on values; use train(seed=...) for "
            "each seed, or model.eval()"
        ) from error
    # What a step keeps for its backward pass, and as much for that pass; the weights, a gradient,
    # up to three states of an optimizer; and the path's sum in double precision.
    weights = sum(5 * parameter.nbytes + 8 * parameter.numel() for parameter in trainable(model))
    fit = memory // (2 * sum(kept.values()) + weights + _bytes_of_orders(problem))
    return fit // LANES * LANES if fit >= LANES else max(fit, 1)


def _in_closed_form(problem: LeastSquares, weights: NDArray[np.floating]) -> Records:
    w = weights.astype(np.float64)
    return {
        "empirical_risk": problem.empirical_risk(w),
        "full_gradient_norm": norms(problem.full_gradient(w)),
    }


def _bytes_of_orders(problem: FiniteSum) -> int:
    """Return what an epoch's indices of one replica take, with two copies on their way."""
    return 3 * 8 * problem.n_samples
