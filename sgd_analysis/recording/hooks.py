"""What hooks need to stay out of the user's way."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch


class Guard:
    """Wraps hooks so that they neither end a loop by an error nor are compiled with it.

    After the first error none of them does anything any more. They stay where they are until they
    are taken off: torch may be going through them just then.

    Args:
        failed: called with that error.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed: Callable[[Exception], None] = failed
        self._works = True

    def stop(self) -> None:
        """Let the hooks do nothing any more, and keep nobody alive who is to hear of errors."""
        self._works = False
        self._failed = _ignore

    def __call__(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook without what would disturb the loop."""
        is_compiled = torch.compiler.is_dynamo_compiling

        def guarded(*args: Any) -> Any:
            if self._works and not is_compiled():
                try:
                    return hook(*args)
                except Exception as error:
                    self._works = False
                    self._failed(error)
            return None

        return guarded


def _ignore(error: Exception) -> None:
    pass


class InertInCopies(functools.partial[Any]):
    """A hook that does nothing in a copy of the object it hangs on, pickled or deep.

    A copy holds a function of the standard library instead that takes any arguments and returns
    None, so that a pickled criterion loads where this package is not installed, too.
    """

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")


def is_running(frame: FrameType) -> bool:
    """Return whether a frame is on the stack of the caller."""
    caller: FrameType | None = sys._getframe(1)
    while caller is not None and caller is not frame:
        caller = caller.f_back
    return caller is not None
