"""Which modules draw random numbers, and which would in training mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from sgd_analysis._random_state import RandomStates


@contextlib.contextmanager
def watched(modules: Iterable[nn.Module], generators: list[Any]) -> Iterator[set[nn.Module]]:
    """Find the modules that draw in their own forward pass, and not only in a module within.

    Yields:
        Those found, at the end of the block.
    """
    found: set[nn.Module] = set()
    running: list[tuple[nn.Module, RandomStates]] = []

    def look() -> RandomStates:
        """Return the states; what was drawn since the last look, the innermost module drew."""
        now = RandomStates(generators)
        if running and now != running[-1][1]:
            found.add(running[-1][0])
        return now

    def enter(module: nn.Module, *_: Any) -> None:
        running.append((module, look()))

    def leave(module: nn.Module, *_: Any) -> None:
        now = look()
        running.pop()
        if running:
            running[-1] = running[-1][0], now

    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def would_draw_in_training(
    modules: list[nn.Module], forward: Callable[[], object], generators: list[Any]
) -> bool:
    """Return whether a module that is now in evaluation mode draws in training mode, or may.

    Args:
        modules: all modules of a model.
        forward: one forward pass in training mode.
        generators: the generators that the modules hold.
    """
    silent = [module for module in modules if not module.training]
    if any(map(_drops, silent)):
        return True
    if all(map(is_of_torch, silent)):
        return False
    before = RandomStates(generators)
    try:
        forward()
    except Exception:
        return True  # nobody knows
    finally:
        after = RandomStates(generators)
        before.restore()
    return after != before


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RReLU):
        return module.lower != module.upper
    return isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and module.dropout > 0


def is_of_torch(part: object) -> bool:
    """Return whether a module or function is torch's own, whose ways are known."""
    name = getattr(part, "__module__", None) or type(part).__module__
    return name.startswith("torch.nn.")
