"""What modules keep from one forward pass to the next, and how it is put back."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

_Restore: TypeAlias = Callable[[], None]
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_CONTAINERS = (list, tuple, dict, set, deque)
_LONGEST = 1000  # longer containers, a data set's indices say, are not looked into


class KeptState:
    """The attributes of some modules, and what is in them, as they were at one moment.

    Looked into are lists, dictionaries, sets and deques, in each other, too; tensors and arrays;
    random generators; and the attributes of other objects that are held directly. The values of
    parameters and buffers are not, nor what a closure or a global variable keeps.
    """

    def __init__(self, modules: Iterable[nn.Module], *, apart_from: Iterable[object] = ()) -> None:
        self.generators: list[Any] = []
        self._seen = {id(one) for one in apart_from}
        self._alive: list[Any] = []  # an id is one object's for as long as that lives
        self._restores: list[_Restore] = []
        for module in modules:
            self._add(module)

    def restore(self) -> None:
        """Put everything back in place, but for the generators."""
        for restore in self._restores:
            restore()

    def _add(self, value: Any, *, is_attribute: bool = False) -> None:
        if not (_may_change(value, is_attribute) and self._is_new(value)):
            return
        if isinstance(value, _GENERATORS):
            self.generators.append(value)
        elif isinstance(value, Tensor):
            self._restores.append(_of_tensor(value))
        elif isinstance(value, np.ndarray):
            self._restores.append(_of_array(value))
        elif isinstance(value, _CONTAINERS):
            self._restores += _of_container(value)
            for part in list(value.values() if isinstance(value, dict) else value):
                self._add(part)
        else:
            self._restores.append(_of_dict(vars(value)))
            for part in list(vars(value).values()):
                self._add(part, is_attribute=True)

    def _is_new(self, value: object) -> bool:
        if id(value) in self._seen:
            return False
        self._seen.add(id(value))
        self._alive.append(value)
        return True


def _may_change(value: Any, is_attribute: bool) -> bool:
    if isinstance(value, _CONTAINERS):
        return len(value) <= _LONGEST
    if isinstance(value, (*_GENERATORS, Tensor, np.ndarray, nn.Module)):
        return True
    return is_attribute and _is_an_object(value)


def _is_an_object(value: object) -> bool:
    """Return whether it has attributes, and is no class, function or module of Python."""
    is_code = isinstance(value, (type, ModuleType)) or hasattr(type(value), "__get__")
    return hasattr(value, "__dict__") and not is_code


def _of_container(value: Any) -> Iterator[_Restore]:
    if isinstance(value, dict):
        yield _of_dict(value)
    elif isinstance(value, set):
        yield _of_set(value)
    elif not isinstance(value, tuple):
        yield _of_list(value)


def _of_dict(now: dict[Any, Any]) -> _Restore:
    before = dict(now)

    def restore() -> None:
        if len(now) == len(before) and all(map(_is, now, before)):
            if all(map(_is, now.values(), before.values())):
                return
        for key in now.keys() - before.keys():
            del now[key]
        now.update(before)  # never empty in between: an interrupt must not leave it so

    return restore


def _of_set(now: set[Any]) -> _Restore:
    before = set(now)

    def restore() -> None:
        if now != before:
            now.intersection_update(before)
            now.update(before)

    return restore


def _of_list(now: list[Any] | deque[Any]) -> _Restore:
    before = list(now)

    def restore() -> None:
        if len(now) != len(before) or not all(map(_is, now, before)):
            now.clear()
            now.extend(before)

    return restore


def _of_tensor(now: Tensor) -> _Restore:
    if now.is_inference():  # nothing outside of inference mode can write to it
        return lambda: None
    before, version = now.detach().clone(), now._version

    def restore() -> None:
        if now._version != version:
            now.data.copy_(before)  # which leaves the version as it is

    return restore


def _of_array(now: Any) -> _Restore:
    before = now.copy()

    def restore() -> None:
        if now.flags.writeable:
            now[...] = before

    return restore


def _is(one: object, other: object) -> bool:
    return one is other
