"""Which samples a step sees: those its loader has given since the step before."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgd_analysis.recording.fingerprints import fingerprints
from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.kept_fingerprints import KeptFingerprints
from sgd_analysis.recording.loaders import listeners


class _Given(NamedTuple):
    """What a way through a loader has given since the last step: fingerprints."""

    iterator: weakref.ref[Any]
    fingerprints: list[Tensor]


class SeenSamples:
    """Takes the fingerprints of what loaders give, until a step in the same thread asks for them.

    As `FoundEpochs` has it, a step comes from the loader that gave a batch last, with gradients.
    A loop that fetches a batch ahead has its first step see two, and its last one none.

    Args:
        kept: where they will be kept, while there is room; None if they are not wanted.
        failed: called with the error if a batch has none; no more are taken then.
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(
        self, kept: KeptFingerprints | None, failed: Callable[[Exception], None], guard: Guard
    ) -> None:
        self._kept, self._failed, self._guard = kept, failed, guard
        self._given: dict[int, _Given] = {}  # by thread
        self._thread: int | None = None  # that has made a step

    def listen(self) -> None:
        """Look at loaders from now on, if that is wanted."""
        if self._kept is not None:
            listeners.add(self)

    def stop(self) -> None:
        """Look at them no more."""
        listeners.remove(self)
        self._given = {}

    def begins(self, iterator: Any) -> None:
        """Forget what a former way through a loader has given, and no step has seen."""
        self._guard(self._begins)(iterator)

    def gives(self, iterator: Any, batch: Any) -> None:
        """Take the fingerprints of a batch."""
        self._guard(self._gives)(iterator, batch)

    def ends(self, iterator: Any) -> None:
        """Leave what was given to the steps."""

    def take(self) -> list[Tensor]:
        """Return what the step that is made now has seen."""
        self._thread = threading.get_ident()
        given, self._given = self._given.get(self._thread), {}
        return [] if given is None else given.fingerprints

    def _begins(self, iterator: Any) -> None:
        thread = threading.get_ident()
        given = self._given.get(thread)
        if given is not None and given.iterator() in (iterator, None):
            self._given.pop(thread)

    def _gives(self, iterator: Any, batch: Any) -> None:
        thread = threading.get_ident()
        if not torch.is_grad_enabled() or self._thread not in (None, thread):
            return
        if self._kept is None or self._kept.full_at is not None:
            self.stop()
            return
        try:
            new = fingerprints(batch)
        except Exception as error:
            self.stop()
            self._failed(error)
            return
        given = self._given.get(thread)
        if given is None or given.iterator() is not iterator:
            given = self._given[thread] = _Given(weakref.ref(iterator), [])
        given.fingerprints.append(new)
