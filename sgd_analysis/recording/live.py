"""The loggers of others, handed the rows of a recording while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sgd_analysis.history.history import History
from sgd_analysis.history.writers import Write, rows, writing


@dataclass
class _Handed:
    """A logger, and up to which step and epoch it was handed the rows."""

    writer: Any
    write: Write
    upto: tuple[int, int]


class Live:
    """The loggers of a recording. One that raises is dropped, and the loop does not notice.

    Args:
        n_steps: how many steps the recording begins with, which no logger is handed.
        n_epochs: how many finished epochs.
        failed: called with a logger that has raised, the number of steps, and its error.
    """

    def __init__(
        self, n_steps: int, n_epochs: int, failed: Callable[[Any, int, Exception], None]
    ) -> None:
        self._begin, self._failed = (n_steps, n_epochs), failed
        self._all: list[_Handed] = []
        self._history: Callable[[], History] | None = None

    def add(self, writer: Any, prefix: str, history: Callable[[], History]) -> None:
        """Add a logger, and hand it what the recording has by now.

        Raises:
            TypeError: if it is of no kind that is known.
        """
        self._all.append(_Handed(writer, writing(writer, prefix), self._begin))
        self._history = history
        self.hand_over()

    def hand_over(self) -> None:
        """Hand every row since the last time to the loggers, if there are any."""
        if (history := self._history) is not None:
            self._for_each(lambda handed: _hand_over(history(), handed))

    def hand_over_evaluated(self, numbers: Mapping[str, float], step: int) -> None:
        """Hand what was evaluated, after the step that has ended an epoch, to the loggers."""
        self._for_each(lambda handed: handed.write(numbers, step))

    def close(self) -> None:
        """Hand over the rest."""
        self.hand_over()
        self._history = None  # which holds the recorder, and this one is held by it

    def _for_each(self, use: Callable[[_Handed], object]) -> None:
        for handed in [*self._all]:
            try:
                use(handed)
            except Exception as error:
                self._all.remove(handed)
                self._failed(handed.writer, handed.upto[0], error)


def _hand_over(history: History, handed: _Handed) -> None:
    for row in rows(history, *handed.upto):
        handed.write(row.numbers, row.step)
        handed.upto = row.step, row.n_epochs
