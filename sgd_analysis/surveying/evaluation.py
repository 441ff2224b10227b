"""A model's batch losses and their gradients at fixed weights, several batches at once."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from sgd_analysis._arrays import as_array
from sgd_analysis._criteria import (
    _batch_size,
    batch_size_of,
    denominator_of,
    of_each,
    require_gradient,
)
from sgd_analysis._random_state import RandomStates
from sgd_analysis._validation import kind_of
from sgd_analysis._weights import trainable
from sgd_analysis.surveying.drawing import is_of_torch, watched
from sgd_analysis.surveying.kept_state import KeptState

Batch: TypeAlias = tuple[Any, Any]
# Losses, gradients, predictions, targets.
_Raw: TypeAlias = tuple[Tensor, Tensor, Any, Any]
_Run: TypeAlias = tuple[list[Any], list[Any], tuple[Tensor, Tensor] | None]  # and both stacked

_WORKSPACE = 32 << 20  # bytes, about, for the batches that are evaluated at once
_MOST_AT_ONCE = 1 << 14
_MOST_FROM_WORKERS = 64  # each tensor from a worker process holds a file open
_FEWEST_AT_ONCE = 32  # of fewer, or of larger ones, the plain loop makes as short work


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
    """A model and its criterion as a function of a batch alone.

    Forward passes run on copies of the parameters and buffers, so that what they write (a batch
    norm's running statistics, say) reaches neither the model nor the next batch. What they leave
    in attributes of the modules is put back before each, and at last by `restore`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[..., Any],
        n_samples: Callable[..., float] | None,
    ) -> None:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module  # the wrapper would wait for the other ranks
        self._whole = _Whole(model, criterion)
        self._given, self._counted = n_samples, denominator_of(criterion)
        self._samples = batch_size_of(criterion)
        self.takes_sums = getattr(criterion, "reduction", "mean") == "sum"
        self.modules = list(self._whole.modules())[1:]  # without the whole itself
        named = dict(self._whole.named_parameters())
        # Tied parameters come once, and those of the criterion are no weights.
        weights = {id(parameter) for parameter in trainable(model)}
        self._weights = {name: p for name, p in named.items() if id(p) in weights}
        self._originals: dict[str, Tensor] = {**named, **dict(self._whole.named_buffers())}
        self._copies = {name: self._copy(name) for name in self._originals}
        # Torch's own modules keep nothing from call to call, save in buffers: to look at those
        # of others is enough between two forward passes.
        own = [module for module in self.modules if is_of_torch(module)]
        tensors = list(self._originals.values())
        self._kept = KeptState([self._whole], apart_from=tensors)
        others = [one for one in [self._whole, *self.modules] if one not in set(own)]
        self.generators = self._kept.generators
        self._at_start = self.states()
        self._kept_between = KeptState(others, apart_from=[*tensors, *own])
        self.is_known = len(others) == 1 and is_of_torch(criterion)
        self.first: tuple[Any, Any, Tensor] | None = None
        self.n_forward = 0
        self.drawing: set[nn.Module] = set()  # of the modules, as far as looked for
        self._vectorises = True
        self._is_tried = False

    @property
    def row_bytes(self) -> int:
        """The bytes that one batch's gradient takes."""
        return sum(p.numel() * max(p.itemsize, 4) for p in self._weights.values())

    def batches(self, loader: Iterable[Any]) -> Iterator[list[Batch]]:
        """Yield the batches in lists, as many at once as fit into the workspace."""
        batches = iter(loader)
        most = _MOST_FROM_WORKERS if getattr(loader, "num_workers", 0) else _MOST_AT_ONCE
        while first := list(itertools.islice(batches, 1)):
            _check_pairs(first)
            n_at_once = min(self._n_in_workspace(*first[0]), most)
            rest = list(itertools.islice(batches, n_at_once - 1))
            _check_pairs(rest)
            yield first + rest

    def evaluate(self, batches: list[Batch]) -> Iterator[Evaluated]:
        """Yield what is found of some batches, those of the same shapes together.

        Raises:
            ValueError: if the loss is not one number that depends on the weights, if nobody says
                how many samples it stands for, or if random numbers were drawn to compute it.
        """
        before = self.states()
        found = list(self._evaluate(batches))
        if self.states() != before:
            before.restore()
            raise ValueError(self._refusal(*batches[0]))
        for raw in found:
            yield self.as_means(*raw)

    def as_means(
        self,
        loss: Tensor,
        gradient: Tensor,
        predictions: Any,
        targets: Any,
        spread: NDArray[np.float64] | None = None,
    ) -> Evaluated:
        """Return what was found of k batches by their samples, spread (3, k) included."""
        denominator, n_samples = self.counts(predictions, targets)
        mean, rows = as_array(loss).astype(np.float64), as_array(gradient)
        spread = np.zeros((3, len(mean))) if spread is None else spread
        if self.takes_sums:
            with np.errstate(all="ignore"):
                mean, spread = mean / denominator, spread / denominator
                rows = (rows / denominator[:, None]).astype(rows.dtype)
        return Evaluated(mean, denominator, n_samples, rows, *spread)

    def restore(self) -> None:
        """Undo what forward passes have left in attributes of the modules, and the generators."""
        self._kept.restore()
        self._at_start.restore()

    def states(self) -> RandomStates:
        """Return where all generators stand that a forward pass may draw from."""
        return RandomStates(self.generators)

    def counts(
        self, predictions: Any, targets: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what each of k batches' means divides by (k,), and their numbers of samples (k,).

        Raises:
            ValueError: if nobody says how many samples a batch stands for.
        """
        if self._given is not None:
            denominator = of_each(self._given, predictions, targets)
            if not (np.isfinite(denominator).all() and denominator.min() >= 0):
                raise ValueError(f"n_samples must give numbers >= 0, got {denominator}")
        uncounted = not all(map(_can_be_counted, predictions, targets))
        if self._given is not None:
            samples = denominator if uncounted else of_each(self._samples, predictions, targets)
            return denominator, samples
        if uncounted and self._counted is _batch_size:
            raise ValueError(
                "the model returns one number a batch (its own mean loss?), which does not say "
                "how many samples that is a mean over: give n_samples=, a function of "
                "(predictions, targets), such as lambda predictions, targets: len(targets)"
            )
        denominator = of_each(self._counted, predictions, targets)
        return denominator, of_each(self._samples, predictions, targets)

    def find_drawing(self, inputs: Any, targets: Any) -> None:
        """Add to `drawing` the modules that draw in the forward pass of a batch."""
        before = self.states()
        self.call(inputs, targets, watch=True)
        before.restore()

    def _refusal(self, inputs: Any, targets: Any) -> str:
        self.find_drawing(inputs, targets)
        names = [
            f"{name.removeprefix('model.')!r}"
            for name, one in self._whole.named_modules()
            if one in self.drawing and name.startswith("model.")
        ]
        where = f" (in {', '.join(names[:5])})" if names else ""
        return (
            f"the model draws random numbers when it is evaluated{where}, as dropout in training "
            "mode does, so that its loss is another one each time: give draws=64, say, for the "
            "mean over seeded draws with its standard error; or call model.eval() first. Where a "
            "batch norm is to stay in training mode, put only the modules that draw in "
            "evaluation mode: for one in model.modules(): if isinstance(one, torch.nn.Dropout): "
            "one.eval()"
        )

    def _evaluate(self, batches: list[Batch]) -> Iterator[_Raw]:
        for inputs, targets, stacked in _runs(batches, stack=self._vectorises):
            at_once = None if stacked is None else self._all_at_once(*stacked)
            yield at_once or self._one_by_one(inputs, targets)

    def _all_at_once(self, inputs: Tensor, targets: Tensor) -> _Raw | None:
        if not self._is_tried:
            # By plain automatic differentiation, which finds out what is wrong with a model or a
            # loss, and says so in the usual words.
            self.one(inputs[0], targets[0])
            self._is_tried = True
        if not self._vectorises:
            return None
        self._kept_between.restore()
        self.n_forward += 1
        tensors = self._tensors()
        weights = {name: tensors[name].detach() for name in self._weights}

        def loss_at(weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Any:
            return functional_call(self._whole, {**tensors, **weights}, (inputs, targets))

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
        return loss, gradient, predictions, targets

    def _one_by_one(self, inputs: list[Any], targets: list[Any]) -> _Raw:
        each = [self.one(*pair) for pair in zip(inputs, targets, strict=True)]
        losses, gradients, predictions = map(list, zip(*each, strict=True))
        return torch.stack(losses), torch.stack(gradients), predictions, targets

    def one(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor, Any]:
        """Return the loss (), the gradient (n_parameters,) and the predictions of one batch."""
        tensors = self._tensors()
        loss, predictions = self.call(inputs, targets)
        if self.first is None:
            self.first = inputs, targets, loss.detach()
        require_gradient(loss)
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
            _dense_sum(both, like).flatten()
            for *both, like in zip(by_copy, by_another_way, originals, strict=True)
        ]
        return loss.detach().reshape(()), _side_by_side(gradients), _detached(predictions)

    def call(
        self,
        inputs: Any,
        targets: Any,
        *,
        mode: dict[nn.Module, bool] | None = None,
        watch: bool = False,
    ) -> tuple[Tensor, Any]:
        """Return loss and predictions, with some modules in another mode, or watched as they draw.

        Raises:
            ValueError: if the loss is not one number.
        """
        self._kept_between.restore()
        self.n_forward += 1
        before = [(module, module.training) for module in mode or ()]
        try:
            for module, training in (mode or {}).items():
                module.training = training
            with watched(self.modules if watch else [], self.generators) as drawing:
                loss, predictions = functional_call(
                    self._whole, dict(self._tensors()), (inputs, targets)
                )
        finally:
            for module, training in before:
                module.training = training
        self.drawing |= drawing
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
            raise ValueError(
                "criterion must return one number as a tensor, the mean (or the sum) over the "
                f"batch, got {given}"
            )
        return loss, predictions

    def _n_in_workspace(self, inputs: Any, targets: Any) -> int:
        if _layout((inputs, targets)) is None:
            return 1
        # Gradients are there more than once, and in double precision, too; activations are taken
        # to be some times as large as what goes in.
        n_bytes: int = 4 * self.row_bytes + 16 * (inputs.nbytes + targets.nbytes)
        return max(_WORKSPACE // n_bytes, 1)

    def _tensors(self) -> dict[str, Tensor]:
        """Return the copies, having replaced those that the last forward pass has written to."""
        for name, copy in self._copies.items():
            if copy._version:
                self._copies[name] = self._copy(name)
        return self._copies

    def _copy(self, name: str) -> Tensor:
        return self._originals[name].detach().clone().requires_grad_(name in self._weights)


class _Whole(nn.Module):
    """A model and its criterion as one module; the criterion's hooks do not see its calls.

    They belong to whoever records the loop. The model's own hooks may be part of its function,
    as a weight norm's are, and run.
    """

    def __init__(self, model: nn.Module, criterion: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.criterion = model, criterion
        has_hooks = isinstance(criterion, nn.Module)
        has_hooks &= type(criterion).__call__ is nn.Module.__call__
        plain: Any = criterion
        self._call = (plain.forward if has_hooks else plain,)  # in a tuple, lest it be a submodule

    def forward(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        predictions = self.model(inputs)
        return self._call[0](predictions, targets), predictions


def _check_pairs(batches: list[Any]) -> None:
    # Over thousands of batches of one sample these checks take as long as the gradients, save in
    # this way.
    if set(map(type, batches)) <= {tuple, list} and set(map(len, batches)) <= {2}:
        return
    for batch in batches:
        is_sequence = isinstance(batch, (tuple, list))
        if not is_sequence or len(batch) != 2:
            given = f"{len(batch)} items" if is_sequence else kind_of(batch)
            raise TypeError(f"loader must yield pairs (inputs, targets), one a batch, got {given}")


def _runs(batches: list[Batch], *, stack: bool) -> Iterator[_Run]:
    """Yield the inputs and targets of consecutive batches of the same shapes, stacked or not."""
    inputs, targets = ([batch[which] for batch in batches] for which in (0, 1))
    if not stack or len(batches) < _FEWEST_AT_ONCE:
        yield inputs, targets, None
        return
    try:  # which is the fastest way to compare their shapes, too
        stacked = torch.stack(inputs), torch.stack(targets)
        if (stacked[0].dtype, stacked[1].dtype) == (inputs[0].dtype, targets[0].dtype):
            yield inputs, targets, stacked
            return
    except (RuntimeError, TypeError):
        pass
    runs = [list(run) for _, run in itertools.groupby(batches, key=_layout)]
    for run in runs:
        yield from _runs(run, stack=len(runs) > 1 and _layout(run[0]) is not None)


def _layout(batch: Batch) -> tuple[Any, ...] | None:
    inputs, targets = batch
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        return None
    return inputs.shape, inputs.dtype, targets.shape, targets.dtype


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.to(parts[0].device) for part in parts], dim=-1)


def _dense_sum(parts: Iterable[Tensor | None], like: Tensor) -> Tensor:
    dense = [part.to_dense() for part in parts if part is not None]
    return (
        torch.stack(dense).sum(dim=0) if len(dense) > 1 else (dense or [torch.zeros_like(like)])[0]
    )


def _can_be_counted(predictions: Any, targets: Any) -> bool:
    """Return whether a batch's number of samples can be read off what the criterion is given."""
    of = predictions if isinstance(predictions, Tensor) else targets
    return isinstance(of, Tensor) and of.ndim > 0


def _detached(predictions: Any) -> Any:
    return predictions.detach() if isinstance(predictions, Tensor) else predictions
