"""What a loss is a mean of: what a criterion divides by, and how many samples it is given."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._arrays import Value, as_array
from sgd_analysis._validation import kind_of

Criterion: TypeAlias = nn.Module | Callable[[Tensor, Tensor], Tensor]
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
_OF_VECTORS = {
    loss.forward
    for loss in (
        nn.CosineEmbeddingLoss,
        nn.MultiLabelMarginLoss,
        nn.MultiLabelSoftMarginLoss,
        nn.MultiMarginLoss,
        nn.TripletMarginLoss,
        nn.TripletMarginWithDistanceLoss,
    )
}
_OF_CLASSES = {nn.CrossEntropyLoss.forward, nn.NLLLoss.forward}
if hasattr(nn, "LinearCrossEntropyLoss"):  # younger than the oldest torch that is supported
    _OF_CLASSES.add(nn.LinearCrossEntropyLoss.forward)


def denominator_of(criterion: Callable[..., Any]) -> Denominator:
    """Return what a criterion's mean divides by, as a function of the arguments of its call.

    Losses over classes divide by the number of targets that are not ignored, or by the sum of
    their class weights; losses over elements by the number of elements, losses over vectors by
    the number of vectors; all others, and criteria that are not torch's own, by the length of
    their first argument.
    """
    # None for a function; that of a subclass may divide by anything.
    forward: Any = getattr(type(criterion), "forward", None)
    if forward in _OF_CLASSES:
        return functools.partial(_n_targets, criterion)
    if forward in _ELEMENTWISE and getattr(criterion, "reduction", None) != "batchmean":
        return _n_elements
    if forward is nn.MarginRankingLoss.forward:
        return _n_elements_of_all
    if forward in _OF_VECTORS:
        return _n_vectors
    if forward is nn.CTCLoss.forward:  # (time steps, samples, classes)
        return lambda input, *_, **__: float(input.shape[1]) if input.ndim == 3 else 1.0
    return length_of_first


def batch_size_of(criterion: Callable[..., Any]) -> Denominator:
    """Return how many samples a criterion is given, as a function of the arguments of its call.

    They may be fewer than its mean divides by: a sample may have several elements or targets.
    """
    denominator = denominator_of(criterion)
    if _counts_targets(denominator):
        return _n_predictions
    return denominator if denominator is _n_vectors else length_of_first


def of_each(
    denominator: Denominator, predictions: Iterable[Any], targets: Iterable[Any]
) -> NDArray[np.float64]:
    """Return the denominators (k,) of k batches; of tensors (k, ...) without visiting each."""
    if isinstance(predictions, Tensor) and isinstance(targets, Tensor):
        if denominator in (_n_elements, _n_vectors, _n_predictions, length_of_first):
            return np.full(len(targets), float(denominator(predictions[0], targets[0])))
        if _counts_targets(denominator) and not targets.is_floating_point():
            counts = _count_for_each(denominator.args[0], targets)
            return as_array(counts.reshape(len(targets), -1).sum(dim=1)).astype(np.float64)
    pairs = zip(predictions, targets, strict=True)
    return np.array([float(denominator(*pair)) for pair in pairs])


def _counts_targets(denominator: Denominator) -> TypeGuard[functools.partial[Value]]:
    return isinstance(denominator, functools.partial) and denominator.func is _n_targets


def _n_targets(criterion: Any, input: Tensor, target: Tensor) -> Value:
    if target.is_floating_point():  # a distribution over the classes for each sample
        return input.numel() / input.shape[1 if input.ndim > 1 else 0]
    if target.is_cpu and (criterion.weight is None or criterion.reduction != "mean"):
        if criterion.ignore_index is None:
            return float(target.numel())
        return float(np.count_nonzero(target.numpy() != criterion.ignore_index))
    return _plain(_count_for_each(criterion, target).sum())


def _count_for_each(criterion: Any, target: Tensor) -> Tensor:
    """Return what each target counts for: its class weight, or 1; and 0 if it is ignored."""
    ignored = criterion.ignore_index
    used: Tensor = (
        torch.ones_like(target, dtype=torch.bool) if ignored is None else (target != ignored)
    )
    if criterion.weight is None or criterion.reduction != "mean":
        return used
    counts: Tensor = criterion.weight.detach()[torch.where(used, target, 0)].mul(used)
    return counts


def _n_elements(*args: Any, **kwargs: Any) -> Value:
    if not kwargs and args[0].shape == args[1].shape:  # most often, and far faster
        return float(args[0].numel())
    # What comes after predictions and targets, a variance for instance, adds no element.
    return _product_of_shapes(_tensors(args, kwargs)[:2])


def _n_elements_of_all(*args: Any, **kwargs: Any) -> Value:
    return _product_of_shapes(_tensors(args, kwargs))


def _n_vectors(*args: Any, **kwargs: Any) -> Value:
    shape = _tensors(args, kwargs)[0].shape  # (..., features)
    return float(math.prod(shape[:-1]))


def length_of_first(*args: Any, **kwargs: Any) -> Value:
    """Return the length of the first tensor that a criterion is called with."""
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, Tensor):
            return float(argument.shape[0]) if argument.ndim else 1.0
    return 1.0


def _n_predictions(input: Tensor, *_: Any, **__: Any) -> float:
    return float(input.shape[0]) if input.ndim > 1 else 1.0  # (samples, classes, ...), (classes,)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    return [argument for argument in (*args, *kwargs.values()) if isinstance(argument, Tensor)]


def _product_of_shapes(tensors: list[Tensor]) -> float:
    shapes = {tensor.shape for tensor in tensors}
    return float(math.prod(torch.broadcast_shapes(*shapes)))


def _plain(count: Tensor) -> Value:
    return count.item() if count.is_cpu else count


def mean_criterion(criterion: object) -> None:
    """Raise unless `criterion` can be called, and takes the plain mean over samples if it says.

    Raises:
        TypeError: if it is not callable.
        ValueError: if its reduction is another, or it weights the classes.
    """
    if not callable(criterion):
        raise TypeError(
            "criterion must be callable as criterion(predictions, targets), got "
            f"{kind_of(criterion)}"
        )
    reduction = getattr(criterion, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(
            "criterion must take the mean over the samples it is given: construct it with "
            f'reduction="mean", got reduction={reduction!r}'
        )
    if getattr(criterion, "weight", None) is not None:
        raise ValueError(
            "criterion must take the plain mean over samples, got one with class weights, whose "
            "mean divides by the weights' sum"
        )


def mean_loss(criterion: Criterion, predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the criterion's mean over a batch, or raise if one could not train on it.

    Args:
        criterion: as in `FiniteSum`.
        predictions: (n, ...) what the model gives.
        targets: (n, ...) what it should give.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: if the shapes differ, or the loss is not one number.
    """
    # Tensors of shapes (n, 1) and (n,) would broadcast to (n, n), most often without a warning.
    if targets.is_floating_point() and predictions.shape != targets.shape:
        raise ValueError(
            "predictions and targets must have the same shape, got "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}: reshape one of them"
        )
    loss = criterion(predictions, targets)
    if not isinstance(loss, Tensor) or loss.ndim:
        given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
        raise ValueError(
            f"criterion must return a scalar tensor, the mean over the batch, got {given}"
        )
    return loss


def require_gradient(loss: Tensor) -> None:
    """Raise unless a loss depends on the weights.

    Raises:
        ValueError: if it has no gradient.
    """
    if not loss.requires_grad:
        raise ValueError(
            "criterion must return a loss that depends on the weights, got one without a "
            "gradient: remove .detach(), .item() or torch.no_grad() on its way"
        )
