"""Trying a reader's function: whatever it does, it comes back, or what it did is told."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sgd_analysis._random_state import seed_all
from sgd_analysis.checks.errors import require_no_hole, told_error
from sgd_analysis.checks.messages import NotYet
from sgd_analysis.checks.points import Vector

Loop = Callable[..., Any]
_OFTEN = 5000  # two epochs of all 2000 points, one by one


@dataclass(frozen=True)
class Call:
    """A call of f: at which weights (3,), for which inputs (n,)."""

    weights: Vector
    inputs: Vector


@dataclass(frozen=True)
class Try:
    """What a loop has done with its points: its calls of f, and what it left and returned."""

    calls: list[Call]
    weights: Vector
    gradient: Vector | None
    returned: Any


class _TooManyCalls(BaseException):
    """Not an Exception, which a loop might catch by itself."""


class _Model:
    """The parabola f(w, x), which counts its calls, and ends a loop that does not end."""

    def __init__(self, weights: Tensor, at_most: int, keep: bool) -> None:
        self.calls: list[Call] = []
        self.n_calls = 0
        self._weights, self._at_most, self._keep = weights, at_most, keep

    def __call__(self, w: Any, x: Any) -> Any:
        if x is self._weights:
            raise NotYet("swapped")
        value = w[0] * x * x + w[1] * x + w[2]
        self.n_calls += 1
        if self.n_calls > _OFTEN + 5 * self._at_most:  # it may end, with too many steps
            raise _TooManyCalls
        if self._keep:
            self.calls.append(Call(_vector(w), _vector(x)))
        return value


def try_loop(
    loop: Loop, points: Tensor, *settings: float, calls: int, quiet: bool = True, seed: int = 0
) -> Try:
    """Call a loop with f, fresh weights of zero, its points and settings.

    Args:
        loop: takes f, w, t and the settings.
        points: (n, 2) inputs and targets.
        settings: what the loop is given after its points, in order.
        calls: how many calls of f are enough.
        quiet: whether to hide its bars, too, and to keep its calls.
        seed: of the global generators.

    Returns:
        What it did.

    Raises:
        NotYet: if it raises, or goes on for ever.
    """
    w = torch.zeros(3, requires_grad=True)
    model = _Model(w, calls, keep=quiet)
    seed_all(seed)
    with _silence() if quiet else contextlib.redirect_stdout(io.StringIO()):
        try:
            returned = loop(model, w, points.clone(), *settings)
        except _TooManyCalls:
            raise NotYet("endless", calls=model.n_calls, enough=calls) from None
        except NotYet:
            raise
        except (Exception, SystemExit) as error:
            raise NotYet(told_error(error, loop, w)) from None
    code = getattr(loop, "__code__", None)
    if not model.n_calls and ... in getattr(code, "co_consts", ()):
        raise NotYet("hole", where="")
    gradient = None if w.grad is None else _vector(w.grad)
    return Try(model.calls, _vector(w), gradient, returned)


def require_written(function: object, names: str) -> None:
    """Refuse what does not take so many arguments, or has a hole.

    Args:
        function: what a reader has given to be checked.
        names: what the arguments are called, with commas between them.

    Raises:
        NotYet: if it is no function, or one of other arguments, or has a hole.
    """
    if not callable(function):
        raise NotYet("not_a_function", given=function)
    try:
        inspect.signature(function).bind(*names.split(", "))
    except TypeError as error:
        raise NotYet("signature", names=names, message=error) from None
    require_no_hole(function)


def printed_by(function: Loop, *arguments: object) -> str:
    """Return what a function prints.

    Args:
        function: a reader's.
        arguments: what it is given.

    Returns:
        Its standard output.

    Raises:
        NotYet: if it raises.
    """
    with _silence() as printed:
        try:
            function(*arguments)
        except (Exception, SystemExit) as error:
            raise NotYet(told_error(error, function)) from None
    return printed.getvalue()


@contextlib.contextmanager
def _silence() -> Iterator[io.StringIO]:
    """Show no output, bar or warning.

    Yields:
        What would have been printed.
    """
    printed, start = io.StringIO(), tqdm.__init__

    def hidden(bar: tqdm, *arguments: Any, **settings: Any) -> None:
        start(bar, *arguments, **(settings | {"disable": True}))

    tqdm.__init__ = hidden  # a notebook's bars begin here, too
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield printed
    finally:
        tqdm.__init__ = start


def _vector(values: Any) -> Vector:
    copied: Vector = torch.as_tensor(values).detach().double().numpy().reshape(-1).copy()
    return copied
