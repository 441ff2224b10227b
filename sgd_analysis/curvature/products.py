"""Products of a preconditioned Hessian with vectors, one pass over a loader each."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sgd_analysis._arrays import quotient
from sgd_analysis._criteria import require_gradient
from sgd_analysis._random_state import undisturbed
from sgd_analysis.curvature.scaling import Scaling
from sgd_analysis.surveying.batches import in_lists
from sgd_analysis.surveying.evaluation import FixedWeights, dense_sum


class ScaledHessian:
    """v ↦ D^½ (H + Λ) D^½ v at a model's present weights, of its parameters that move.

    H is the Hessian of the empirical risk over a loader, and Λ the coupled weight decay.

    Args:
        weights: of the model.
        loader: gives the same batches in each pass, as its generators are put back.
        scalings: of the parameters that move; others of the model do not.

    Raises:
        TypeError: if a parameter that moves is complex.
        ValueError: if none moves.
    """

    def __init__(
        self,
        weights: FixedWeights,
        loader: Iterable[Any],
        scalings: Mapping[nn.Parameter, Scaling],
    ) -> None:
        self._weights, self._forward, self._loader = weights, weights.forward, loader
        named = weights.forward.copies.weights
        self._moving = {name: p for name, p in named.items() if p in scalings}
        _check_real_and_some(self._moving, len(scalings))
        moving = list(self._moving.values())
        self._sizes = [parameter.numel() for parameter in moving]
        self._unscaled = {n for n, p in self._moving.items() if scalings[p].diagonal is None}
        dtype = functools.reduce(torch.promote_types, (p.dtype for p in moving), torch.float32)
        self._like = torch.zeros(0, dtype=dtype, device=moving[0].device)
        self._root = self._flat(_diagonal(p, scalings[p]) for p in moving).sqrt()
        self._decay = self._flat(torch.full_like(p, scalings[p].decay) for p in moving)
        self._copies = weights.forward.copies.fresh()  # the mapping that forward passes use
        self._first: tuple[float, float] | None = None

    def random_vector(self, seed: int) -> Tensor:
        """Return a vector of independent normal numbers, the same for a seed on any device."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(sum(self._sizes), generator=generator).to(self._like)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the product with a vector.

        Raises:
            ValueError: as `preconditioned_sharpness`.
        """
        scaled = self._root * vector
        parts = self._as_parameters(scaled)
        total, risk, count = torch.zeros_like(vector), 0.0, 0.0
        with undisturbed(self._loader), _twice_differentiable(self._forward.modules):
            for batches in in_lists(
                self._loader, self._weights.row_bytes, whole=self._forward.whole.criterion is None
            ):
                for inputs, targets in batches:
                    loss, weight, factor = self._loss(inputs, targets)
                    if weight:
                        total += factor * self._flat(self._products(loss, parts))
                        risk, count = risk + factor * float(loss.detach()), count + weight
        self._check(total, risk, count)
        return self._root * (total / count + self._decay * scaled)

    def _loss(self, inputs: Any, targets: Any) -> tuple[Tensor, float, float]:
        """Return a batch's loss, what its mean divides by, and what its loss counts for.

        Raises:
            ValueError: if random numbers were drawn, or the loss does not depend on the weights.
        """
        before = self._forward.states()
        loss, predictions = self._forward.call(inputs, targets)
        if self._forward.states() != before:
            before.restore()
            raise ValueError(self._weights.refusal(inputs, targets))
        require_gradient(loss)
        read = self._weights.counts.read(loss, targets)
        (denominator,), _ = self._weights.counts.of([predictions], [targets], [read])
        is_sum = self._weights.takes_sums or read.is_sum
        return loss.reshape(()), float(denominator), 1.0 if is_sum else float(denominator)

    def _products(self, loss: Tensor, parts: list[Tensor]) -> list[Tensor]:
        """Return what the Hessian of one loss makes of a vector, a part for each parameter."""
        originals = list(self._moving.values())
        # As in FixedWeights.one: what a module makes of the copies and of the originals adds up.
        leaves = [*(self._copies[name] for name in self._moving), *originals]
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        self._check_scaled(gradients)
        curved = [
            (gradient.to_dense(), part)
            for gradient, part in zip(gradients, parts * 2, strict=True)
            if gradient is not None and gradient.requires_grad
        ]
        if not curved:  # linear in all of them
            return [torch.zeros_like(parameter) for parameter in originals]
        of, along = zip(*curved, strict=True)
        found = torch.autograd.grad(of, leaves, along, allow_unused=True)
        both = zip(found[: len(originals)], found[len(originals) :], originals, strict=True)
        return [dense_sum(pair, like) for *pair, like in both]

    def _check_scaled(self, gradients: Sequence[Tensor | None]) -> None:
        by_copy, by_original = gradients[: len(self._moving)], gradients[len(self._moving) :]
        for name, *both in zip(self._moving, by_copy, by_original, strict=True):
            if name in self._unscaled and any(part is not None for part in both):
                raise ValueError(_unscaled(name))

    def _check(self, total: Tensor, risk: float, count: float) -> None:
        if self._first is None:
            if not count:
                raise ValueError("loader must give a batch with a sample that counts, got none")
            self._first = risk, count
        tolerance = torch.finfo(self._like.dtype).eps ** 0.5
        if not np.allclose((risk, count), self._first, rtol=tolerance, atol=0, equal_nan=True):
            raise ValueError(
                f"a first pass over the loader gave {self._first[1]:g} samples with the mean loss "
                f"{self._first[0] / self._first[1]:.6g}, and a later one {count:g} with "
                f"{quotient(risk, count):.6g}, at the same weights: every pass has to be the same. "
                "Give batches = list(loader) where the loader is a generator, or draws from a "
                "generator of its own; and let the model keep nothing from call to call, save in "
                "buffers or in attributes of modules"
            )
        if not torch.isfinite(total).all():
            raise ValueError(
                f"the Hessian must be finite at the model's weights, where the risk is "
                f"{risk / count:.6g}, got nan or infinite values: call this before the run "
                "diverges, and where the optimizer divides by √v + eps, with eps > 0"
            )

    def _flat(self, tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([tensor.detach().flatten().to(self._like) for tensor in tensors])

    def _as_parameters(self, vector: Tensor) -> list[Tensor]:
        parts = zip(vector.split(self._sizes), self._moving.values(), strict=True)
        return [part.view_as(parameter).to(parameter) for part, parameter in parts]


def _check_real_and_some(moving: Mapping[str, nn.Parameter], n_given: int) -> None:
    if not moving:
        raise ValueError(
            "optimizer must move a parameter of the model, got one of "
            f"{n_given} parameters that has none of those that need a gradient: give the model "
            "and the optimizer of the same run"
        )
    if any(parameter.is_complex() for parameter in moving.values()):
        raise TypeError("the model's parameters must be real, got complex ones")


def _diagonal(parameter: Tensor, scaling: Scaling) -> Tensor:
    return torch.zeros_like(parameter) if scaling.diagonal is None else scaling.diagonal


def _unscaled(name: str) -> str:
    return (
        f"the optimizer has no state yet of {name.removeprefix('model.')!r}, and so no scaling: "
        "take a step first"
    )


@contextlib.contextmanager
def _twice_differentiable(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Choose the implementations of attention and of recurrent layers that have two derivatives."""
    recurs = any(isinstance(module, nn.RNNBase) for module in modules)
    cudnn = torch.backends.cudnn
    with sdpa_kernel(SDPBackend.MATH), cudnn.flags(enabled=cudnn.enabled and not recurs):
        yield
