"""What a loss is a mean of, read off its graph: where no criterion is at hand that could tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgd_analysis._arrays import Value

_MEAN, _SUM = 1, 2  # as nodes number the reductions

# Between a loss and what it is made of: nodes that scale it, add to it, or only pass it on.
_ARITHMETIC = {"AddBackward0", "SubBackward0", "NegBackward0", "MulBackward0", "MulBackward1"}
_SAME = {
    "AliasBackward0",
    "CloneBackward0",
    "SqueezeBackward0",
    "StackBackward0",  # of losses, to be added up or averaged
    "ToCopyBackward0",
    "UnsqueezeBackward0",
    "ViewBackward0",
}
_QUOTIENTS = {"DivBackward0", "DivBackward1"}
_TRANSPARENT = _ARITHMETIC | _SAME | _QUOTIENTS
_OVER_ALL = {"MeanBackward0", "SumBackward0"}
_OF_CLASSES = {"NllLossBackward0", "NllLoss2DBackward0"}
_OF_ELEMENTS = {
    "BinaryCrossEntropyBackward0",
    "BinaryCrossEntropyWithLogitsBackward0",
    "HuberLossBackward0",
    "MseLossBackward0",
    "SmoothL1LossBackward0",
    "SoftMarginLossBackward0",
}
_OF_VECTORS = {"MultiMarginLossBackward0", "MultilabelMarginLossBackward0"}
_LOSSES = _OF_CLASSES | _OF_ELEMENTS | _OF_VECTORS
# Nodes of a model that keep its rows: what is one sample above is one below.
_OF_ROWS = _OF_CLASSES | {
    "AddBackward0",
    "AddmmBackward0",
    "AbsBackward0",
    "DivBackward0",
    "GeluBackward0",
    "LogSigmoidBackward0",
    "LogSoftmaxBackward0",
    "MulBackward0",
    "NativeDropoutBackward0",
    "NativeLayerNormBackward0",
    "PowBackward0",
    "ReluBackward0",
    "SigmoidBackward0",
    "SiluBackward0",
    "SoftmaxBackward0",
    "SubBackward0",
    "TanhBackward0",
    "ToCopyBackward0",
}
_RESHAPES = {
    "ReshapeAliasBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "UnsafeViewBackward0",
    "ViewBackward0",
}
_DEPTH = 8  # the nodes looked at below a loss for a reshape
_WIDTH = 64  # and between a loss and all that it is made of


class Reduced(NamedTuple):
    """A mean, or a sum, over a batch that a loss is made of."""

    node: Any
    denominator: Value
    n_samples: Value  # nan where it cannot be told
    is_sum: bool
    is_known: bool  # to be a loss, and not just the mean of something
    rows: frozenset[int]  # the numbers of nodes whose results have the same rows


def reductions_below(losses: Sequence[Any]) -> list[Reduced]:
    """Return the mean over the batch that losses are, or several of the same sizes; else nothing.

    Penalties, factors and divisions do not count. The denominator of a loss over classes is the
    number of targets that are not ignored, or the sum of their class weights; that of one over
    elements their number. The number of samples is that of the rows, where it is plain that a row
    is a sample: not where sequences may have been flattened, or come with time first. Of losses of
    different rows, such as those of two batches, or of the steps of an episode, nothing is told.

    Nothing waits for a device, and nothing is computed anew that a checkpoint has dropped.
    """
    nodes: list[Any] = [getattr(loss, "grad_fn", None) for loss in losses]
    try:
        if len(nodes) == 1 and (name := _name(nodes[0])) in _LOSSES:  # most often
            return _that_go_together([_reduced(nodes[0], name)])
        return _that_go_together(list(_parts(nodes)))
    except RuntimeError:  # the graph is gone: backward() will say so
        return []


def _that_go_together(parts: Sequence[Reduced | None]) -> list[Reduced]:
    found = [part for part in parts if part is not None]
    known = [part for part in found if part.is_known]
    if len(found) < len(parts) and not known:
        return []
    found = known or found
    return found if all(_fits(part, found[0]) for part in found[1:]) else []


def sole_reduction(losses: Sequence[Any]) -> Any:
    """Return the node that losses are made of, but for factors and divisions; None of several."""
    try:
        nodes = list(_ends(getattr(loss, "grad_fn", None) for loss in losses))
    except RuntimeError:  # the graph is gone
        return None
    return nodes[0] if len(nodes) == 1 else None


def _parts(nodes: Iterable[Any]) -> Iterator[Reduced | None]:
    """Yield what losses are made of; None for each part that is neither a mean nor known."""
    for node in _ends(nodes):
        name = _name(node)
        yield _quotient(node) if name in _QUOTIENTS else _reduced(node, name)


def _ends(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield the nodes below those that scale a loss, add to it or only pass it on."""
    pending = list(nodes)
    for _ in range(_WIDTH):
        if not pending:
            return
        if (node := pending.pop()) is None:
            continue
        name = _name(node)
        if name in _QUOTIENTS and _quotient(node) is not None:
            yield node
        elif name in _TRANSPARENT or _is_of_several_losses(node, name):
            pending.extend(next(zip(*node.next_functions, strict=True)))
        else:
            yield node
    yield None  # too many to look at


