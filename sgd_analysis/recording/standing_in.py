"""Standing in for functions of torch's while someone listens, and no longer."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

Listener = TypeVar("Listener")


class Place(NamedTuple):
    """Where a function of ours stands in for one of torch's."""

    owner: Any
    name: str
    ours: Any


class StandIn(Generic[Listener]):
    """Puts functions in the place of others when the first listener comes, until the last leaves.

    Listeners are held weakly: who forgets to close a recorder keeps no model alive with it.

    Args:
        places: returns what stands where, made anew each time: ours call what they find there.
    """

    def __init__(self, places: Callable[[], Iterable[Place]]) -> None:
        self._places = places
        self._listeners: tuple[weakref.ref[Listener], ...] = ()  # replaced as a whole: threads
        self._replaced: list[tuple[Place, Any]] = []  # go through it
        self._lock = threading.RLock()  # which the garbage collector may want while we hold it

    def add(self, listener: Listener) -> None:
        """Have a listener told of everything from now on."""
        with self._lock:
            if not self._listeners:
                for place in self._places():
                    self._replaced.append((place, getattr(place.owner, place.name)))
                    setattr(place.owner, place.name, place.ours)
            self._listeners = (*self._listeners, weakref.ref(listener, self._forget))

    def remove(self, listener: Listener) -> None:
        """Tell it no more; the last one that leaves puts torch's own functions back."""
        for known in self._listeners:
            if known() is listener:
                self._forget(known)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def __iter__(self) -> Iterator[Listener]:
        for known in self._listeners:
            listener = known()
            if listener is not None:
                yield listener

    def _forget(self, gone: weakref.ref[Listener]) -> None:
        with self._lock:
            remaining = tuple(known for known in self._listeners if known is not gone)
            if self._listeners and not remaining:
                self._put_back()
            self._listeners = remaining

    def _put_back(self) -> None:
        for place, original in self._replaced:
            if getattr(place.owner, place.name) is place.ours:  # or else someone stands in for ours
                setattr(place.owner, place.name, original)
        self._replaced.clear()
