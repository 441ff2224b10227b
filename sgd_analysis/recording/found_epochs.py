"""Epochs that nobody tells of: they end where the loader of the steps does, or is begun anew."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch

from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.loaders import listeners
from sgd_analysis.recording.rows import Rows

_SHARE = 4  # a loader that has led to fewer than a fourth of the steps is not what they come from


class FoundEpochs:
    """Finds where epochs end, by the loaders that give the batches.

    A step comes from the loader that gave a batch last, in the same thread and with gradients: not
    from one that a model is evaluated on. The epoch has ended where that loader has no more; some
    loops fetch a batch ahead or accumulate, so that a last step may follow. It has ended as well
    before a step that comes from the same loader, begun anew.

    Args:
        rows: where the steps are recorded.
        end_epoch: called where it ends.
        no_steps: called where a loader is begun anew, and there was no step at all.
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(
        self,
        rows: Rows,
        end_epoch: Callable[[], None],
        no_steps: Callable[[], None],
        guard: Guard,
    ) -> None:
        self._rows, self._end_epoch, self._no_steps = rows, end_epoch, no_steps
        self._used: list[_Source] = []  # those that have led to steps of the present epoch
        self._begun: list[_Source] = []  # up to the first step
        self._latest: dict[int, _Source] = {}  # by thread
        self._given_by: weakref.WeakKeyDictionary[Any, _Source] = weakref.WeakKeyDictionary()
        self._guard = guard

    def listen(self) -> None:
        """Look at loaders from now on."""
        listeners.add(self)

    def stop(self) -> None:
        """Look at them no more."""
        listeners.remove(self)

    def begins(self, iterator: Any) -> None:
        """Take note that a loader is gone through from its first batch on."""
        self._guard(self._begins)(iterator)

    def gives(self, iterator: Any, batch: Any) -> None:
        """Take note of a batch."""
        self._guard(self._gives)(iterator)

    def ends(self, iterator: Any) -> None:
        """Take note that there are no more."""
        self._guard(self._ends)(iterator)

    def step_begins(self) -> None:
        """Take note of a step, before its row."""
        source = self._latest.get(threading.get_ident())
        if source is not None:
            if not source.n_steps:
                self._comes_first(source)
            source.n_steps += 1

    def step_ends(self) -> None:
        """End the epoch if that was the step of its last batch."""
        source = self._latest.get(threading.get_ident())
        if source is not None and source.has_had_each_step:
            self.finish()

    def finish(self) -> None:
        """End the epoch if its loader has no more batches."""
        if any(source.has_given_all for source in self._used if self._is_main(source)):
            self._end()

    def _comes_first(self, source: _Source) -> None:
        """Take note of the first step that a way through a loader leads to."""
        before = [one for one in self._used if source.may_follow(one)]
        if any(self._is_main(one) and one.n_batches > 1 for one in before):
            self._end()
        self._used = [*(one for one in self._used if one not in before), source]

    def _begins(self, iterator: Any) -> None:
        # The step of a last batch may still be to come, if no other was asked for.
        if any(source.is_exhausted for source in self._used if self._is_main(source)):
            self._end()
        source = self._given_by[iterator] = _Source(iterator)
        if not self._rows.n_steps:
            if any(source.is_of_the_loader_of(begun) for begun in self._begun):
                self._no_steps()
            self._begun.append(source)

    def _gives(self, iterator: Any) -> None:
        if source := self._noted(iterator):
            source.n_batches += 1

    def _ends(self, iterator: Any) -> None:
        if source := self._noted(iterator):
            source.is_exhausted = True
            if source.has_had_each_step:
                self.finish()

    def _noted(self, iterator: Any) -> _Source | None:
        """Return where a batch comes from, now the latest source; None for one to evaluate."""
        if not torch.is_grad_enabled():
            return None
        source = self._given_by.get(iterator)
        if source is None:  # it was begun before the recording
            source = self._given_by[iterator] = _Source(iterator, is_new=False)
        if not source.is_spent:
            self._latest[threading.get_ident()] = source
        return source

    def _end(self) -> None:
        self._end_epoch()
        for source in self._used:
            source.is_spent = source.has_given_all
            source.n_steps = source.n_batches = 0
        self._used = []
        # A loop that goes on with batches it has kept goes on without an end that can be seen.
        self._latest = {key: one for key, one in self._latest.items() if not one.is_spent}

    def _is_main(self, source: _Source) -> bool:
        return _SHARE * source.n_steps >= self._rows.steps_in_epoch


class _Source:
    """One way through a loader: what it has given and led to, since an epoch has ended.

    Args:
        iterator: torch's; what it takes its indices from tells its loader.
        is_new: whether it has not given any batch yet.
    """

    __slots__ = ("_sampler", "is_exhausted", "is_spent", "length", "n_batches", "n_steps")

    def __init__(self, iterator: Any, *, is_new: bool = True) -> None:
        self._sampler: Callable[[], Any] = _reference(getattr(iterator, "_index_sampler", None))
        self.length = _length(iterator) if is_new else math.nan
        self.n_batches = self.n_steps = 0
        self.is_exhausted = False  # another batch was asked for, and there was none
        self.is_spent = False  # it has given all, and that epoch has ended

    @property
    def has_given_all(self) -> bool:
        """Whether there are no more batches: some loops count them, and ask for no more."""
        return self.is_exhausted or self.n_batches == self.length

    @property
    def has_had_each_step(self) -> bool:
        """Whether there are no more batches, and each has led to a step."""
        return self.has_given_all and self.n_steps == self.n_batches

    def is_of_the_loader_of(self, other: _Source) -> bool:
        """Return whether both are ways through the same loader."""
        sampler = self._sampler()
        return sampler is not None and sampler is other._sampler()

    def may_follow(self, other: _Source) -> bool:
        """Return whether it may be the next epoch: of a loader that was made for one, another."""
        return other._sampler() is None or self.is_of_the_loader_of(other)


def _reference(sampler: Any) -> Callable[[], Any]:
    """Return what gives a sampler as long as it lives; a list of batches is kept alive."""
    try:
        return weakref.ref(sampler)
    except TypeError:
        return lambda: sampler


def _length(iterator: Any) -> float:
    """Return how many batches there will be, nan if that is not known."""
    try:
        return len(iterator)
    except Exception:
        return math.nan
