"""A forward pass that leaves no trace, neither in the model nor for the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from sgd_analysis._random_state import RandomStates
from sgd_analysis._weights import trainable
from sgd_analysis.surveying.calling import called, own_loss
from sgd_analysis.surveying.drawing import is_of_torch, watched
from sgd_analysis.surveying.kept_state import KeptState


class Forward:
    """A model and its criterion, or its own loss, as a function of a batch alone.

    Forward passes run on copies of the parameters and buffers, so that what they write (a batch
    norm's running statistics, say) reaches neither the model nor the next batch. What they leave
    in attributes of the modules is put back before each, and at last by `restore`.
    """

    def __init__(self, model: nn.Module, criterion: Callable[..., Any] | None) -> None:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module  # the wrapper would wait for the other ranks
        self.whole = _Whole(model, criterion)
        self.copies = _Copies(self.whole, trainable(model))
        self.modules = list(self.whole.modules())[1:]  # without the whole itself
        self.n_passes = 0
        self.drawing: set[nn.Module] = set()  # of the modules, as far as looked for
        tensors = self.copies.originals.values()
        self._kept = KeptState([self.whole], apart_from=tensors)
        self.generators = self._kept.generators
        self._at_start = self.states()
        # Torch's own modules keep nothing from call to call, save in buffers: to look at those
        # of others is enough between two forward passes.
        own = [module for module in self.modules if is_of_torch(module)]
        others = [module for module in self.modules if not is_of_torch(module)]
        self._kept_between = KeptState([self.whole, *others], apart_from=[*tensors, *own])
        self.is_known = not others and is_of_torch(criterion)

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
        tensors = self.prepared()
        before = [(module, module.training) for module in mode or ()]
        try:
            for module, training in (mode or {}).items():
                module.training = training
            with watched(self.modules if watch else [], self.generators) as drawing:
                loss, predictions = functional_call(self.whole, dict(tensors), (inputs, targets))
        finally:
            for module, training in before:
                module.training = training
        self.drawing |= drawing
        self._check_is_one_number(loss)
        return loss, predictions

    def prepared(self) -> dict[str, Tensor]:
        """Return the tensors of the next pass, with all modules as they were before the first."""
        self._kept_between.restore()
        self.n_passes += 1
        return self.copies.fresh()

    def find_drawing(self, inputs: Any, targets: Any) -> None:
        """Add to `drawing` the modules that draw in the forward pass of a batch."""
        before = self.states()
        self.call(inputs, targets, watch=True)
        before.restore()

    def states(self) -> RandomStates:
        """Return where all generators stand that a forward pass may draw from."""
        return RandomStates(self.generators)

    def restore(self) -> None:
        """Undo what forward passes have left in attributes of the modules, and the generators."""
        self._kept.restore()
        self._at_start.restore()

    def _check_is_one_number(self, loss: Any) -> None:
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r}"
            is_own = self.whole.criterion is None
            who = "with criterion=None the model" if is_own else "criterion"
            raise ValueError(
                f"{who} must return one number as a tensor, the mean (or the sum) over the "
                f"batch, got {given}"
            )


class _Copies:
    """Copies of a module's parameters and buffers, those of the weights with gradients."""

    def __init__(self, module: nn.Module, weights: Iterable[nn.Parameter]) -> None:
        named = dict(module.named_parameters())
        # Tied parameters come once, and those of the criterion are no weights.
        wanted = {id(parameter) for parameter in weights}
        self.weights = {name: p for name, p in named.items() if id(p) in wanted}
        self.originals: dict[str, Tensor] = {**named, **dict(module.named_buffers())}
        self._copies = {name: self._copy(name) for name in self.originals}

    def fresh(self) -> dict[str, Tensor]:
        """Return the copies, having replaced those that the last forward pass has written to."""
        for name, copy in self._copies.items():
            if copy._version:
                self._copies[name] = self._copy(name)
        return self._copies

    def _copy(self, name: str) -> Tensor:
        return self.originals[name].detach().clone().requires_grad_(name in self.weights)


class _Whole(nn.Module):
    """A model and its criterion as one module; the criterion's hooks do not see its calls.

    They belong to whoever records the loop. The model's own hooks may be part of its function,
    as a weight norm's are, and run.
    """

    def __init__(self, model: nn.Module, criterion: Callable[..., Any] | None) -> None:
        super().__init__()
        self.model, self.criterion = model, criterion
        has_hooks = isinstance(criterion, nn.Module)
        has_hooks &= type(criterion).__call__ is nn.Module.__call__
        plain: Any = criterion
        self._call = (plain.forward if has_hooks else plain,)  # in a tuple, lest it be a submodule

    def forward(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        if self.criterion is None:
            outputs = called(self.model, inputs, spread=True)
            return own_loss(outputs), outputs
        outputs = called(self.model, inputs, spread=False)
        return self._call[0](outputs, targets), outputs
