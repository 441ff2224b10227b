"""Steps that an optimizer makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer, RMSprop
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sgd_analysis.checks.batches import require_batch_size, require_shuffled
from sgd_analysis.checks.messages import NotYet, Said, told
from sgd_analysis.checks.points import BATCH_SIZE, BATCH_SIZES, STEP_SIZE, Vector
from sgd_analysis.checks.rules import require_rule, require_stop
from sgd_analysis.checks.steps import (
    Step,
    close,
    elsewhere,
    require_count,
    steps_of,
    two_epochs,
)
from sgd_analysis.checks.tries import Loop, require_written

Method = Callable[..., Optimizer]
_OTHERS = ("running", "after", "at_end", "root", "smallest", "largest")
_COMPARED = {"last": "last_batch"} | {name: name for name in _OTHERS}


def optimizer_step(
    sgd: Loop, method: Method = RMSprop, *, language: Literal["en", "fr"] = "en"
) -> str:
    """Tell whether an optimizer makes the steps of a loop over mini-batches, or what is wrong.

    Args:
        sgd: takes f, w, t, lr, epsilon, nepoch, minibatch, as `mini_batches` says. Returns the
            epoch, counted from one, whose last batch's loss, before its step, is the first below
            epsilon; None if none is.
        method: a class of `torch.optim`, called with the weights and lr.
        language: of the sentence: "en", or "fr" for French.

    Returns:
        A sentence that begins with "right" or "not yet", in French with "juste" or "pas encore".

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader
        >>> from sgd_analysis import checks
        >>> def sgd(f, w, t, lr, epsilon, nepoch, minibatch):
        ...     optimizer = torch.optim.Adam([w], lr=lr)
        ...     loader = DataLoader(t, batch_size=minibatch, shuffle=True)
        ...     for epoch in range(1, nepoch + 1):
        ...         for batch in loader:
        ...             optimizer.zero_grad()
        ...             loss = torch.nn.functional.mse_loss(f(w, batch[:, 0]), batch[:, 1])
        ...             loss.backward()
        ...             optimizer.step()
        ...         if loss.item() < epsilon:
        ...             return epoch
        >>> checks.optimizer_step(sgd)
        'not yet: that is a step of Adam, and RMSprop was asked for'
        >>> checks.optimizer_step(sgd, torch.optim.Adam)
        'right'
        >>> checks.optimizer_step(sgd, torch.optim.Adam, language="fr")
        'juste'
    """
    return told(lambda loop: _optimizer_step(loop, method), sgd, language)


def _optimizer_step(sgd: Loop, method: Method) -> Said:
    require_written(sgd, "f, w, t, lr, epsilon, nepoch, minibatch")
    _require_usable(method)
    n_batches, size = len(BATCH_SIZES), (BATCH_SIZE,)
    trial = two_epochs(sgd, calls=n_batches, settings=size)
    require_shuffled(trial)
    require_batch_size(sgd)
    if not trial.weights.any():
        another = any(call.weights.any() for call in trial.calls)
        raise NotYet("copy" if another else _unmoved(sgd))
    steps = steps_of(trial)
    require_count(trial, steps, n_batches, "batch")
    _require_method(steps, method)
    require_stop(sgd, *size, calls=n_batches)
    require_rule(sgd, *size, calls=n_batches, names=_COMPARED)
    return Said("right")


def _require_usable(method: object) -> None:
    """Refuse what is asked for if it makes no optimizer of weights and lr, or none that steps.

    Raises:
        NotYet: if so, with what it is.
    """
    w = torch.zeros(3, requires_grad=True)
    w.grad = torch.zeros(3)
    try:
        method([w], lr=STEP_SIZE).step()  # type: ignore[operator]
    except Exception:
        made = isinstance(method, Optimizer)
        given = f"{type(method).__name__}(…)" if made else repr(method)
        raise NotYet("not_a_method", given=given) from None


def _unmoved(sgd: Loop) -> str:
    """Return the key of why a loop leaves w where it was, from what it does with an optimizer."""
    given: list[Tensor] = []
    changed: list[Tensor] = []
    reached: list[Tensor] = []

    def watched(f: object, w: Tensor, *others: object) -> object:
        given.append(w)
        w.register_hook(reached.append)
        return sgd(f, w, *others)

    def noting(optimizer: Optimizer, *_: object) -> None:
        changed.extend(one for group in optimizer.param_groups for one in group["params"])

    handle = register_optimizer_step_pre_hook(noting)
    try:
        two_epochs(watched, calls=len(BATCH_SIZES), settings=(BATCH_SIZE,))
    finally:
        handle.remove()
    if not changed:
        return "not_stepped" if reached else "no_optimizer_step"
    if not any(one is given[0] for one in changed):
        return "other_tensor"
    return "no_optimizer_step" if reached else "no_backward"


def _require_method(steps: list[Step], method: Method) -> None:
    """Refuse steps that are not those of the method, with the gradient of each batch alone.

    Raises:
        NotYet: if one is not.
    """
    gradients = [step.gradients()[-1] for step in steps]
    expected = _replayed(method, steps, gradients)
    wrong = next((k for k, step in enumerate(steps) if not _leads(step, expected[k])), None)
    if wrong is None:
        return
    raise NotYet(
        _wrong_use(steps, gradients, method, expected)
        or _other_method(steps, gradients, method)
        or elsewhere(
            steps[wrong], wrong + 1, expected[wrong], Said("of_method", method=_name(method))
        )
    )


def _wrong_use(
    steps: list[Step], gradients: list[Vector], method: Method, expected: list[Vector]
) -> Said | None:
    """Return what else the steps are of the same method, if they are."""
    if _same(steps, _replayed(method, steps, np.cumsum(gradients, axis=0))):
        return Said("kept")
    for n, what in ((len(steps) // 2, "epoch"), (1, "batch")):
        if _same(steps, _replayed_anew(method, steps, gradients, n)):
            return Said("fresh", what=Said(what))
    wanted = np.array([end - step.before for step, end in zip(steps, expected, strict=True)])
    moved = np.array([step.moved for step in steps])
    ratio = float(np.sum(moved * wanted) / np.sum(wanted**2))
    if all(map(close, moved, ratio * wanted)):
        return Said("other_lr", lr=f"{ratio * STEP_SIZE:.3g}", given=STEP_SIZE)
    return None


def _replayed_anew(
    method: Method, steps: list[Step], gradients: list[Vector], n: int
) -> list[Vector]:
    """Return the same as `_replayed`, with a new optimizer after each n steps."""
    parts = [slice(k, k + n) for k in range(0, len(steps), n)]
    ends = [_replayed(method, steps[part], gradients[part]) for part in parts]
    return [weights for part in ends for weights in part]


def _other_method(steps: list[Step], gradients: list[Vector], method: Method) -> Said | None:
    """Return which other method the first step is of, if it is of one."""
    for other in (SGD, RMSprop, Adam):
        first = _replayed(other, steps[:1], gradients[:1])
        if _name(other) != _name(method) and _same(steps[:1], first):
            return Said("other_method", found=_name(other), wanted=_name(method))
    return None


def _replayed(method: Method, steps: list[Step], gradients: Any) -> list[Vector]:
    """Return where the method leads from the weights before each step, with these gradients."""
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer, ends = method([w], lr=STEP_SIZE), []
    for step, gradient in zip(steps, gradients, strict=True):
        with torch.no_grad():
            w.copy_(torch.from_numpy(step.before))
        w.grad = torch.tensor(gradient)
        optimizer.step()
        ends.append(w.detach().numpy().copy())
    return ends


def _same(steps: list[Step], ends: list[Vector]) -> bool:
    return all(map(_leads, steps, ends))


def _leads(step: Step, end: Vector) -> bool:
    return close(step.moved, end - step.before)


def _name(method: Method) -> str:
    return getattr(method, "__name__", str(method))
