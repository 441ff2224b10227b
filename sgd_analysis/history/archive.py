"""Histories as files: numpy's .npz format with a JSON description, replaced in one step."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgd_analysis.history.also import NAMES
from sgd_analysis.history.columns import ALWAYS, IF_GIVEN
from sgd_analysis.history.fingerprints import Fingerprints
from sgd_analysis.history.npz import Npz
from sgd_analysis.history.replacing import clear, replacing
from sgd_analysis.history.vectors import Vectors

Made = TypeVar("Made")

_FORMAT = "sgd_analysis.History"
_VERSION = 3  # a reader of version n reads every version up to n
_IF_THERE = ("kept_weights", *IF_GIVEN)
_PARTS = {"gradients": Vectors, "local_gradients": Vectors, "fingerprints": Fingerprints}


def write(path: str | os.PathLike[str], history: Any) -> None:
    """Write a `History` so that `path` holds either what it held before or all of this one."""
    arrays: dict[str, NDArray[Any]] = {}
    history_described = _describe(history, arrays)
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "arrays": sorted(arrays),
        "history": history_described,
    }
    arrays["description"] = np.frombuffer(json.dumps(description).encode(), dtype=np.uint8)
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read(path: str | os.PathLike[str], make: Callable[..., Made]) -> Made:
    """Return the history in a file.

    Args:
        path: where it is.
        make: makes a `History` of its fields.

    Raises:
        ValueError: if there is something wrong with the file; it says what.
    """
    clear(path)
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a pipe would wait for a writer
        raise ValueError(f"{path} is no regular file: History.load reads what History.save wrote")
    with open(path, "rb") as file:
        npz = Npz(path, file)
        description = _description(path, npz)
        with _whole(path):
            names = list(npz.names)
            names.remove("description")
            if sorted(names) != description["arrays"]:
                raise ValueError(f"arrays {description['arrays']} expected, found {sorted(names)}")
        arrays = npz.read(names)
    with _whole(path):
        if description["version"] == 1:
            _upgrade(description["history"], arrays)
        return _build(make, description["history"], arrays)


def _describe(history: Any, arrays: dict[str, NDArray[Any]], prefix: str = "") -> Any:
    for name in (*ALWAYS, *_IF_THERE):
        if (column := getattr(history, name)) is not None:
            arrays[prefix + name] = column
    for name in _PARTS:
        if (several := getattr(history, name)) is not None:
            for part, array in several.arrays():
                arrays[f"{prefix}{name}.{part}"] = array
    arrays.update((f"{prefix}also.{name}", array) for name, array in history.also.items())
    if history.evaluated:  # its names are the user's: no part of the file's structure
        arrays[f"{prefix}evaluated"] = np.array([*history.evaluated.values()])
    return {
        "n_epochs": history.n_epochs,
        "evaluated": [*history.evaluated],
        "metadata": dict(history.metadata),
        "ranks": [_describe(h, arrays, f"{prefix}rank{r}.") for r, h in enumerate(history.ranks)],
    }


def _build(
    make: Callable[..., Made], description: Any, arrays: dict[str, NDArray[Any]], prefix: str = ""
) -> Made:
    parts: dict[str, Any] = {name: arrays[prefix + name] for name in ALWAYS}
    parts |= {name: arrays.get(prefix + name) for name in _IF_THERE}
    for name, kind in _PARTS.items():
        start = f"{prefix}{name}."
        found = {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
        parts[name] = kind(**found) if found else None
    evaluated = zip(
        description.get("evaluated", ()), arrays.get(f"{prefix}evaluated", ()), strict=True
    )
    ranks = enumerate(description["ranks"])
    return make(
        **parts,
        n_epochs=description["n_epochs"],
        also=_also(arrays, prefix),
        evaluated=dict(evaluated),
        metadata=description["metadata"],
        ranks=tuple(_build(make, d, arrays, f"{prefix}rank{r}.") for r, d in ranks),
    )


def _also(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    keys = {name: f"{prefix}also.{name}" for name in NAMES}
    return {name: arrays[key] for name, key in keys.items() if key in arrays}


def _upgrade(description: Any, arrays: dict[str, NDArray[Any]], prefix: str = "") -> None:
    """Give a history of version 1 what it lacks: its n_samples held the denominators."""
    n_samples = arrays[prefix + "denominator"] = arrays[prefix + "n_samples"]
    if description["metadata"].get("reduction") == "sum":
        arrays[prefix + "divisor"] = n_samples
    for r, rank in enumerate(description["ranks"]):
        _upgrade(rank, arrays, f"{prefix}rank{r}.")


def _description(path: str | os.PathLike[str], npz: Npz) -> Any:
    description: Any = None
    if "description" in npz.names:
        text = npz.read(["description"])["description"].tobytes()
        try:
            description = json.loads(text)
            if description["format"] != _FORMAT or not isinstance(description["version"], int):
                description = None
        except (KeyError, TypeError, ValueError, RecursionError):
            description = None
    if description is None:
        others = sorted(set(npz.names) - {"description"})
        raise ValueError(
            f"{path} is an .npz file that History.save did not write; it holds "
            f"{', '.join(others) or 'nothing'}"
        )
    if description["version"] > _VERSION:
        raise ValueError(
            f"{path} was written in format {description['version']}, by a newer version of "
            f"sgd_analysis, and this one reads formats up to {_VERSION}: upgrade it"
        )
    return description


@contextmanager
def _whole(path: str | os.PathLike[str]) -> Iterator[None]:
    # Turns what parts that do not fit together raise into a ValueError.
    try:
        yield
    except (
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        ValueError,
        RecursionError,
    ) as error:
        raise ValueError(f"{path} does not hold a whole History: {error!r}") from error
