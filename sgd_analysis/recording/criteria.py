"""Hooks on the criteria: of each of their calls, its loss and how many samples it is about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sgd_analysis._arrays import Value
from sgd_analysis._validation import kind_of
from sgd_analysis.recording.hooks import Guard, InertInCopies
from sgd_analysis.recording.sizes import Sizes, given_sizes, sizes_of


class Criteria:
    """The criteria of a loop, each call of which is told as soon as it has a loss.

    Args:
        criteria: the modules to hang hooks on.
        n_samples: their number, or the user's own function of what they are called with; None to
            know oneself.
        called: called with the number of the criterion, its loss, denominator and n_samples.
        size_failed: called with the criterion and the error if the last two cannot be told, and
            are nan.
        guard: wraps a hook so that no error of it reaches the loop.

    Raises:
        TypeError: if a criterion takes no hooks.
    """

    def __init__(
        self,
        criteria: Iterable[nn.Module],
        n_samples: float | Callable[..., float] | None,
        called: Callable[[int, Tensor, Value, Value], None],
        size_failed: Callable[[nn.Module, Exception], None],
        guard: Guard,
    ) -> None:
        self._called, self._size_failed = called, size_failed
        self._handles: list[Any] = []
        try:
            for index, criterion in enumerate(criteria):
                sizes = sizes_of(criterion) if n_samples is None else given_sizes(n_samples)
                hook = InertInCopies(guard(self._hook(index, sizes)))
                self._handles.append(_hooked(criterion, hook))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, index: int, sizes: Sizes) -> Callable[..., None]:
        def after_forward(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            loss = output if isinstance(output, Tensor) else _loss_in(output)
            if loss is None or not loss.requires_grad or _is_transformed(loss):
                return
            try:
                denominator, n_samples = sizes(*args, **kwargs)
            except Exception as error:
                denominator = n_samples = math.nan
                self._size_failed(module, error)
            self._called(index, loss, denominator, n_samples)

        return after_forward


def _hooked(criterion: nn.Module, hook: Callable[..., None]) -> Any:
    """Hang a hook on a criterion.

    Returns:
        Its handle.

    Raises:
        TypeError: if it takes none.
    """
    try:
        return criterion.register_forward_hook(hook, with_kwargs=True)
    except RuntimeError as error:
        raise TypeError(
            f"{kind_of(criterion)} takes no hooks ({error}): leave it out, and tell the "
            "number of samples by recorder.observe(loss, n_samples)"
        ) from None


def _loss_in(output: Any) -> Tensor | None:
    """Return the loss in what a criterion returns, the first tensor in it that has a gradient."""
    loss = getattr(output, "loss", None)
    parts = [loss] if isinstance(loss, Tensor) else output
    if isinstance(parts, dict):
        parts = list(parts.values())
    if isinstance(parts, (tuple, list)):
        return next((p for p in parts if isinstance(p, Tensor) and p.requires_grad), None)
    return None


def _is_transformed(tensor: Tensor) -> bool:
    """Return whether a tensor is inside torch.func's transformations, and has no value yet."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))
