"""The moment of a step: once for each, when its gradients are there and nothing has moved yet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

import torch

from sgd_analysis.recording.hooks import Guard, InertInCopies, is_running

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


class Steps:
    """Hooks on an optimizer that tell of each of its steps once.

    Of a step with a closure the moment is the end of the closure's first evaluation: before it,
    gradients are missing or stale.

    Args:
        optimizer: whose steps.
        begins: called just before the update.
        ends: called after it, with whether it had a closure; never for a step that raises.
        guard: wraps a hook so that no error of it reaches the loop.
        starts: called when the step is entered, before any closure of it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        begins: Callable[[], None],
        ends: Callable[[bool], None],
        guard: Guard,
        starts: Callable[[], None] | None = None,
    ) -> None:
        self._begins, self._ends, self._starts = begins, ends, starts
        self._after_closure = guard(begins)
        self._frame: FrameType | None = None  # of the step being made, if one is
        self._has_closure = self._awaits_closure = False
        self._handles = [
            optimizer.register_step_pre_hook(InertInCopies(guard(self._before))),
            optimizer.register_step_post_hook(InertInCopies(guard(self._after))),
        ]

    def remove(self) -> bool:
        """Take the hooks off, if torch is not just going through them.

        Returns:
            Whether it was not.
        """
        if self._frame is not None and is_running(self._frame):
            return False
        self._frame = None
        for handle in self._handles:
            handle.remove()
        return True

    def _before(
        self, optimizer: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        # A subclass that calls super().step() comes here twice, and a step that raised has never
        # come to `_after`. Only the stack tells one from the other.
        if self._frame is not None and is_running(self._frame):
            return None
        self._frame = sys._getframe(2)  # of the step that called the guard
        if self._starts is not None:
            self._starts()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        self._has_closure = self._awaits_closure = callable(closure)
        if not callable(closure):
            self._begins()
            return None
        closure = self._then_begins(closure)
        if len(args) > 1:
            return (args[0], closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure}

    def _then_begins(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            loss = closure(*args, **kwargs)
            if self._awaits_closure:
                self._awaits_closure = False
                self._after_closure()
            return loss

        return evaluate

    def _after(self, optimizer: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._frame is not sys._getframe(2):
            return
        self._frame = None
        if self._awaits_closure:  # the optimizer has not called it
            self._awaits_closure = False
            self._begins()
        self._ends(self._has_closure)
