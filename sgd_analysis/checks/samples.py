"""The naive loop: a step on each sample alone."""

from __future__ import annotations

from typing import Literal

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

_OTHERS = ("after", "running", "at_end", "root", "smallest", "largest")
_COMPARED = {"last": "last_sample"} | {name: name for name in _OTHERS}
_EPOCHS = 5


def one_sample_at_a_time(sgd: Loop, *, language: Literal["en", "fr"] = "en") -> str:
    """Tell whether a loop makes a step on each sample alone, in any order, or what is wrong.

    Its steps and its rule are tried on a few points, then five epochs of it at most on the source
    notebook's 2000 points, with the step size 0.00001 and the threshold 0.001.

    Args:
        sgd: takes f, w, t, eta, epsilon, nepoch, as `gradient_descent` says. Returns the epoch,
            counted from one, whose last sample's loss, before its step, is the first below
            epsilon; None if none is.
        language: of the sentence: "en", or "fr" for French.

    Returns:
        A sentence that begins with "right" or "not yet", in French with "juste" or "pas encore".

    Example:
        >>> from sgd_analysis import checks
        >>> def sgd(f, w, t, eta, epsilon, nepoch):
        ...     for epoch in range(1, nepoch + 1):
        ...         for x, y in t:
        ...             loss = (y - f(w, x)) ** 2
        ...             loss.backward()
        ...             w.data -= eta * w.grad
        ...         if loss < epsilon:
        ...             return epoch
        >>> checks.one_sample_at_a_time(sgd)
        'not yet: the gradients of the steps before are still in w.grad; clear it at each step'
        >>> print(checks.one_sample_at_a_time(print, language="fr"))
        pas encore\u00a0: f n'est jamais appelée\u00a0: le coût doit comparer f(w, x) à y
    """
    return told(_one_sample_at_a_time, sgd, language)


def _one_sample_at_a_time(sgd: Loop) -> Said:
    require_written(sgd, "f, w, t, eta, epsilon, nepoch")
    trial = two_epochs(sgd, calls=len(FEW))
    _require_single_samples(trial)
    require_movement(trial)
    steps = steps_of(trial)
    require_count(trial, steps, len(FEW), "sample")
    require_descent(steps)
    require_stop(sgd, calls=len(FEW))
    require_rule(sgd, calls=len(FEW), names=_COMPARED)
    calls = _EPOCHS * len(POINTS)
    whole = try_loop(sgd, POINTS, 0.00001, 0.001, _EPOCHS, calls=calls, quiet=False)
    if whole.returned is None:
        return Said("right_goes_on", epochs=_EPOCHS)
    return Said("right_epoch", epoch=epoch_in(whole.returned))


def _require_single_samples(trial: Try) -> None:
    fewest = min(len(call.inputs) for call in trial.calls)
    if fewest > 1:
        raise NotYet("all_at_once", n=fewest)
