"""The states of the global random generators: torch's, numpy's and Python's."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class RandomStates:
    """The states of all global generators at one moment; equal if nothing was drawn between."""

    def __init__(self) -> None:
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
        )

    __hash__ = None  # type: ignore[assignment]  # as for every class that compares contents

    def restore(self) -> None:
        """Put every generator back to where it was."""
        torch.set_rng_state(self._torch[0])
        if len(self._torch) > 1:
            torch.cuda.set_rng_state_all(self._torch[1:])
        np.random.set_state(self._numpy)
        random.setstate(self._python)


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


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(np.array_equal(one, other))
