"""Several processes that train together: which this one is, and its gradients before averaging."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Sequence
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
    """This process's own gradients, copied as they are accumulated, before they are averaged.

    What `.grad` holds when a pass begins may be averaged already: then the pass's own gradient is
    added to the own ones before.

    Args:
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(self, guard: Guard) -> None:
        self._before, self._after = guard(self._look), guard(self._copy)
        self._latest: dict[Tensor, Tensor] = {}
        # Where a pass adds to a gradient: its own, and whether there is anything it is added to.
        self._added: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self._handles: dict[Tensor, list[Any]] = {}

    def watch(self, parameters: Sequence[Tensor]) -> None:
        """Watch these parameters from their next backward pass on."""
        for parameter in parameters:
            if parameter.requires_grad and parameter not in self._handles:
                before: Any = functools.partial(self._before, parameter)
                before.__torch_unserializable__ = True  # or pickling a tensor warns of it
                self._handles[parameter] = [
                    parameter.register_hook(before),
                    parameter.register_post_accumulate_grad_hook(self._after),
                ]

    def take(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the gradients accumulated for the step that is made now, and forget them."""
        latest, self._latest = self._latest, {}
        return [latest.get(parameter) for parameter in parameters]

    def close(self) -> None:
        """Stop watching."""
        for handle in itertools.chain(*self._handles.values()):
            handle.remove()
        self._handles, self._latest, self._added = {}, {}, {}

    def _look(self, parameter: Tensor, gradient: Tensor) -> None:
        there = parameter.grad
        self._added.pop(parameter, None)  # what torch.autograd.grad had asked for
        if there is not None:
            held = (there._values() if there.is_sparse else there).any()
            self._added[parameter] = gradient.detach().clone(), held

    def _copy(self, parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        added, so_far = self._added.pop(parameter, None), self._latest.get(parameter)
        if added is None:
            own = parameter.grad.detach().clone()
        else:
            own, held = added
            if so_far is not None:  # which counts unless it was cleared since, all zeros now
                own = own + (so_far * held if own.is_sparse else torch.where(held, so_far, 0))
        self._latest[parameter] = own
