"""The fingerprints of the samples that steps have seen, of as many of the first as fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._arrays import as_array
from sgd_analysis.history.also import SEEN
from sgd_analysis.history.fingerprints import Fingerprints
from sgd_analysis.history.history import History

_BYTES = 8  # of a fingerprint, and of where those of a step end
_WAITING = 256  # steps whose fingerprints wait to be stored together
_GROWTH = 1.125
_NONE = Fingerprints(np.empty(0, np.uint64), np.empty(0, np.int64))


class _State(NamedTuple):
    """All there is, replaced in a single step: an interrupt may come between any two.

    Of what is stored the first n_steps ends count, and as many values as they say.
    """

    values: NDArray[np.uint64]
    ends: NDArray[np.int64]
    n_steps: int
    waiting: list[tuple[int, Sequence[Tensor]]]  # for each step that follows, its end

    @property
    def n_stored(self) -> int:
        return int(self.ends[self.n_steps - 1]) if self.n_steps else 0


def shared_out(
    memory: int, also: Collection[str], history: History | None
) -> tuple[KeptFingerprints | None, int]:
    """Return what keeps fingerprints, if they are wanted, and the bytes left for vectors."""
    if SEEN not in also:
        return None, memory
    return KeptFingerprints(memory // 2, history), memory - memory // 2


class KeptFingerprints:
    """The fingerprints of the first steps, in order.

    Those of a step that never came to be, because of an interrupt, are written over by the next.

    Args:
        memory: the bytes they may take.
        history: what they begin with.
    """

    def __init__(self, memory: int, history: History | None) -> None:
        self.full_at: int | None = None  # the first step whose fingerprints did not fit
        self._memory = memory
        begin = (history and history.fingerprints) or _NONE
        self._state = _State(begin.values, begin.ends, len(begin.ends), [])
        if history is not None and len(begin.ends) < history.n_steps:
            self.full_at = len(begin.ends)
        self._n_before = len(begin.values)

    @property
    def has_new(self) -> bool:
        """Whether there is any besides those it begins with."""
        state = self._state
        return (state.waiting[-1][0] if state.waiting else state.n_stored) > self._n_before

    def fits(self, n_samples: int) -> bool:
        """Return whether a step may have so many."""
        return _BYTES * n_samples <= self._memory

    def write(self, step: int, given: Sequence[Tensor]) -> None:
        """Take those that a step was given; what is on a device stays there."""
        if self.full_at is not None:
            return
        if step - self._state.n_steps >= _WAITING and given and given[0].is_cpu:
            self.store(step)
        state = self._state
        at = step - state.n_steps
        end = (state.waiting[at - 1][0] if at else state.n_stored) + sum(map(len, given))
        if _BYTES * (end + step + 1) > self._memory:
            self.full_at = step
        else:
            state.waiting[at:] = [(end, given)]

    def store(self, n_steps: int) -> None:
        """Bring those of the first so many steps into main memory."""
        state = self._state
        if new := state.waiting[: max(n_steps - state.n_steps, 0)]:
            ends = np.array([end for end, _ in new])
            values = [as_array(some).view(np.uint64) for _, given in new for some in given]
            self._state = _State(
                _with(state.values, state.n_stored, values),
                _with(state.ends, state.n_steps, [ends]),
                state.n_steps + len(new),
                [],
            )

    def rows(self, n_steps: int) -> Fingerprints:
        """Return those of the first so many steps, which later ones do not change."""
        self.store(n_steps)
        state = self._state
        return Fingerprints(state.values[: state.n_stored], state.ends[: state.n_steps])


def _with(array: NDArray[Any], n: int, new: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return an array that begins with the first n entries of another, and new ones after them."""
    end = n + sum(map(len, new))
    if end > len(array):
        grown = np.empty(max(int(_GROWTH * end), _WAITING), array.dtype)
        grown[:n] = array[:n]
        array = grown
    if new:
        np.concatenate(new, out=array[n:end])
    return array
