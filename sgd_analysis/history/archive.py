"""Histories as files: numpy's .npz format with a JSON description, replaced in one step."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgd_analysis.history.columns import ALWAYS, IF_GIVEN
from sgd_analysis.history.replacing import clear, replacing
from sgd_analysis.history.vectors import Vectors

Made = TypeVar("Made")

_FORMAT = "sgd_analysis.History"
_VERSION = 2  # a reader of version n reads every version up to n
_IF_THERE = ("kept_weights", *IF_GIVEN)
_VECTORS = ("gradients", "local_gradients")

# How numpy describes an array of numbers, or of objects. Not evaluated before it looks like this:
# what a forged one may raise then is without end.
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[<>|=]\w\d{0,3})', 'fortran_order': (True|False), "
    r"'shape': \((?P<shape>(\d{1,20}, ?)*(\d{1,20})?)\), \}\s*"
)


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
        size = os.fstat(file.fileno()).st_size
        if file.read(4) != b"PK\x03\x04":
            what = "is empty" if size == 0 else "is not an .npz file"
            raise ValueError(f"{path} {what}: History.load reads what History.save wrote")
        with _undamaged(path):
            archive = zipfile.ZipFile(file)
            members = archive.infolist()
            if sum(member.file_size for member in members) > size:
                raise ValueError(f"{size} bytes cannot hold all that it names")
            names = [member.filename.removesuffix(".npy") for member in members]
        description = _description(path, archive, names)
        with _whole(path):
            names.remove("description")
            if sorted(names) != description["arrays"]:
                raise ValueError(f"arrays {description['arrays']} expected, found {sorted(names)}")
        with _undamaged(path):
            headers = {name: _header(archive, name) for name in names}
        objects = [name for name, (dtype, _) in headers.items() if dtype.hasobject]
        if objects:
            raise ValueError(
                f"{path} holds an array that cannot be read, {objects[0]}: pickled objects, which "
                "may run code when they are loaded, are refused"
            )
        with _undamaged(path):
            # All sizes are checked: out of memory, here, is only who reads too large a history.
            arrays = {name: _array(archive, name) for name in names}
    with _whole(path):
        if description["version"] == 1:
            _upgrade(description["history"], arrays)
        return _build(make, description["history"], arrays)


def _describe(history: Any, arrays: dict[str, NDArray[Any]], prefix: str = "") -> Any:
    for name in (*ALWAYS, *_IF_THERE):
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


def _build(
    make: Callable[..., Made], description: Any, arrays: dict[str, NDArray[Any]], prefix: str = ""
) -> Made:
    parts: dict[str, Any] = {name: arrays[prefix + name] for name in ALWAYS}
    parts |= {name: arrays.get(prefix + name) for name in _IF_THERE}
    for name in _VECTORS:
        start = f"{prefix}{name}."
        found = {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
        parts[name] = Vectors(**found) if found else None
    ranks = enumerate(description["ranks"])
    return make(
        **parts,
        n_epochs=description["n_epochs"],
        metadata=description["metadata"],
        ranks=tuple(_build(make, d, arrays, f"{prefix}rank{r}.") for r, d in ranks),
    )


def _upgrade(description: Any, arrays: dict[str, NDArray[Any]], prefix: str = "") -> None:
    """Give a history of version 1 what it lacks: its n_samples held the denominators."""
    n_samples = arrays[prefix + "denominator"] = arrays[prefix + "n_samples"]
    if description["metadata"].get("reduction") == "sum":
        arrays[prefix + "divisor"] = n_samples
    for r, rank in enumerate(description["ranks"]):
        _upgrade(rank, arrays, f"{prefix}rank{r}.")


def _description(path: str | os.PathLike[str], archive: zipfile.ZipFile, names: list[str]) -> Any:
    description: Any = None
    if "description" in names:
        with _undamaged(path):
            _header(archive, "description")
            text = _array(archive, "description").tobytes()
        try:
            description = json.loads(text)
            if description["format"] != _FORMAT or not isinstance(description["version"], int):
                description = None
        except (KeyError, TypeError, ValueError, RecursionError):
            description = None
    if description is None:
        others = sorted(set(names) - {"description"})
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


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # As `write` stores it; reading anything else is a door to zip bombs.
    info = archive.getinfo(f"{name}.npy")
    stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    if not stored or info.file_size != info.compress_size:
        raise ValueError(f"{name} is compressed or encrypted")
    return archive.open(info)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the type and shape of an array.

    Raises:
        ValueError: if it is no array, or its numbers are not all there.
    """
    with _member(archive, name) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name} has an unknown format")
        length = int.from_bytes(member.read(2), "little")
        found = _HEADER.fullmatch(member.read(length).decode("latin1"))
    if found is None:
        raise ValueError(f"{name} is no array of numbers")
    dtype = np.dtype(found["descr"])
    shape = tuple(int(digits) for digits in re.findall(r"\d+", found["shape"]))
    n_bytes = archive.getinfo(f"{name}.npy").file_size - 10 - length
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != n_bytes:
        raise ValueError(f"{name} has the shape {shape} and {n_bytes} bytes")
    return dtype, shape


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with _member(archive, name) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # at its end, the checksum is compared
            raise ValueError(f"{name} is longer than its shape says")
    return array


@contextmanager
def _undamaged(path: str | os.PathLike[str]) -> Iterator[None]:
    # Turns whatever the reading of a damaged archive may raise into a ValueError.
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason: object = error
        if isinstance(error, OSError):  # of the disk or the network, save for two
            if error.errno not in (None, errno.EINVAL, errno.EOVERFLOW):
                raise
            reason = "it names places that no file has"
        raise ValueError(
            f"{path} is damaged or not complete ({reason}): use an older copy, if there is one"
        ) from error


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
