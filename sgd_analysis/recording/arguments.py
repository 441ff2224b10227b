"""What `record` is given is refused unless it can be recorded, each time with a way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._validation import kind_of, positive_number
from sgd_analysis.history.also import MAY_BE_ASKED_FOR, NAMES, SEEN
from sgd_analysis.history.history import History


def check_kinds(
    optimizer: object,
    criteria: Iterable[object],
    *,
    n_samples: object,
    gradients: object,
    weights: object,
    history: object,
) -> None:
    """Raise unless the arguments are of their kinds.

    Raises:
        TypeError: if one is of another.
        ValueError: if `gradients` names no way to record them, or a number is out of range.
    """
    _check_optimizer(optimizer)
    for criterion in criteria:
        if not isinstance(criterion, nn.Module):
            raise TypeError(
                "each criterion must be a module such as torch.nn.MSELoss(), got "
                f"{kind_of(criterion)}: give none for a loss that is a function; it is "
                "recorded all the same, and n_samples=, or recorder.observe(loss, n_samples) in "
                "the loop, tells the number of samples"
            )
    _check_n_samples(n_samples)
    if gradients not in ("auto", "norms", "none"):
        raise ValueError(f'gradients must be "auto", "norms" or "none", got {gradients!r}')
    if not isinstance(weights, bool):
        raise TypeError(f"weights must be True or False, got {weights!r}")
    if history is not None and not isinstance(history, History):
        raise TypeError(f"history must be a History, got {kind_of(history)}")


def _check_n_samples(n_samples: object) -> None:
    if n_samples is not None and not callable(n_samples):
        if isinstance(n_samples, bool) or not isinstance(n_samples, Real):
            raise TypeError(
                "n_samples must be the number of samples in each backward pass, or a function of "
                "what the criterion is called with, such as lambda predictions, targets: "
                f"len(targets), got {n_samples!r}"
            )
        positive_number("n_samples", float(n_samples))


def _check_optimizer(optimizer: object) -> None:
    is_torchs = isinstance(optimizer, torch.optim.Optimizer)
    if not is_torchs or not hasattr(optimizer, "_optimizer_step_pre_hooks"):  # a wrapper has none
        raise TypeError(
            "optimizer must be a torch.optim.Optimizer that takes hooks, got "
            f"{kind_of(optimizer)}{_way_out(optimizer)}"
        )


def _way_out(optimizer: object) -> str:
    for name in ("optimizer", "opt", "base_optimizer"):
        if isinstance(getattr(optimizer, name, None), torch.optim.Optimizer):
            return f": give its `{name}`"
    framework = type(optimizer).__module__.split(".")[0]
    if framework in ("fastai", "keras"):
        return f": the callback of sgd_analysis.frameworks.{framework} records it"
    return ""


def checked_also(also: object) -> tuple[str, ...]:
    """Return what else to record, each name once.

    Raises:
        TypeError: if it is no list of names.
        ValueError: if a name stands for nothing.
    """
    if isinstance(also, str) or not isinstance(also, Iterable):
        raise TypeError(f'also must be a list of names, such as ["update_norm"], got {also!r}')
    names = tuple(dict.fromkeys(also))
    unknown = [name for name in names if name not in MAY_BE_ASKED_FOR]
    if unknown:
        raise ValueError(f"also may name {', '.join(MAY_BE_ASKED_FOR)}, got {unknown[0]!r}")
    return names


def names_of_parameters(named: object, optimizer: torch.optim.Optimizer) -> dict[Tensor, str]:
    """Return the names that are given to parameters; those of others count for nothing.

    Raises:
        TypeError: if they are no pairs of a name and a parameter.
        ValueError: if two parameters have one name, or one of the optimizer's has none.
    """
    if named is None:
        return {}
    names = _names(list(named) if isinstance(named, Iterable) else [named])
    known = dict.fromkeys(p for group in optimizer.param_groups for p in group["params"])
    if unnamed := [p for p in known if p not in names]:
        raise ValueError(
            f"named_parameters must name all of the optimizer's {len(known)} parameters, and "
            f"{len(unnamed)} have no name, one of shape {tuple(unnamed[0].shape)} the first"
        )
    _check_differ([names[parameter] for parameter in known])
    return names


def _check_differ(names: Iterable[str]) -> None:
    """Raise unless each parameter has a name of its own.

    Raises:
        ValueError: if two have the same.
    """
    if twice := [name for name, n_times in Counter(names).items() if n_times > 1]:
        raise ValueError(f"named_parameters must give each its own name, got {twice[0]!r} twice")


def _names(pairs: Iterable[object]) -> dict[Tensor, str]:
    """Return the first name that pairs of a name and a parameter have for each.

    Raises:
        TypeError: if one is no such pair.
    """
    names: dict[Tensor, str] = {}
    for pair in pairs:
        match pair:
            case (str(name), Tensor() as parameter):
                names.setdefault(parameter, name)
            case _:
                raise TypeError(
                    "named_parameters must be pairs of a name and a parameter, as "
                    f"model.named_parameters() gives them, got {pair!r}"
                )
    return names


def check_source_of_loss(loss: object, n_criteria: int) -> None:
    """Raise unless there is something to take a step's loss from.

    Raises:
        ValueError: if there is not.
    """
    if loss not in ("objective", "criteria") or (loss == "criteria" and not n_criteria):
        raise ValueError(
            'loss must be "objective", or "criteria" together with at least one of them, got '
            f"{loss!r} and {n_criteria} criteria"
        )


def check_continues(
    history: History | None,
    *,
    reduction: str,
    n_parameters: int,
    gradients: str,
    weights: bool,
    also: Iterable[str],
) -> None:
    """Raise unless a run with these settings can continue a history.

    Raises:
        ValueError: if the reduction is another, the history has more parameters, or something
            that was recorded would not be, or the other way round.
    """
    if history is None or not history.n_steps:
        return
    before = history.metadata.get("reduction", "mean")
    if (before == "sum") != (reduction == "sum"):
        raise ValueError(
            f"history must continue with the reduction it began with, {before!r}, got criteria "
            f"with {reduction!r}"
        )
    had_gradients = history.gradients is not None
    _check_goes_on("gradients", had_gradients, gradients != "none", repr(gradients))
    _check_goes_on("weights", history.kept_weights is not None, weights, repr(weights))
    had = dict.fromkeys(NAMES, False) | dict.fromkeys(history.also, True)
    had[SEEN] = history.fingerprints is not None
    for name, before_too in had.items():
        _check_goes_on(name, before_too, name in also, repr([*also]), "also")
    for vectors in _vectors(history):
        if vectors.shape[-1] > n_parameters:
            raise ValueError(
                f"history must have at most the optimizer's {n_parameters} parameters, got "
                f"{vectors.shape[-1]}: is it another model's?"
            )


def _check_goes_on(what: str, before: bool, now: bool, given: str, by: str = "") -> None:
    """Raise unless what was recorded is recorded now, and what was not is not.

    Raises:
        ValueError: if it is otherwise.
    """
    if before != now:
        began = "with" if before else "without"
        raise ValueError(
            f"history must continue {began} {what}, as it began, got {by or what}={given}"
        )


def _vectors(history: History) -> Iterator[NDArray[Any]]:
    if history.kept_weights is not None:
        yield history.kept_weights
    for kind in (history.gradients, history.local_gradients):
        if kind is not None:
            yield kind.kept
            if kind.last_path is not None:
                yield kind.last_path
