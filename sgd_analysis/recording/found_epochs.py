"""Epochs that nobody tells of: they end where the loader of the steps does, or is begun anew."""

from __future__ import annotations

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
        self._begun: list[weakref.ref[Any]] = []  # the loaders, up to the first step
        self._latest: dict[int, _Source] = {}  # by thread
        self._given_by: weakref.WeakKeyDictionary[Any, _Source] = weakref.WeakKeyDictionary()
        self._guard = guard

    def listen(self) -> None:
        """Look at loaders from now on."""
        listeners.add(self)

    def stop(self) -> None:
        """Look at them no more."""
        listeners.remove(self)

    def begins(self, loader: Any, iterator: Any) -> None:
        """Take note that a loader is gone through from its first batch on."""
        self._guard(self._begins)(loader, iterator)

    def gives(self, iterator: Any) -> None:
        """Take note of a batch."""
        self._guard(self._gives)(iterator)

    def ends(self, iterator: Any) -> None:
        """Take note that there are no more."""
        self._guard(self._ends)(iterator)

    def step(self) -> None:
        """Take note of a step that is about to be made."""
        source = self._latest.get(threading.get_ident())
        if source is None:
            return
        if not source.n_steps:
            self._comes_first(source)
        source.n_steps += 1

    def _comes_first(self, source: _Source) -> None:
        """Take note of the first step that a way through a loader leads to."""
        # Of the same loader, or of one that was made for an epoch and is gone.
        loader, pairs = source.loader(), [(one, one.loader()) for one in self._used]
        before = [one for one, its in pairs if its is None or its is loader]
        if any(self._is_main(one) and one.n_batches > 1 for one in before):
            self._end()
        self._used = [*(one for one in self._used if one not in before), source]

    def finish(self) -> None:
        """End the epoch if its loader has no more batches."""
        if any(source.is_exhausted for source in self._used if self._is_main(source)):
            self._end()

    def _begins(self, loader: Any, iterator: Any) -> None:
        self.finish()
        if not self._rows.n_steps:
            if any(begun() is loader for begun in self._begun):
                self._no_steps()
            self._begun.append(weakref.ref(loader))
        self._given_by[iterator] = _Source(loader)

    def _gives(self, iterator: Any) -> None:
        if source := self._noted(iterator):
            source.n_batches += 1

    def _ends(self, iterator: Any) -> None:
        if source := self._noted(iterator):
            source.is_exhausted = True
            if source.n_steps == source.n_batches:  # each has had its step
                self.finish()

    def _noted(self, iterator: Any) -> _Source | None:
        """Return where a batch comes from, now the latest source; None for one to evaluate."""
        source = self._given_by.get(iterator)
        if source is None or not torch.is_grad_enabled():
            return None
        self._latest[threading.get_ident()] = source
        return source

    def _end(self) -> None:
        self._end_epoch()
        for source in self._used:
            source.n_steps = source.n_batches = 0
        self._used = []
        # A loop that goes on with batches it has kept goes on without an end that can be seen.
        self._latest = {key: one for key, one in self._latest.items() if not one.is_exhausted}

    def _is_main(self, source: _Source) -> bool:
        return _SHARE * source.n_steps >= self._rows.steps_in_epoch


class _Source:
    """One way through a loader: what it has given and led to, since an epoch has ended."""

    __slots__ = ("is_exhausted", "loader", "n_batches", "n_steps")

    def __init__(self, loader: Any) -> None:
        self.loader = weakref.ref(loader)
        self.n_batches = self.n_steps = 0
        self.is_exhausted = False
