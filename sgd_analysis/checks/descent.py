"""Gradient descent: a step an epoch, with all points."""

from __future__ import annotations

from typing import Any, Literal

from torch.overrides import TorchFunctionMode

from sgd_analysis.checks.messages import NotYet, Said, told
from sgd_analysis.checks.points import FEW, POINTS
from sgd_analysis.checks.rules import epoch_in, require_rule, require_stop
from sgd_analysis.checks.steps import (
    require_count,
    require_descent,
    require_movement,
    steps_of,
    two_epochs,
)
from sgd_analysis.checks.tries import Loop, Try, require_written, try_loop

_ARGUMENTS = "f, w, t, eta, epsilon, nepoch"
_COMPARED = {"last": "loss", "after": "after", "undivided": "sum_of_squares", "root": "root"}


def gradient_descent(sgd: Loop, *, language: Literal["en", "fr"] = "en") -> str:
    """Tell whether a loop is gradient descent on the mean of the squares, or what is wrong.

    Its steps and its rule are tried on a few points, then the whole of it on the source notebook's
    2000 points, with its step size 0.0002 and its threshold 0.1.

    Args:
        sgd: takes f, w, t, eta, epsilon, nepoch: a model f(w, x), its weights (3,), which the loop
            changes, the points (n, 2), a row each (input, target), the step size, the threshold,
            and how many epochs to make at most. Returns the epoch, counted from one, whose loss,
            before its step, is the first below epsilon; None if none is.
        language: of the sentence: "en", or "fr" for French.

    Returns:
        A sentence that begins with "right" or "not yet", in French with "juste" or "pas encore".

    Example:
        >>> from sgd_analysis import checks
        >>> def sgd(f, w, t, eta, epsilon, nepoch):
        ...     x, y = t[:, 0], t[:, 1]
        ...     for epoch in range(1, nepoch + 1):
        ...         loss = ((y - f(w, x)) ** 2).mean()
        ...         loss.backward()
        ...         w.data += eta * w.grad
        ...         w.grad.zero_()
        ...         if loss < epsilon:
        ...             return epoch
        >>> checks.gradient_descent(sgd)
        'not yet: w went uphill; which sign takes it down?'
        >>> print(checks.gradient_descent(sgd, language="fr"))
        pas encore\u00a0: w remonte la pente\u202f; quel signe le fait descendre\u202f?
    """
    return told(_gradient_descent, sgd, language)


def ready_made_loss(sgd: Loop, *, language: Literal["en", "fr"] = "en") -> str:
    """Tell whether a loop is gradient descent with the loss of `torch.nn.MSELoss`.

    Args:
        sgd: as `gradient_descent` wants it.
        language: of the sentence: "en", or "fr" for French.

    Returns:
        A sentence that begins with "right" or "not yet", in French with "juste" or "pas encore".

    Example:
        >>> from sgd_analysis import checks
        >>> checks.ready_made_loss(print)
        'not yet: f is never asked for anything: the loss should compare f(w, x) with y'
        >>> print(checks.ready_made_loss(print, language="fr"))
        pas encore\u00a0: f n'est jamais appelée\u00a0: le coût doit comparer f(w, x) à y
    """
    return told(_ready_made_loss, sgd, language)


def _gradient_descent(sgd: Loop) -> Said:
    require_written(sgd, _ARGUMENTS)
    trial = two_epochs(sgd, calls=1)
    require_all_points(trial)
    require_movement(trial)
    steps = steps_of(trial)
    require_count(trial, steps, 1, "step")
    require_descent(steps)
    require_stop(sgd, calls=1)
    require_rule(sgd, calls=1, names=_COMPARED)
    return whole_run(sgd, 0.0002, 0.1, 10_000, calls=10_000, expected=9340, spread=5)


def _ready_made_loss(sgd: Loop) -> Said:
    finding = _gradient_descent(sgd)
    with _Asked() as asked:
        try_loop(sgd, FEW, 0.0, 0.0, 1, calls=1)
    if "mse_loss" not in asked.names:
        raise NotYet("not_ready_made")
    return finding


def require_all_points(trial: Try) -> None:
    """Refuse a try whose loop never asks f for all points at once.

    Raises:
        NotYet: if it is so.
    """
    most = max(len(call.inputs) for call in trial.calls)
    if most < len(FEW):
        raise NotYet("not_all", n=most, of=len(FEW))


def whole_run(loop: Loop, *settings: float, calls: int, expected: int, spread: int) -> Said:
    """Let a loop whose parts are right run on all points, and say where it ends.

    Args:
        loop: takes f, w, t and the settings.
        settings: what it is given after the points.
        calls: how many calls of f are enough.
        expected: the epoch in which it should end.
        spread: by how many epochs another processor's rounding may move that.

    Returns:
        That it is right, with the epoch and the weights.

    Raises:
        NotYet: if it ends elsewhere.
    """
    trial = try_loop(loop, POINTS, *settings, calls=calls, quiet=False)
    epoch = epoch_in(trial.returned)
    if epoch is None or abs(epoch - expected) > spread:
        raise NotYet("whole", returned=repr(trial.returned), expected=expected)
    return Said("right_weights", epoch=epoch, weights=tuple(trial.weights))


class _Asked(TorchFunctionMode):
    """The names of PyTorch's functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))
