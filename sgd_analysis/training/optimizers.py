"""The optimizers that a run can have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor

Optimizer: TypeAlias = str | Callable[..., torch.optim.Optimizer]

ELEMENTWISE: tuple[type[torch.optim.Optimizer], ...] = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Rprop,
    torch.optim.ASGD,
)
"""Those whose update of a weight follows from its own gradients and the count of steps alone."""


def descend(parameters: Iterable[Tensor], step_size: float) -> None:
    """Make one update by hand, w ← w − η ∇f_b(w), of parameters that have a gradient."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad, alpha=-step_size)


class PlainSGD(torch.optim.Optimizer):
    """The update written by hand, as an optimizer, so that a recorder can be attached to it."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes none
        """Make one update."""
        for group in self.param_groups:
            descend(group["params"], group["lr"])


def make_optimizer(
    optimizer: Optimizer, parameters: Iterable[Tensor], step_size: float
) -> torch.optim.Optimizer:
    """Return an optimizer of some parameters, one that `check_optimizer` has let pass."""
    make = PlainSGD if isinstance(optimizer, str) else optimizer
    return make(parameters, lr=step_size)


def check_optimizer(optimizer: object, *, elementwise: bool) -> None:
    """Raise unless `train` can step with an optimizer, and many replicas, if that is asked for.

    Raises:
        TypeError: if it is of the wrong kind.
        ValueError: if its name is not known, or it mixes weights and replicas must not.
    """
    expected = 'optimizer must be "sgd", a class from torch.optim or a functools.partial of one'
    if isinstance(optimizer, str):
        if optimizer != "sgd":
            raise ValueError(f"{expected}, got {optimizer!r}")
        return
    cls = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise TypeError(f"{expected} (train makes its own copy of the model), got {optimizer!r}")
    if elementwise and cls not in ELEMENTWISE:
        names = ", ".join(known.__name__ for known in ELEMENTWISE)
        raise ValueError(
            f'optimizer must be "sgd" or one of {names}: all replicas are stepped at once, in one '
            "tensor, which assumes that each weight's update depends on that weight's own "
            f"gradients alone; got {cls.__name__}: use train(seed=...) for each seed"
        )
    if issubclass(cls, torch.optim.LBFGS):
        raise TypeError(
            "optimizer must make one update from one gradient, got LBFGS, which evaluates the "
            "loss several times a step"
        )
