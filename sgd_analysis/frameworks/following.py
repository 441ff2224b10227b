"""A torch optimizer that makes the steps of one that is none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


class _StandIn:
    """Called in place of a method; in a copy of its owner, pickled or deep, it is the method."""

    def __init__(self, owner: Any, method: str, instead: Callable[..., Any]) -> None:
        self._owner, self._method, self._instead = owner, method, instead

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._instead(*args, **kwargs)

    def __reduce__(self) -> Any:
        return functools.partial, (getattr(type(self._owner), self._method), self._owner)


class Follower(torch.optim.Optimizer):
    """Steps whenever an optimizer of another kind does, so that this can be recorded.

    From its making until `leave`, it stands in for the other one's method: `step` calls that.

    Args:
        followed: the optimizer that makes the updates.
        method: the name of its method that makes one.
        groups: returns its parameters and step sizes as they are, as torch's optimizers have them.
    """

    def __init__(
        self, followed: Any, method: str, groups: Callable[[], list[dict[str, Any]]]
    ) -> None:
        super().__init__(groups(), {})
        self._followed, self._method, self._groups = followed, method, groups
        self._update = getattr(followed, method)
        object.__setattr__(followed, method, _StandIn(followed, method, self._make_step))

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Make the update.

        Returns:
            What the other optimizer returns.
        """
        return self._update(*args, **kwargs)

    def leave(self) -> None:
        """Let the other optimizer alone again."""
        if isinstance(vars(self._followed).get(self._method), _StandIn):
            object.__delattr__(self._followed, self._method)

    def _make_step(self, *args: Any, **kwargs: Any) -> Any:
        self.param_groups = self._groups()
        return self.step(*args, **kwargs)


def follower_of(followed: Any, method: str, groups: Callable[[], list[dict[str, Any]]]) -> Follower:
    """Return a Follower whose class has the name of the other's, which a history keeps."""
    kind: type[Follower] = type(type(followed).__name__, (Follower,), {})
    return kind(followed, method, groups)
