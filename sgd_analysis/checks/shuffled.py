"""Mini-batches of a loader that shuffles."""

from __future__ import annotations

from typing import Literal

from sgd_analysis.checks.batches import require_batch_size, require_shuffled
from sgd_analysis.checks.descent import whole_run
from sgd_analysis.checks.messages import Said, told
from sgd_analysis.checks.points import BATCH_SIZE, BATCH_SIZES
from sgd_analysis.checks.rules import DIVIDED_INSIDE, require_rule, require_stop
from sgd_analysis.checks.steps import (
    require_count,
    require_descent,
    require_movement,
    steps_of,
    two_epochs,
)
from sgd_analysis.checks.tries import Loop, require_written

_SUMS = (
    "running",
    "unweighted",
    "undivided",
    "sum_of_means",
    "by_batches",
    "by_samples",
    "nothing",
    "by_minibatch",
    "by_padded",
    "by_all",
    "times_minibatch",
    "times_by_batches",
    "means_by_minibatch",
    "running_after",
    "only_last",
    "at_end",
)
_COMPARED = {name: name for name in _SUMS}
_COMPARED |= dict.fromkeys(DIVIDED_INSIDE, "divided_inside") | {"last": "last_batch"}


def mini_batches(sgd: Loop, *, language: Literal["en", "fr"] = "en") -> str:
    """Tell whether a loop makes a step on each mini-batch, or what is wrong.

    Its batches, steps and rule are tried on 25 points, of which the last batch has only five; then
    the whole of it on the source notebook's 2000 points, with its step size 0.0002 and its
    threshold 0.1.

    Args:
        sgd: takes f, w, t, eta, epsilon, nepoch, minibatch: as `gradient_descent` says, and the
            size of a batch. Returns the epoch, counted from one, whose running loss is the first
            below epsilon: the mean over all samples of the batches' losses, each before its step.
        language: of the sentence: "en", or "fr" for French.

    Returns:
        A sentence that begins with "right" or "not yet", in French with "juste" or "pas encore".

    Example:
        >>> import torch
        >>> from sgd_analysis import checks
        >>> def sgd(f, w, t, eta, epsilon, nepoch, minibatch):
        ...     for epoch in range(1, nepoch + 1):
        ...         for batch in t.split(minibatch):
        ...             loss = torch.nn.functional.mse_loss(f(w, batch[:, 0]), batch[:, 1])
        ...             loss.backward()
        ...             w.data -= eta * w.grad
        ...             w.grad.zero_()
        >>> checks.mini_batches(sgd)
        'not yet: the points come in the order of t: shuffle=True is missing'
        >>> print(checks.mini_batches(sgd, language="fr"))
        pas encore\u00a0: les points viennent dans l'ordre de t\u00a0: il manque shuffle=True
    """
    return told(_mini_batches, sgd, language)


def _mini_batches(sgd: Loop) -> Said:
    require_written(sgd, "f, w, t, eta, epsilon, nepoch, minibatch")
    n_batches, size = len(BATCH_SIZES), (BATCH_SIZE,)
    trial = two_epochs(sgd, calls=n_batches, settings=size)
    require_shuffled(trial)
    require_batch_size(sgd)
    require_movement(trial)
    steps = steps_of(trial)
    require_count(trial, steps, n_batches, "batch")
    require_descent(steps)
    require_stop(sgd, *size, calls=n_batches)
    require_rule(sgd, *size, calls=n_batches, names=_COMPARED)
    return whole_run(sgd, 0.0002, 0.1, 50, BATCH_SIZE, calls=10_000, expected=48, spread=1)
