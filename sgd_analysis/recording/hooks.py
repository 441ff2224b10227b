"""What hooks need to stay out of the user's way."""

from __future__ import annotations

import contextlib
import functools
import sys
from types import FrameType
from typing import Any


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
