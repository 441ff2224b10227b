"""Whether the gradients that a backward pass has left are still there."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from sgd_analysis.recording.gradients import on_this_process

# The gradients of all parameters, kept alive while a pass runs, and their versions.
State: TypeAlias = tuple[list[Tensor | None], list[int | None]]


def state(parameters: Iterable[Tensor]) -> State:
    """Return the gradients, and their versions, for `changed` to compare with after a pass."""
    gradients = [parameter.grad for parameter in parameters]
    for gradient in gradients:
        if gradient is not None:
            return gradients, [None if g is None else g._version for g in gradients]
    return gradients, gradients  # type: ignore[return-value]  # None has no version


class Mark(NamedTuple):
    """A gradient as a backward pass has left it."""

    parameter: Tensor
    gradient: weakref.ref[Tensor]  # without keeping it alive
    version: int
    held_anything: bool | Tensor | None = None  # None: it was not looked at

    @property
    def is_there(self) -> bool:
        """Whether the parameter has the same gradient still, clipped or cleared or not."""
        found = self.parameter.grad
        return found is not None and found is self.gradient()

    @property
    def is_untouched(self) -> bool:
        """Whether it is as it was, as far as versions tell: `grad.data.zero_()` leaves them so."""
        found = self.parameter.grad
        return found is not None and found is self.gradient() and found._version == self.version

    def with_contents(self) -> Mark:
        """Return it with a look at the gradient, which takes no waiting for a device."""
        gradient = self.gradient()
        if gradient is None:
            return self
        held = _holds_anything(on_this_process(gradient))
        return self._replace(held_anything=bool(held) if held.is_cpu else held)


def changed(parameters: Iterable[Tensor], before: State) -> Mark | None:
    """Return the first gradient that is another one than before, or has changed; None if none."""
    for parameter, known, version in zip(parameters, *before, strict=False):
        gradient = parameter.grad
        if gradient is not None and (gradient is not known or gradient._version != version):
            return Mark(parameter, weakref.ref(gradient), gradient._version)
    return None


def was_cleared(mark: Mark, parameters: Iterable[Tensor]) -> bool | Tensor:
    """Return whether gradients were cleared since a pass; a tensor if only a device knows."""
    if mark.is_untouched:
        if mark.held_anything is False:
            return False
        holds = _holds_anything(on_this_process(mark.parameter.grad))  # type: ignore[arg-type]
        if holds.is_cpu and holds:
            return False
        if isinstance(mark.held_anything, Tensor):
            return mark.held_anything & _all_zero(parameters)
    return _all_zero(parameters)


def _all_zero(parameters: Iterable[Tensor]) -> bool | Tensor:
    # Those of frozen parameters do not count: they may be left over from before.
    gradients = [
        on_this_process(p.grad) for p in parameters if p.grad is not None and p.requires_grad
    ]
    if all(gradient.is_cpu for gradient in gradients):
        return not any(_holds_anything(gradient) for gradient in gradients)
    flags = [_holds_anything(gradient).to(gradients[0].device) for gradient in gradients]
    return ~torch.stack(flags).any()


def _holds_anything(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        return torch.tensor(gradient._nnz() > 0)
    return gradient.any()
