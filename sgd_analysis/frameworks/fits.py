"""What the callbacks share: a recorder for each optimizer, from the start of a fit to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sgd_analysis.frameworks.following import follower_of
from sgd_analysis.history.history import History
from sgd_analysis.history.writers import PREFIX, known_of
from sgd_analysis.recording.recorder import Recorder, record

_COUNTS = {"epoch", "n_steps", "n_samples"}  # which the frameworks have themselves


class RecordsFits:
    """Records one fit after the other, each anew.

    Args:
        criteria: the loss modules that are called, as for `record`; none needed.
        settings: the other arguments of `record`, such as `gradients="norms"`.
    """

    def __init__(self, *criteria: nn.Module, **settings: Any) -> None:
        super().__init__()
        self.recorders: list[Recorder] = []
        self._criteria, self._settings = criteria, settings
        self._n_logged: list[int] = []  # the epochs of each recorder that were handed on
        self._open = contextlib.ExitStack()

    @property
    def history(self) -> History:
        """What was recorded of the only optimizer; while training, too.

        Raises:
            ValueError: if there are several, or no fit has begun.
        """
        if len(self.recorders) != 1:
            raise ValueError(
                "history is what was recorded of one optimizer, and here are "
                f"{len(self.recorders)}: histories has one for each, once training has begun"
            )
        return self.recorders[0].history

    @property
    def histories(self) -> list[History]:
        """What was recorded of each optimizer."""
        return [recorder.history for recorder in self.recorders]

    def _begin(
        self,
        optimizers: Iterable[torch.optim.Optimizer],
        named_parameters: Iterable[tuple[str, Tensor]],
    ) -> None:
        """Attach to the optimizers, whose parameters have these names."""
        self._open.close()  # what was never ended
        self._attach(optimizers, named_parameters)

    def _begin_to_follow(
        self,
        optimizer: Any,
        method: str,
        groups: Callable[[], list[dict[str, Any]]],
        named_parameters: Iterable[tuple[str, Tensor]],
    ) -> None:
        """Attach to an optimizer that is not torch's: see `Follower`."""
        self._open.close()
        follower = follower_of(optimizer, method, groups)
        self._open.callback(follower.leave)
        self._attach([follower], named_parameters)

    def _attach(
        self,
        optimizers: Iterable[torch.optim.Optimizer],
        named_parameters: Iterable[tuple[str, Tensor]],
    ) -> None:
        self.recorders, settings = [], {"named_parameters": [*named_parameters]} | self._settings
        try:
            for optimizer in optimizers:
                recorder = record(optimizer, *self._criteria, **settings)
                self.recorders.append(self._open.enter_context(recorder))
        except BaseException:
            self._open.close()
            raise
        self._n_logged = [recorder.history.n_epochs for recorder in self.recorders]

    def _end_epoch(self) -> dict[str, float]:
        """End the epoch.

        Returns:
            What is known of it, by name; nothing if there was no step in it.
        """
        row = {}
        for i, recorder in enumerate(self.recorders):
            recorder.end_epoch()
            history = recorder.history
            if history.n_epochs > self._n_logged[i]:
                self._n_logged[i] = history.n_epochs
                prefix = PREFIX if len(self.recorders) == 1 else f"{PREFIX}{i}/"
                for name, number in known_of(history[-1].epochs(), -1).items():
                    if name not in _COUNTS:
                        row[prefix + name] = number
        return row

    def _end(self, error: BaseException | None = None) -> None:
        """Take every hook off; what there is to say after an error is added to it."""
        if error is None:
            self._open.close()
        else:
            self._open.__exit__(type(error), error, error.__traceback__)
