"""Reading numpy's .npz files without trusting them: what is damaged or forged is refused."""

from __future__ import annotations

import errno
import math
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

# How numpy describes an array of numbers, or of objects. Not evaluated before it looks like this:
# what a forged one may raise then is without end.
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[<>|=]\w\d{0,3})', 'fortran_order': (True|False), "
    r"'shape': \((?P<shape>(\d{1,20}, ?)*(\d{1,20})?)\), \}\s*"
)


class Npz:
    """The arrays of an open .npz file.

    Args:
        path: where the file is, for errors.
        file: the same, open.

    Raises:
        ValueError: if it is no such file, or cannot hold what it names.
    """

    def __init__(self, path: str | os.PathLike[str], file: IO[bytes]) -> None:
        self._path = path
        size = os.fstat(file.fileno()).st_size
        if file.read(4) != b"PK\x03\x04":
            what = "is empty" if size == 0 else "is not an .npz file"
            raise ValueError(f"{path} {what}: History.load reads what History.save wrote")
        with _undamaged(path):
            self._archive = zipfile.ZipFile(file)
            members = self._archive.infolist()
            if sum(member.file_size for member in members) > size:
                raise ValueError(f"{size} bytes cannot hold all that it names")
            self.names = [member.filename.removesuffix(".npy") for member in members]

    def read(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return some of its arrays.

        Raises:
            ValueError: if one is damaged, or holds pickled objects.
        """
        with _undamaged(self._path):
            headers = {name: _header(self._archive, name) for name in names}
        objects = [name for name, (dtype, _) in headers.items() if dtype.hasobject]
        if objects:
            raise ValueError(
                f"{self._path} holds an array that cannot be read, {objects[0]}: pickled objects, "
                "which may run code when they are loaded, are refused"
            )
        with _undamaged(self._path):
            # All sizes are checked: out of memory, here, is only who reads too large a history.
            return {name: _array(self._archive, name) for name in headers}


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
