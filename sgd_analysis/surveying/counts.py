"""How many samples a batch stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._criteria import (
    Denominator,
    batch_size_of,
    denominator_of,
    length_of_first,
    of_each,
)
from sgd_analysis._loss_graph import reductions_below
from sgd_analysis.surveying.batches import length_of

_UNKNOWN = (
    "the model returns one number a batch (its own mean loss?), which does not say how many "
    "samples that is a mean over: give n_samples=, a function of (predictions, targets), such as "
    "lambda predictions, targets: len(targets)"
)
_UNKNOWN_OF_MODEL = (
    "the loss that the model returns does not say over how many samples, or tokens, it is a mean: "
    "give n_samples=, a function of (output, batch), such as lambda output, batch: "
    '(batch["labels"][:, 1:] != -100).sum() for next tokens'
)
_KNOWN_OF_SOME = (
    "over how many samples the loss is a mean can be told of some batches and not of others: give "
    "n_samples=, a function of (predictions, targets)"
)
_BY_VALUES = ("NllLoss", "Sum")  # nodes over as many as the values, not the shapes alone, say


class Read(NamedTuple):
    """What the graph of a batch's loss says of it; nan where it does not."""

    denominator: float = math.nan
    n_samples: float = math.nan
    is_sum: bool = False
    by_values: bool = False  # another batch of the same shape may have another denominator
    by_targets: Denominator | None = None  # where the targets say which

    @property
    def tells_of_others(self) -> bool:
        """Whether other batches of the same shape can do without their graphs."""
        return self.by_targets is not None or not self.by_values

    def of_others(self, predictions: Any, targets: Tensor) -> list[Read]:
        """Return what the graphs of others (k, ...) of the same shape would say."""
        if self.by_targets is None:
            return [self] * len(targets)
        each = of_each(self.by_targets, predictions, targets)
        return [self._replace(denominator=float(one)) for one in each]


UNREAD = Read()


class Counts:
    """What batches' means divide by, and their numbers of samples.

    Args:
        criterion: a module's means tell, where it is torch's own or has predictions with a length;
            of a function, and None, where the model computes its loss, the graph of the loss does.
        given: the user's function of (predictions, targets), where there is one.
    """

    def __init__(
        self, criterion: Callable[..., Any] | None, given: Callable[..., float] | None
    ) -> None:
        self._given, self._is_own = given, criterion is None
        self.reads_graph = given is None and not isinstance(criterion, nn.Module)
        self._is_known: bool | None = None  # by the graphs
        plain: Any = criterion
        self._denominator, self._samples = denominator_of(plain), batch_size_of(plain)

    def read(self, loss: Tensor, targets: Any) -> Read:
        """Return what the graph of a batch's loss says, as far as it is needed.

        Raises:
            ValueError: if it says nothing, and that of another batch did.
        """
        if not self.reads_graph:
            return UNREAD
        found = [
            one  # but no sum that a factor may have made a mean
            for one in reductions_below([loss])
            if not one.is_sum or _is_added(one.node, loss)
        ]
        if self._is_known not in (None, bool(found)):
            raise ValueError(_KNOWN_OF_SOME)
        self._is_known = bool(found)
        if not found:
            return UNREAD
        first, node = found[0], found[0].node
        return Read(
            denominator=float(first.denominator),
            n_samples=float(first.n_samples),
            is_sum=first.is_sum,
            by_values=any(one.node.name().startswith(_BY_VALUES) for one in found),
            by_targets=_of_classes(node, targets) if len(found) == 1 else None,
        )

    def of(
        self, predictions: Any, targets: Any, read: Sequence[Read]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what each of k batches' means divides by (k,), and their numbers of samples (k,).

        Raises:
            ValueError: if nobody says how many samples a batch stands for.
        """
        uncounted = self._is_own or not all(map(_can_be_counted, predictions, targets))
        denominator = self._denominators(predictions, targets, read, uncounted=uncounted)
        if not uncounted:
            return denominator, of_each(self._samples, predictions, targets)
        n_samples = map(_first_known, (one.n_samples for one in read), targets, denominator)
        return denominator, np.array(list(n_samples), dtype=np.float64)

    def _denominators(
        self, predictions: Any, targets: Any, read: Sequence[Read], *, uncounted: bool
    ) -> NDArray[np.float64]:
        if self._given is not None:
            denominator = of_each(self._given, predictions, targets)
            if not (np.isfinite(denominator).all() and denominator.min() >= 0):
                raise ValueError(f"n_samples must give numbers >= 0, got {denominator}")
            return denominator
        if self._is_known:
            return np.array([one.denominator for one in read])
        if uncounted and self._denominator is length_of_first:
            raise ValueError(_UNKNOWN_OF_MODEL if self._is_own else _UNKNOWN)
        return of_each(self._denominator, predictions, targets)


def _is_added(node: Any, loss: Tensor) -> bool:
    """Return whether a node's value is a summand of a loss, without a factor."""
    pending: list[Any] = [loss.grad_fn]
    while pending:
        one = pending.pop()
        if one is node:
            return True
        if one is not None and one.name() == "AddBackward0" and one._saved_alpha == 1:
            pending += [below for below, _ in one.next_functions]
    return False


def _of_classes(node: Any, targets: Any) -> Denominator | None:
    """Return what a loss over classes divides by, if its node has got the targets as they are."""
    if not (node.name().startswith("NllLoss") and isinstance(targets, Tensor)):
        return None
    own, ignored = node._saved_target, node._saved_ignore_index
    if own.data_ptr() != targets.data_ptr() or own.numel() != targets.numel():
        return None
    signed = ignored - (ignored >> 63 << 64)  # it comes without a sign
    reduction = "sum" if node._saved_reduction == 2 else "mean"
    return denominator_of(nn.NLLLoss(node._saved_weight, None, signed, reduction=reduction))


def _can_be_counted(predictions: Any, targets: Any) -> bool:
    """Return whether a batch's number of samples can be read off what the criterion is given."""
    of = predictions if isinstance(predictions, Tensor) else targets
    return isinstance(of, Tensor) and of.ndim > 0


def _first_known(read: float, batch: Any, denominator: float) -> float:
    if not math.isnan(read):
        return read
    length = length_of(batch)
    return denominator if length is None else length
