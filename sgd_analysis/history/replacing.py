"""Files that take the place of others in one step, whatever interrupts the writing."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, which removes no open file and renames none
    fcntl = None  # type: ignore[assignment]

_LONGEST = 100  # bytes of a name that are repeated in the unfinished file's, of 255 at most


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that becomes `path` when all of it is written, with the old file's mode.

    Until then it stands beside it, locked: a process that is killed leaves its file there without
    the lock, which `clear` takes for the sign that nobody is writing it any more.

    Yields:
        The file, to write to.

    Raises:
        OSError: if the file cannot be written, `path` is read-only or no regular file.
    """
    old = _status(path)
    clear(path)
    target = _target(path)  # what a link points to is replaced, not the link
    file, unfinished = _begin(target, old)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()
            os.replace(unfinished, target)  # still locked, or it might be cleared now
    finally:
        unfinished.unlink(missing_ok=True)


def clear(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes have left of files that were to become `path`."""
    if fcntl is None:
        return
    target = _target(path)
    name = re.compile(re.escape(_prefix(target)) + r"[0-9a-f]{8}\.tmp")
    with suppress(OSError):  # of a folder that is not there or may not be read
        for entry in os.scandir(target.parent):
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    with suppress(OSError), open(path, "r+b") as left:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)


def _begin(target: Path, old: os.stat_result | None) -> tuple[BinaryIO, Path]:
    mode = 0o666 if old is None else stat.S_IMODE(old.st_mode)
    while True:
        unfinished = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}.tmp")
        # With the old mode from the start, so that no one else can open it in between.
        file = open(unfinished, "xb", opener=partial(os.open, mode=mode))
        if fcntl is not None:
            with suppress(OSError):  # of a file system without locks: there, nothing is cleared
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink == 0:  # cleared before it was locked
                file.close()
                continue
        if old is not None:
            with suppress(OSError):
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(unfinished, old.st_uid, old.st_gid)
            os.chmod(unfinished, mode)
        return file, unfinished


def _status(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{os.fspath(path)} is a folder: give the path of a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(
            f"{os.fspath(path)} is no regular file but a device, a named pipe or the like, which "
            "saving would replace: give another path"
        )
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):  # root may write to all
        raise PermissionError(
            f"{os.fspath(path)} is read-only and stays as it is: make it writable, or give another "
            "path"
        )
    return status


def _target(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _prefix(target: Path) -> str:
    name = os.fsencode(target.name)
    return f".{target.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()}."
