"""Histories in the loggers of others: TensorBoard, Weights & Biases, trackio, MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import kind_of

Write: TypeAlias = Callable[[Mapping[str, float], int], object]

PREFIX = "sgd_analysis/"
_ONLY_IN_TABLES = ("epoch", "n_samples", "denominator", "skipped")


class Row(NamedTuple):
    """What a logger is told of a step, and of the epoch that it ends.

    Args:
        step: its number, from 1.
        n_epochs: how many epochs have finished by then.
        numbers: by name.
    """

    step: int
    n_epochs: int
    numbers: dict[str, float]


def rows(history: Any, n_steps: int = 0, n_epochs: int = 0) -> Iterator[Row]:
    """Yield the rows of a `History` that come after so many steps and finished epochs.

    A step's numbers are passed as they are. In those of an epoch nan says that they are not known,
    or were not evaluated, and is left out.
    """
    part = history[n_epochs:]
    before = history.n_steps - part.n_steps
    steps = {name: c.tolist() for name, c in part.steps().items() if name not in _ONLY_IN_TABLES}
    ended = _epochs_by_last_step(part)
    for k in range(part.n_steps):
        step, numbers = before + k + 1, {}
        if step > n_steps:
            numbers = {name: column[k] for name, column in steps.items()}
        if k + 1 in ended:
            n_epochs += 1
            numbers |= ended[k + 1]
        if numbers:
            yield Row(step, n_epochs, numbers)


def _epochs_by_last_step(part: Any) -> dict[int, dict[str, float]]:
    """Return what is known of each epoch, by the number of its last step."""
    epochs = part.epochs()
    del epochs["n_samples"]
    ended = {}
    for e, end in enumerate(np.cumsum(epochs.pop("n_steps")).tolist()):
        ended[end] = known_of(epochs, e)
    return ended


def known_of(table: Mapping[str, NDArray[Any]], row: int) -> dict[str, float]:
    """Return the numbers in a row of a table that are known: those that are not nan."""
    numbers = {name: column[row].item() for name, column in table.items()}
    return {name: number for name, number in numbers.items() if not math.isnan(number)}


def writing(writer: Any, prefix: str) -> Write:
    """Return the function that hands numbers, each under its prefixed name, to a logger at a step.

    Raises:
        TypeError: if the logger is of no kind that is known.
    """
    hand_over = _of_kind(writer)

    def write(numbers: Mapping[str, float], step: int) -> None:
        hand_over({prefix + name: value for name, value in numbers.items()}, step)

    return write


def _of_kind(writer: Any) -> Write:
    def has(method: str) -> bool:
        return callable(getattr(writer, method, None))

    def one_by_one(numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    def in_order(numbers: Mapping[str, float], step: int) -> None:
        _check_order(writer, step)
        writer.log(numbers, step=step)

    if has("add_scalar"):
        return one_by_one
    if has("log_metrics"):
        return lambda numbers, step: writer.log_metrics(numbers, step=step)
    if has("log"):
        return in_order
    raise TypeError(
        "writer must have add_scalar(name, value, step), as TensorBoard's SummaryWriter has, "
        "log(numbers, step=), as wandb, trackio and their runs have, or log_metrics(numbers, "
        f"step=), as mlflow has, got {kind_of(writer)}"
    )


def _check_order(writer: Any, step: int) -> None:
    """Raise if wandb would drop a row, which it does with no more than a line on the terminal.

    Raises:
        ValueError: if it would.
    """
    run = getattr(writer, "run", None) or writer  # the module, or a run
    if type(run).__module__.partition(".")[0] == "wandb" and step < run.step:
        raise ValueError(
            f"wandb drops what comes after a later step: its run is at step {run.step}, and this "
            f"is step {step}; give it a run of its own, in which nothing else is logged"
        )
