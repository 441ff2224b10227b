"""Several processes that train together: which this one is, and its gradients before averaging."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sgd_analysis.recording.hooks import Guard


def distributed() -> Any:
    """Return torch.distributed if the program uses it; it is not imported here."""
    module: Any = sys.modules.get("torch.distributed")
    return module if module and module.is_available() and module.is_initialized() else None


def has_several_processes() -> bool:
    """Return whether this process is one of several that train together."""
    found = distributed()
    return found is not None and found.get_world_size() > 1


class LocalGradients:
    """This process's own gradients, copied before they are accumulated and averaged.

    Those of several passes are added up here: where each pass is averaged, `.grad` holds what the
    other processes have computed, too, when the next one is added to it.

    Args:
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._arrived: dict[Tensor, Tensor] = {}  # of the pass that is running
        self._latest: dict[Tensor, Tensor] = {}
        self._handles: dict[Tensor, tuple[Any, Any]] = {}

    def watch(self, parameters: Sequence[Tensor]) -> None:
        """Watch these parameters from their next backward pass on."""
        for parameter in parameters:
            if parameter.requires_grad and parameter not in self._handles:
                arrives = self._guard(partial(self._arrives, weakref.ref(parameter)))
                self._handles[parameter] = (
                    parameter.register_hook(arrives),
                    parameter.register_post_accumulate_grad_hook(self._guard(self._accumulate)),
                )

    def take(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the gradients accumulated for the step that is made now, and forget them."""
        latest, self._latest = self._latest, {}
        return [latest.get(parameter) for parameter in parameters]

    def close(self) -> None:
        """Stop watching."""
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles, self._arrived, self._latest = {}, {}, {}

    def _arrives(self, known: weakref.ref[Tensor], gradient: Tensor | None) -> None:
        """Copy a gradient; `torch.autograd.grad` may have asked for it, and not accumulate it."""
        parameter = known()
        if parameter is None or gradient is None:
            return
        own = gradient.detach().clone()
        before = self._latest.get(parameter)
        if before is not None and parameter.grad is not None:
            accumulated = parameter.grad.detach()
            if accumulated.is_sparse:
                own = own + before if accumulated._nnz() else own
            else:  # a loop may have cleared it to zeros
                own = own + torch.where(accumulated.any(), before, torch.zeros_like(before))
        self._arrived[parameter] = own

    def _accumulate(self, parameter: Tensor) -> None:
        arrived = self._arrived.pop(parameter, None)
        if arrived is not None:
            self._latest[parameter] = arrived
