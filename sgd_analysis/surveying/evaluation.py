"""A model's batch losses and their gradients at fixed weights, several batches at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from sgd_analysis._arrays import as_array
from sgd_analysis._criteria import require_gradient
from sgd_analysis.surveying.batches import Batch, in_runs
from sgd_analysis.surveying.counts import UNREAD, Counts, Read
from sgd_analysis.surveying.forward import Forward

# Losses, gradients, predictions, targets, and what the graphs of the losses say.
_Raw: TypeAlias = tuple[Tensor, Tensor, Any, Any, list[Read]]


_DRAWS = "give draws=64, say, for the mean over seeded draws with its standard error; or "


class Evaluated(NamedTuple):
    """Some batches at fixed weights, (k,) each, and gradient (k, P).

    Where random numbers are drawn, loss and gradient are means over draws; error and noise_error
    are standard errors, and noise is what the modules that draw add by their training mode.
    """

    loss: NDArray[np.float64]
    denominator: NDArray[np.float64]
    n_samples: NDArray[np.float64]
    gradient: NDArray[Any]
    error: NDArray[np.float64]
    noise: NDArray[np.float64]
    noise_error: NDArray[np.float64]


class FixedWeights:
    """The losses and gradients of batches at a model's present weights.

    Args:
        model: any module with something to train.
        criterion: what the batches' losses are; None where the model returns them.
        n_samples: how many samples a batch counts for, where the user says so.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Any] | None,
        n_samples: Callable[..., float] | None,
    ) -> None:
        self.forward = Forward(model, criterion)
        self.counts = Counts(criterion, n_samples)
        self.takes_sums = getattr(criterion, "reduction", "mean") == "sum"
        self.first: tuple[Any, Any, Tensor] | None = None  # batch, and its loss
        self._weights = self.forward.copies.weights
        self._vectorises = True
        self._is_tried = False

    @property
    def row_bytes(self) -> int:
        """The bytes that one batch's gradient takes."""
        return sum(p.numel() * max(p.itemsize, 4) for p in self._weights.values())

    def evaluate(self, batches: list[Batch]) -> Iterator[Evaluated]:
        """Yield what is found of some batches, those of the same shapes together.

        Raises:
            ValueError: if the loss is not one number that depends on the weights, if nobody says
                how many samples it stands for, or if random numbers were drawn to compute it.
        """
        before = self.forward.states()
        found = list(self._evaluate(batches))
        if self.forward.states() != before:
            before.restore()
            raise ValueError(self.refusal(*batches[0], instead=_DRAWS))
        for raw in found:
            yield self.as_means(*raw)

    def as_means(
        self,
        loss: Tensor,
        gradient: Tensor,
        predictions: Any,
        targets: Any,
        read: Sequence[Read],
        spread: NDArray[np.float64] | None = None,
    ) -> Evaluated:
        """Return what was found of k batches by their samples, spread (3, k) included."""
        denominator, n_samples = self.counts.of(predictions, targets, read)
        mean, rows = as_array(loss).astype(np.float64), as_array(gradient)
        spread = np.zeros((3, len(mean))) if spread is None else spread
        sums = np.array([self.takes_sums or one.is_sum for one in read])
        if sums.any():
            with np.errstate(all="ignore"):
                divisor = np.where(sums, denominator, 1.0)
                mean, spread = mean / divisor, spread / divisor
                rows = (rows / divisor[:, None]).astype(rows.dtype)
        return Evaluated(mean, denominator, n_samples, rows, *spread)

    def one(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor, Any, Read]:
        """Return the loss (), the gradient (n_parameters,) and the predictions of one batch.

        And what the graph of the loss says of it.
        """
        tensors = self.forward.copies.fresh()
        loss, predictions = self.forward.call(inputs, targets)
        if self.first is None:
            self.first = inputs, targets, loss.detach()
        require_gradient(loss)
        read = self.counts.read(loss, targets)
        originals = list(self._weights.values())
        copies = [tensors[name] for name in self._weights]
        parts = torch.autograd.grad(loss, [*copies, *originals], allow_unused=True)
        by_copy, by_another_way = parts[: len(copies)], parts[len(copies) :]
        if any(part is not None for part in by_another_way):
            # A module (an LSTM) that holds its parameters in a list, too, uses those: they have
            # the same values, and what it makes of the copies and of them adds up. All batches
            # have to be evaluated in this way, then.
            self._vectorises = False
        gradients = [
            dense_sum(both, like).flatten()
            for *both, like in zip(by_copy, by_another_way, originals, strict=True)
        ]
        return loss.detach().reshape(()), _side_by_side(gradients), _detached(predictions), read

    def _evaluate(self, batches: list[Batch]) -> Iterator[_Raw]:
        for inputs, targets, stacked in in_runs(batches, stack=self._vectorises):
            at_once = None if stacked is None else self._all_at_once(*stacked)
            yield at_once or self._one_by_one(inputs, targets)

    def _all_at_once(self, inputs: Tensor, targets: Tensor) -> _Raw | None:
        read = UNREAD
        if not self._is_tried or self.counts.reads_graph:
            # By plain automatic differentiation, which finds out what is wrong with a model or a
            # loss, and says so in the usual words.
            read = self.one(inputs[0], targets[0])[-1]
            self._is_tried = True
        if not (self._vectorises and read.tells_of_others):
            return None
        tensors = self.forward.prepared()
        weights = {name: tensors[name].detach() for name in self._weights}

        def loss_at(weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Any:
            return functional_call(self.forward.whole, {**tensors, **weights}, (inputs, targets))

        evaluate = vmap(grad_and_value(loss_at, has_aux=True), in_dims=(None, 0, 0))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about operations that only run one by one
                found, (loss, predictions) = evaluate(weights, inputs, targets)
                gradient = _side_by_side([part.flatten(1) for part in found.values()])
        except Exception:
            # Branches that depend on data, writing in place, functions that torch.func does not
            # know: the plain loop can do it, or raises the error that belongs to the model.
            self._vectorises = False
            return None
        if not isinstance(predictions, Tensor):
            return None
        return loss, gradient, predictions, targets, read.of_others(predictions, targets)

    def _one_by_one(self, inputs: list[Any], targets: list[Any]) -> _Raw:
        each = [self.one(*pair) for pair in zip(inputs, targets, strict=True)]
        losses, gradients, predictions, read = map(list, zip(*each, strict=True))
        return torch.stack(losses), torch.stack(gradients), predictions, targets, read

    def refusal(self, inputs: Any, targets: Any, *, instead: str = "") -> str:
        """Return why a model that draws random numbers is refused, and what to do."""
        self.forward.find_drawing(inputs, targets)
        names = [
            f"{name.removeprefix('model.')!r}"
            for name, one in self.forward.whole.named_modules()
            if one in self.forward.drawing and name.startswith("model.")
        ]
        where = f" (in {', '.join(names[:5])})" if names else ""
        return (
            f"the model draws random numbers when it is evaluated{where}, as dropout in training "
            f"mode does, so that its loss is another one each time: {instead}call model.eval() "
            "first. Where a batch norm is to stay in training mode, put only the modules that "
            "draw in evaluation mode: for one in model.modules(): if isinstance(one, "
            "torch.nn.Dropout): one.eval()"
        )


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.to(parts[0].device) for part in parts], dim=-1)


def dense_sum(parts: Iterable[Tensor | None], like: Tensor) -> Tensor:
    """Return the sum of some gradients of one parameter, those that there are."""
    dense = [part.to_dense() for part in parts if part is not None]
    return (
        torch.stack(dense).sum(dim=0) if len(dense) > 1 else (dense or [torch.zeros_like(like)])[0]
    )


def _detached(predictions: Any) -> Any:
    return predictions.detach() if isinstance(predictions, Tensor) else predictions
