"""The denominator of a criterion's mean: how many samples, or elements, a batch counts for."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._columns import Value
from sgd_analysis._validation import as_array

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


def denominator_of(criterion: Callable[..., Any]) -> Denominator:
    """Return what a criterion's mean divides by, as a function of the arguments of its call.

    Losses over classes divide by the number of targets that are not ignored, or by the sum of
    their class weights; losses over elements by the number of elements; all others, and criteria
    that are not torch's own, by the length of their first argument.
    """
    # None for a function; that of a subclass may divide by anything.
    forward: Any = getattr(type(criterion), "forward", None)
    if forward in {nn.CrossEntropyLoss.forward, nn.NLLLoss.forward}:
        return functools.partial(_n_targets, criterion)
    if forward in _ELEMENTWISE and getattr(criterion, "reduction", None) != "batchmean":
        return _n_elements
    if forward is nn.CTCLoss.forward:  # (time steps, samples, classes)
        return lambda input, *_, **__: float(input.shape[1]) if input.ndim == 3 else 1.0
    return _batch_size


def batch_size_of(criterion: Callable[..., Any]) -> Denominator:
    """Return how many samples a criterion is given, as a function (predictions, targets).

    They may be fewer than its mean divides by: a sample may have several elements or targets.
    """
    return _n_predictions if _counts_targets(denominator_of(criterion)) else _batch_size


def of_each(
    denominator: Denominator, predictions: Iterable[Any], targets: Iterable[Any]
) -> NDArray[np.float64]:
    """Return the denominators (k,) of k batches; of tensors (k, ...) without visiting each."""
    if isinstance(predictions, Tensor) and isinstance(targets, Tensor):
        if denominator in (_n_elements, _n_predictions, _batch_size):
            return np.full(len(targets), float(denominator(predictions[0], targets[0])))
        if _counts_targets(denominator) and not targets.is_floating_point():
            counts = _count_for_each(denominator.args[0], targets)
            return as_array(counts.reshape(len(targets), -1).sum(dim=1)).astype(np.float64)
    pairs = zip(predictions, targets, strict=True)
    return np.array([float(denominator(*pair)) for pair in pairs])


def _counts_targets(denominator: Denominator) -> TypeGuard["functools.partial[Value]"]:
    return isinstance(denominator, functools.partial) and denominator.func is _n_targets


def _n_targets(criterion: Any, input: Tensor, target: Tensor) -> Value:
    if target.is_floating_point():  # a distribution over the classes for each sample
        return input.numel() / input.shape[1 if input.ndim > 1 else 0]
    if target.is_cpu and (criterion.weight is None or criterion.reduction != "mean"):
        return float(np.count_nonzero(target.numpy() != criterion.ignore_index))
    return _plain(_count_for_each(criterion, target).sum())


def _count_for_each(criterion: Any, target: Tensor) -> Tensor:
    """Return what each target counts for: its class weight, or 1; and 0 if it is ignored."""
    used: Tensor = target != criterion.ignore_index
    if criterion.weight is None or criterion.reduction != "mean":
        return used
    counts: Tensor = criterion.weight.detach()[torch.where(used, target, 0)].mul(used)
    return counts


def _n_elements(input: Tensor, target: Tensor, *others: Any, **settings: Any) -> Value:
    if input.shape == target.shape:
        return float(input.numel())
    return float(math.prod(torch.broadcast_shapes(input.shape, target.shape)))


def _batch_size(*args: Any, **kwargs: Any) -> Value:
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, Tensor):
            return float(len(argument)) if argument.ndim else 1.0
    return 1.0


def _n_predictions(input: Tensor, target: Tensor) -> float:
    return float(len(input)) if input.ndim > 1 else 1.0  # (samples, classes, ...) or (classes,)


def _plain(count: Tensor) -> Value:
    return count.item() if count.is_cpu else count
