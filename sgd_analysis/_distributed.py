"""Several processes: each one's own gradients before they are averaged, and histories together."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from sgd_analysis._vectors import quiet
from sgd_analysis.history import History


def has_several_processes() -> bool:
    """Return whether this process is one of several that train together."""
    distributed = _distributed()
    return distributed is not None and distributed.get_world_size() > 1


class LocalGradients:
    """This process's own gradients, copied as they are accumulated, before they are averaged.

    Args:
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(self, guard: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
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


def gather(history: History) -> History | None:
    """Return on rank 0 the history of all processes together, on the others None.

    Raises:
        RuntimeError: if the ranks have recorded different numbers of steps or epochs.
    """
    distributed = _distributed()
    if distributed is None or distributed.get_world_size() == 1:
        return history
    counts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(counts, (history.n_steps, history.n_epochs))
    if len(set(counts)) > 1:
        raise RuntimeError(
            "the ranks must have recorded the same steps and epochs to be gathered, got "
            f"(n_steps, n_epochs) {counts}"
        )
    is_first = distributed.get_rank() == 0
    ranks: list[Any] | None = [None] * len(counts) if is_first else None
    distributed.gather_object(history, ranks)
    return None if ranks is None else _together(ranks)


@quiet
def _together(ranks: list[History]) -> History:
    """Return the global history: over the ranks, sums of sums or size-weighted means of means."""
    n_samples = np.sum([rank.n_samples for rank in ranks], axis=0)
    if ranks[0].metadata.get("reduction") == "sum":
        loss = np.sum([rank.loss for rank in ranks], axis=0)
    else:
        loss = np.sum([rank.n_samples * rank.loss for rank in ranks], axis=0) / n_samples
    return replace(
        ranks[0], loss=loss, n_samples=n_samples, local_gradients=None, ranks=tuple(ranks)
    )


def _distributed() -> Any:
    """Return torch.distributed if the program uses it; it is not imported here."""
    module: Any = sys.modules.get("torch.distributed")
    return module if module and module.is_available() and module.is_initialized() else None
