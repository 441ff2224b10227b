"""Histories as files: numpy's .npz format with a JSON description, replaced in one step."""

import json
import os
import secrets
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._vectors import Vectors

if TYPE_CHECKING:
    from sgd_analysis.history import History

_FORMAT = "sgd_analysis.History"
_VERSION = 2  # a reader of version n reads every version up to n
_COLUMNS = ("loss", "n_samples", "epoch", "step_size", "denominator", "skipped")
_IF_THERE = ("kept_weights", "own_objective", "divisor")
_VECTORS = ("gradients", "local_gradients")


def write(path: str | os.PathLike[str], history: "History") -> None:
    """Write a history so that `path` holds either what it held before or all of this one."""
    target = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    arrays: dict[str, NDArray[Any]] = {}
    history_described = _describe(history, arrays)
    description = {
        "format": _FORMAT,
        "version": _VERSION,
        "arrays": sorted(arrays),
        "history": history_described,
    }
    arrays["description"] = np.frombuffer(json.dumps(description).encode(), dtype=np.uint8)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(unfinished, "xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> "History":
    """Return the history in a file.

    Raises:
        ValueError: if there is something wrong with the file; it says what.
    """
    try:
        with open(path, "rb") as file:
            arrays = _arrays(path, file)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"{path} is damaged or not complete ({error}): use an older copy, if there is one"
        ) from error
    description = _description(path, arrays)
    try:
        if sorted(arrays) != description["arrays"]:
            raise ValueError(f"arrays {description['arrays']} expected, found {sorted(arrays)}")
        if description["version"] == 1:
            _upgrade(description["history"], arrays)
        return _build(description["history"], arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a whole History: {error!r}") from error


def _describe(history: "History", arrays: dict[str, NDArray[Any]], prefix: str = "") -> Any:
    for name in _COLUMNS + _IF_THERE:
        if (column := getattr(history, name)) is not None:
            arrays[prefix + name] = column
    for name in _VECTORS:
        if (vectors := getattr(history, name)) is not None:
            for part, array in vectors.arrays():
                arrays[f"{prefix}{name}.{part}"] = array
    return {
        "n_epochs": history.n_epochs,
        "metadata": dict(history.metadata),
        "ranks": [_describe(h, arrays, f"{prefix}rank{r}.") for r, h in enumerate(history.ranks)],
    }


def _build(description: Any, arrays: dict[str, NDArray[Any]], prefix: str = "") -> "History":
    from sgd_analysis.history import History  # which imports this module

    parts: dict[str, Any] = {name: arrays[prefix + name] for name in _COLUMNS}
    parts |= {name: arrays.get(prefix + name) for name in _IF_THERE}
    for name in _VECTORS:
        start = f"{prefix}{name}."
        found = {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
        parts[name] = Vectors(**found) if found else None
    ranks = enumerate(description["ranks"])
    return History(
        **parts,
        n_epochs=description["n_epochs"],
        metadata=description["metadata"],
        ranks=tuple(_build(d, arrays, f"{prefix}rank{r}.") for r, d in ranks),
    )


def _upgrade(description: Any, arrays: dict[str, NDArray[Any]], prefix: str = "") -> None:
    """Give a history of version 1 what it lacks: its n_samples held the denominators."""
    n_samples = arrays[prefix + "denominator"] = arrays[prefix + "n_samples"]
    if description["metadata"].get("reduction") == "sum":
        arrays[prefix + "divisor"] = n_samples
    for r, rank in enumerate(description["ranks"]):
        _upgrade(rank, arrays, f"{prefix}rank{r}.")


def _arrays(path: str | os.PathLike[str], file: Any) -> dict[str, NDArray[Any]]:
    if file.read(4) != b"PK\x03\x04":
        size = os.fstat(file.fileno()).st_size
        what = "is empty" if size == 0 else "is not an .npz file"
        raise ValueError(f"{path} {what}: History.load reads what History.save wrote")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        try:
            return {name: archive[name] for name in archive.files}
        except ValueError as error:
            raise ValueError(
                f"{path} holds an array that cannot be read ({error}): pickled objects, which may "
                "run code when they are loaded, are refused"
            ) from error


def _description(path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]]) -> Any:
    try:
        description = json.loads(arrays.pop("description").tobytes())
        known = description["format"] == _FORMAT and isinstance(description["version"], int)
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(
            f"{path} is an .npz file that History.save did not write; it holds "
            f"{', '.join(sorted(arrays)) or 'nothing'}"
        )
    if description["version"] > _VERSION:
        raise ValueError(
            f"{path} was written in format {description['version']}, by a newer version of "
            f"sgd_analysis, and this one reads formats up to {_VERSION}: upgrade it"
        )
    return description
