"""Attach to every optimizer that makes a step, whoever has made it and wherever.

The backward pass of a first step comes before it: to have its loss, one must know the optimizer
by then. Those that are there are found among the objects that Python's garbage collector tracks;
those made later pass through `Optimizer.__init__`, or `__setstate__` if they are copied or loaded,
in whose place stands a function of ours meanwhile. What comes by neither way is met at its step.
"""

from __future__ import annotations

import functools
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.messages import tell
from sgd_analysis.recording.recorder import Recorder, record
from sgd_analysis.recording.standing_in import Place, StandIn

_logger = logging.getLogger("sgd_analysis")
_NOT_FOR_ALL = ("history", "loss", "named_parameters")  # each is about a certain optimizer
_NAMED = 3  # optimizers that a message names, of those that it is about


def record_all(**options: Any) -> AbstractContextManager[list[Recorder]]:
    """Record every optimizer that makes a step inside a `with`, in whichever thread.

    Use it where the optimizer is out of reach: in a framework, or in a function that makes its
    own. `python -m sgd_analysis script.py` does the same for a whole script.

    An optimizer that is there before, or is made inside, is recorded from its first step on; with
    its loss, unless Python's garbage collector was told to overlook it (`gc.freeze()`). One that
    makes no step leaves no recorder, and one that wraps another, if both make steps, leaves two.
    What you record by hand is recorded here, too. No optimizer is kept alive: a recorder whose
    optimizer is gone keeps what was recorded, and nothing of the model.

    Args:
        options: those of `record`, for each optimizer; not `history`, `loss`, `named_parameters`.

    Returns:
        A context manager. It gives the list of recorders, in the order of the optimizers' first
        steps; it grows as they are made. They are closed at the end, and what they have to say is
        one warning.

    Raises:
        TypeError: if an option is none of `record`, is of the wrong kind, or is about a certain
            optimizer.
        ValueError: if an option is out of range.

    Example:
        >>> import torch
        >>> from sgd_analysis import record_all
        >>> def train():
        ...     model = torch.nn.Linear(2, 1)
        ...     optimizer = torch.optim.Adam(model.parameters())
        ...     for _ in range(6):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(5, 2)).square().mean().backward()
        ...         optimizer.step()
        >>> with record_all(steps_per_epoch=3, n_samples=5) as recorders:
        ...     train()
        >>> [(r.history.n_steps, r.history.n_epochs) for r in recorders]
        [(6, 2)]
    """
    if refused := [name for name in _NOT_FOR_ALL if name in options]:
        raise TypeError(
            f"record_all() takes no {refused[0]}=, which is about one optimizer: give it to "
            "record(optimizer)"
        )
    # What `record` would refuse is refused here, and not when the first optimizer is met.
    record(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), **options).close()
    return Everywhere(options)


class Everywhere:
    """The context manager of `record_all`; `start` and `stop` are its two halves.

    Args:
        options: of `record`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.recorders: list[Recorder] = []
        self._options = options
        self._names: list[str] = []  # of their optimizers
        self._attached: dict[int, weakref.finalize[Any, Any]] = {}  # by the optimizer's id
        self._waiting: dict[int, Recorder] = {}  # those whose optimizer has made no step
        self._said: dict[Recorder, list[str]] = {}
        self._said_without_step: set[str] = set()
        self._failures: list[str] = []
        self._failed: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # and not tried again
        self._logged: set[str] = set()
        self._handle: Any = None

    def __enter__(self) -> list[Recorder]:
        self.start()
        return self.recorders

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tell(self.stop(), "record_all()", error, stacklevel=2)

    def start(self) -> None:
        """Attach to every optimizer from now on."""
        guard = Guard(lambda error: self._failures.append(f"recording has failed: {error!r}"))
        self._handle = register_optimizer_step_pre_hook(guard(self._step_begins))
        _logger.addFilter(self._is_new)
        _active.add(self)
        for optimizer in _alive():
            self.meet(optimizer)

    def stop(self) -> list[str]:
        """Take every hook off.

        Returns:
            What there is to say.
        """
        self._handle.remove()
        _active.remove(self)
        _logger.removeFilter(self._is_new)
        for let_go in list(self._attached.values()):
            let_go()
        if not self.recorders:
            return self._failures or sorted(self._said_without_step)
        about: dict[str, list[str]] = {}
        for name, recorder in zip(self._names, self.recorders, strict=True):
            for message in self._said.get(recorder, []):
                about.setdefault(message, []).append(name)
        return [*(f"{_listed(n)}: {message}" for message, n in about.items()), *self._failures]

    def meet(self, optimizer: Optimizer) -> Exception | None:
        """Attach to an optimizer, unless that is done.

        Returns:
            Why it cannot be done.
        """
        key = id(optimizer)
        if (let_go := self._attached.get(key)) is not None:
            if optimizer._optimizer_step_pre_hooks:
                return None
            let_go()  # its __init__ was called again, and has dropped the hooks
        try:
            recorder = record(optimizer, **self._options)
        except Exception as error:
            return error
        self._waiting[key] = recorder
        self._attached[key] = let_go = weakref.finalize(optimizer, self._let_go, key, recorder)
        let_go.atexit = False
        return None

    def _step_begins(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        key = id(optimizer)
        if key in self._attached and key not in self._waiting:
            return
        name = f"{len(self._names) + 1} ({type(optimizer).__name__}, {_size(optimizer)})"
        if key not in self._attached:
            if optimizer in self._failed:
                return
            if (error := self.meet(optimizer)) is not None:
                self._failed.add(optimizer)
                failure = f"{type(optimizer).__name__} cannot be recorded: {error!r}"
                self._failures += [failure] * (failure not in self._failures)
                return
        self._names.append(name)
        self.recorders.append(self._waiting.pop(key))

    def _is_new(self, logged: logging.LogRecord) -> bool:
        """Return whether no recorder has logged the same before: there may be thousands."""
        message = logged.getMessage()
        is_new = message not in self._logged
        self._logged.add(message)
        return is_new

    def _let_go(self, key: int, recorder: Recorder) -> None:
        """Close a recorder whose optimizer is gone, or at the end."""
        del self._attached[key]
        messages = recorder._let_go()
        if self._waiting.pop(key, None) is None:
            self._said[recorder] = messages
        else:
            self._said_without_step |= set(messages)


def _places() -> Iterator[Place]:
    for name in ("__init__", "__setstate__"):
        yield Place(Optimizer, name, _then_meeting(getattr(Optimizer, name)))


_active: StandIn[Everywhere] = StandIn(_places)


def _then_meeting(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def call(self: Optimizer, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for everywhere in _active:
            everywhere.meet(self)

    return call


def _alive() -> list[Optimizer]:
    return [found for found in gc.get_objects() if issubclass(type(found), Optimizer)]


def _size(optimizer: Optimizer) -> str:
    return f"{sum(len(group['params']) for group in optimizer.param_groups)} tensors"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"optimizer{'s' * (len(names) > 1)} {', '.join(names[:_NAMED])}{more}"