def _is_of_several_losses(node: Any, name: str) -> bool:
    """Return whether a node adds up losses, or takes their mean."""
    return name in _OVER_ALL and _name(node.next_functions[0][0]) == "StackBackward0"


def _reduced(node: Any, name: str) -> Reduced | None:
    if name in _OF_CLASSES:
        return _of_classes(node, name)
    if name in _OF_ELEMENTS or name in _OF_VECTORS:
        reduction, shape = node._saved_reduction, _shape(node, "self")
        if shape is None or reduction not in (_MEAN, _SUM):
            return None
        size = math.prod(shape if name in _OF_ELEMENTS else shape[:-1])
        return _of_rows(node, shape, float(size), is_sum=reduction == _SUM, is_known=True)
    if name == "MeanBackward0":
        return _of_rows(node, node._saved_self_sym_sizes, float(node._saved_self_sym_numel))
    return None


def _of_classes(node: Any, name: str) -> Reduced | None:
    reduction, shape = node._saved_reduction, _shape(node, "self")
    if shape is None or reduction not in (_MEAN, _SUM):
        return None
    count = _saved(node, "total_weight")
    if reduction == _SUM and node._saved_weight is not None:  # it weighs, but does not divide
        target, ignored = _saved(node, "target"), node._saved_ignore_index
        if target is None:
            return None
        count = (target != ignored - (ignored >> 63 << 64)).sum()  # it comes without a sign
    if count is None:
        return None
    denominator = count.item() if count.is_cpu else count
    rows = shape if len(shape) > 1 else ()
    part = _of_rows(node, rows, denominator, is_sum=reduction == _SUM, is_known=True)
    if name == "NllLoss2DBackward0":  # its rows are samples: the classes come second
        return part._replace(n_samples=float(shape[0]))
    return part


def _quotient(node: Any) -> Reduced | None:
    """Return the mean that a sum is, divided by its number of rows or of elements."""
    total = node.next_functions[0][0]
    if _name(total) == "NegBackward0":
        total = total.next_functions[0][0]
    if _name(total) != "SumBackward0":
        return None
    other = node._saved_other if _name(node) == "DivBackward1" else _saved(node, "other")
    if isinstance(other, Tensor):
        if other.numel() != 1 or not other.is_cpu:
            return None
        other = other.item()
    shape = total._saved_self_sym_sizes
    if not shape or other not in (shape[0], math.prod(shape)):
        return None
    return _of_rows(total, shape, float(other))


def _of_rows(
    node: Any,
    shape: Sequence[int],
    denominator: Value,
    *,
    is_sum: bool = False,
    is_known: bool = False,
) -> Reduced:
    """Return what reduces a tensor of that shape, whose number of samples is nan if unsure.

    The nodes below it are gone through as far as what is a row of one is a row of the next.
    """
    whole = node
    rows, is_sure = [], len(shape) != 3  # or else sequences, maybe with time first
    for _ in range(_DEPTH):
        node, name = _below(node)
        if node is None or name == "AccumulateGrad":  # of a parameter
            break
        rows.append(node._sequence_nr())
        if name in _RESHAPES:
            is_sure = is_sure and not _flattens(node._saved_self_sym_sizes, shape)
        elif name not in _OF_ROWS:
            break
    n_samples = 1.0 if not shape else float(shape[0]) if is_sure else math.nan
    return Reduced(whole, denominator, n_samples, is_sum, is_known, frozenset(rows))


def _flattens(before: Sequence[int], shape: Sequence[int]) -> bool:
    """Return whether a tensor's rows are the steps of sequences that it had before a reshape."""
    if len(before) > 2 and shape and before[0] != shape[0]:
        return True
    return len(before) == 3 and 1 in before and math.prod(before) == math.prod(shape)


def _below(node: Any) -> tuple[Any, str]:
    """Return the node of what one works on, weights and biases left aside, and its name."""
    below = node.next_functions
    if type(node).__name__ == "AddmmBackward0":  # the activation comes between bias and weight
        found = below[1][0]
        return found, type(found).__name__
    for found, _ in below:
        if found is not None:
            return found, type(found).__name__
    return None, ""


def _name(node: Any) -> str:
    return type(node).__name__  # which costs less than its name()


def _shape(node: Any, name: str) -> torch.Size | None:
    saved = _saved(node, name)
    return None if saved is None else saved.shape


def _saved(node: Any, name: str) -> Tensor | None:
    """Return what a node has saved, unless hooks would have to bring it back: a checkpoint's."""
    raw = getattr(node, f"_raw_saved_{name}", None)
    if raw is None or getattr(raw, "unpack_hook", raw) is not None:
        return None
    saved: Tensor | None = getattr(node, f"_saved_{name}")
    return saved


def _fits(part: Reduced, other: Reduced) -> bool:
    """Return whether both are means, or both sums, of equally many, and of the same rows."""
    a, b = part.denominator, other.denominator
    if part.is_sum != other.is_sum or part.rows.isdisjoint(other.rows):
        return False
    if isinstance(a, Tensor) or isinstance(b, Tensor):  # whose values are on a device
        return a is b
    return a == b
