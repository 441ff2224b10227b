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
    from one that a model is evaluated on. Where it has no more batches the epoch has ended; at the
    latest when another loader is begun, since some fetch a batch ahead and some loops accumulate.

    Args:
        rows: where the steps are recorded.
        end_epoch: called where it ends.
        no_steps: called where a loader is begun anew that has led to no step.
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
        self._sources: list[_Source] = []
        self._latest: dict[int, _Source] = {}  # by thread
        self._given_by: weakref.WeakKeyDictionary[Any, _Source] = weakref.WeakKeyDictionary()
        self.begins, self.gives = guard(self._begins), guard(self._gives)
        self.ends = guard(self._ends)

    def listen(self) -> None:
        """Look at loaders from now on."""
        listeners.add(self)

    def stop(self) -> None:
        """Look at them no more."""
        listeners.remove(self)

    def step(self) -> None:
        """Take note of a step."""
        source = self._latest.get(threading.get_ident())
        if source is not None:
            source.n_steps += 1

    def finish(self) -> None:
        """End the epoch if its loader has no more batches."""
        if any(source.is_exhausted and self._leads_to_steps(source) for source in self._sources):
            self._end()

    def _begins(self, loader: Any, iterator: Any) -> None:
        self.finish()
        source = next((one for one in self._sources if one.loader() is loader), None)
        if source is not None and source.n_batches > 1:  # it is not asked for one batch at a time
            if self._leads_to_steps(source):
                self._end()
            else:
                self._no_steps()
        latest = self._latest.values()
        others = [one for one in self._sources if one is not source]
        others = [one for one in others if one.loader() is not None or one in latest]
        self._given_by[iterator] = source = _Source(loader)
        self._sources = [*others, source]

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
        for source in self._sources:
            source.n_steps = source.n_batches = 0
        # A loop that goes on with batches it has kept goes on without an end that can be seen.
        self._latest = {key: one for key, one in self._latest.items() if not one.is_exhausted}

    def _leads_to_steps(self, source: _Source) -> bool:
        return source.n_steps > 0 and _SHARE * source.n_steps >= self._rows.steps_in_epoch


class _Source:
    """What a loader has given, and led to, since it was begun last or an epoch has ended."""

    __slots__ = ("is_exhausted", "loader", "n_batches", "n_steps")

    def __init__(self, loader: Any) -> None:
        self.loader = weakref.ref(loader)
        self.n_batches = self.n_steps = 0
        self.is_exhausted = False
