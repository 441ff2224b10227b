"""The states of the global random generators: torch's, numpy's and Python's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RandomStates:
    """The states of all global generators at one moment; equal if nothing was drawn between.

    Args:
        others: generators of torch, numpy or Python to be counted among them.
    """

    def __init__(self, others: Iterable[Any] = ()) -> None:
        self._others = [(one, _state(one)) for one in others]
        self._torch = [torch.get_rng_state()]
        if torch.cuda.is_initialized():
            self._torch += torch.cuda.get_rng_state_all()
        self._numpy: Any = np.random.get_state(legacy=False)
        self._python = random.getstate()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RandomStates)
            and self._python == other._python
            and len(self._torch) == len(other._torch)
            and all(map(torch.equal, self._torch, other._torch))
            and _equal(self._numpy, other._numpy)
            and len(self._others) == len(other._others)
            and all(
                _equal(a, b) for (_, a), (_, b) in zip(self._others, other._others, strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]  # as for every class that compares contents

    def restore(self) -> None:
        """Put every generator back to where it was."""
        torch.set_rng_state(self._torch[0])
        if len(self._torch) > 1:
            torch.cuda.set_rng_state_all(self._torch[1:])
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        for generator, state in self._others:
            _set_state(generator, state)


def seed_all(seed: int, others: Iterable[Any] = ()) -> None:
    """Seed all global generators, and some others, by a number below 2³²."""
    # torch.manual_seed would also seed a CUDA that is started later.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)
    for generator in others:
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        else:
            generator.seed(seed)


@contextlib.contextmanager
def undisturbed(loader: object) -> Iterator[None]:
    """Put the global generators, and those that a DataLoader was given, back at the end."""
    before = RandomStates()
    own = [(generator, generator.get_state()) for generator in _generators(loader)]
    try:
        yield
    finally:
        before.restore()
        for generator, state in own:
            generator.set_state(state)


def _generators(loader: object) -> list[torch.Generator]:
    """Return the generators of a DataLoader, its sampler and its batch sampler."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None))
    found = (getattr(owner, "generator", None) for owner in (*owners, batch_sampler))
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return one == other if isinstance(one, tuple) else bool(np.array_equal(one, other))
