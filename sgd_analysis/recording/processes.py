"""Several processes that train together: which this one is, and its gradients before averaging."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

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
    """This process's own gradients, copied as they are accumulated, before they are averaged.

    Args:
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(self, guard: Guard) -> None:
        self._hook = guard(self._copy)
        self._latest: dict[Tensor, Tensor] = {}
        self._handles: dict[Tensor, Any] = {}

    def watch(self, parameters: Sequence[Tensor]) -> None:
        """Watch these parameters from their next backward pass on."""
        for parameter in parameters:
            if parameter.requires_grad and parameter not in self._handles:
                handle = parameter.register_post_accumulate_grad_hook(self._hook)
                self._handles[parameter] = handle

    def take(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the gradients accumulated for the step that is made now, and forget them."""
        latest, self._latest = self._latest, {}
        return [latest.get(parameter) for parameter in parameters]

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles.values():
            handle.remove()
        self._handles, self._latest = {}, {}

    def _copy(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._latest[parameter] = parameter.grad.detach().clone()
