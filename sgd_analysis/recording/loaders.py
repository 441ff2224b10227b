"""What torch's loaders do while someone listens: when one is begun, gives a batch, and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from sgd_analysis.recording.standing_in import Place, StandIn


class LoaderListener(Protocol):
    """Who is told what loaders do, in whichever thread."""

    def begins(self, iterator: Any) -> None:
        """A loader is gone through from its first batch on, by this iterator."""

    def gives(self, iterator: Any, batch: Any) -> None:
        """The next batch is given."""

    def ends(self, iterator: Any) -> None:
        """There are no more."""


def _places() -> Iterator[Place]:
    yield Place(DataLoader, "__iter__", _telling_of_begins(DataLoader.__iter__))
    yield Place(_BaseDataLoaderIter, "__next__", _telling_of_batches(_BaseDataLoaderIter.__next__))


listeners: StandIn[LoaderListener] = StandIn(_places)


def _telling_of_begins(begin: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def __iter__(self: Any) -> Any:
        iterator = begin(self)
        for listener in listeners:
            listener.begins(iterator)
        return iterator

    return __iter__


def _telling_of_batches(give: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def __next__(self: Any) -> Any:
        try:
            batch = give(self)
        except StopIteration:
            for listener in listeners:
                listener.ends(self)
            raise
        for listener in listeners:
            listener.gives(self, batch)
        return batch

    return __next__
