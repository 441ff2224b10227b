"""The denominator of a criterion's mean: how many samples, or elements, a batch counts for."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sgd_analysis._columns import Value

Denominator: TypeAlias = Callable[..., Value]

_ELEMENTWISE = {
    loss.forward
    for loss in (
        nn.MSELoss,
        nn.L1Loss,
        nn.SmoothL1Loss,
        nn.HuberLoss,
        nn.BCELoss,
        nn.BCEWithLogitsLoss,
        nn.SoftMarginLoss,
        nn.HingeEmbeddingLoss,
        nn.PoissonNLLLoss,
        nn.GaussianNLLLoss,
        nn.KLDivLoss,
    )
}


def denominator_of(criterion: nn.Module) -> Denominator:
    """Return what a criterion's mean divides by, as a function of the arguments of its call.

    Losses over classes divide by the number of targets that are not ignored, or by the sum of
    their class weights; losses over elements by the number of elements; all others, and modules
    that are not torch's own, by the length of their first argument.
    """
    forward = type(criterion).forward  # another one in a subclass may divide by anything
    if forward in {nn.CrossEntropyLoss.forward, nn.NLLLoss.forward}:
        return lambda input, target: _n_targets(criterion, input, target)
    if forward in _ELEMENTWISE and criterion.reduction != "batchmean":
        return _n_elements
    if forward is nn.CTCLoss.forward:  # (time steps, samples, classes)
        return lambda input, *_, **__: float(input.shape[1]) if input.ndim == 3 else 1.0
    return _batch_size


def _n_targets(criterion: Any, input: Tensor, target: Tensor) -> Value:
    if target.is_floating_point():  # a distribution over the classes for each sample
        return input.numel() / input.shape[1 if input.ndim > 1 else 0]
    weight = criterion.weight if criterion.reduction == "mean" else None
    if weight is None and target.is_cpu:
        return float(np.count_nonzero(target.numpy() != criterion.ignore_index))
    used = target != criterion.ignore_index
    if weight is None:
        return _plain(used.sum())
    return _plain(weight.detach()[torch.where(used, target, 0)].mul(used).sum())


def _n_elements(input: Tensor, target: Tensor, *others: Any, **settings: Any) -> Value:
    if input.shape == target.shape:
        return float(input.numel())
    return float(math.prod(torch.broadcast_shapes(input.shape, target.shape)))


def _batch_size(*args: Any, **kwargs: Any) -> Value:
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, Tensor):
            return float(len(argument)) if argument.ndim else 1.0
    return 1.0


def _plain(count: Tensor) -> Value:
    return count.item() if count.is_cpu else count
