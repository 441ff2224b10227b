"""Which samples a step sees: those its loader has given since the step before."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sgd_analysis.recording.fingerprints import fingerprints
from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.loaders import listeners
from sgd_analysis.recording.messages import Messages
from sgd_analysis.recording.rows import Rows


@dataclass
class _Given:
    """What a way through a loader has given since the last step: fingerprints."""

    iterator: weakref.ref[Any]
    fingerprints: list[Tensor] = field(default_factory=list)
    n_samples: int = 0


class SeenSamples:
    """Takes the fingerprints of what loaders give, until a step in the same thread asks for them.

    As `FoundEpochs` has it, a step comes from the loader that gave a batch last, with gradients.
    A loop that fetches a batch ahead has its first step see two, and its last one none.

    Args:
        rows: where they will be kept, while there is room, if they are wanted.
        messages: where it is noted what is missing.
        guard: wraps a hook so that no error of it reaches the loop.
    """

    def __init__(self, rows: Rows, messages: Messages, guard: Guard) -> None:
        self._rows, self._kept = rows, rows.fingerprints
        self._messages, self._guard = messages, guard
        self._n_before = rows.n_steps  # those of the recording it continues
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

    def look_for_missing(self) -> None:
        """Say if there is none though steps were made, or no room for more."""
        kept = self._kept
        if kept is None or self._rows.n_steps == self._n_before:
            return
        if kept.full_at is None:
            if not kept.has_new:
                self._messages.no_samples_seen()
        elif kept.full_at >= self._n_before:  # and not in what it continues
            self._messages.no_more_fingerprints(kept.full_at, "more do not fit into memory=")

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
            self._kept.full_at = n_kept = self._rows.n_steps
            self._messages.no_more_fingerprints(n_kept, f"a batch has none: {error}")
            return
        given = self._given.get(thread)
        if given is None or given.iterator() is not iterator:
            given = self._given[thread] = _Given(weakref.ref(iterator))
        if self._kept.fits(given.n_samples):  # a loop may never make a step
            given.fingerprints.append(new)
            given.n_samples += len(new)
