"""The optimizers that a run can have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor

from sgd_analysis._validation import kind_of
from sgd_analysis._weights import trainable
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.problems.least_squares import LeastSquares


class PlainSGD(torch.optim.Optimizer):
    """The update written by hand, as an optimizer, so that a recorder can be attached to it."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # it takes none
        """Make one update, w ← w − η ∇f_b(w)."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-group["lr"])


Optimizer: TypeAlias = str | Callable[..., torch.optim.Optimizer]


def check_method(problem: FiniteSum, optimizer: object, gradient: object) -> None:
    """Raise unless `train` knows the optimizer, and the gradient can be had that way.

    Raises:
        TypeError: if the optimizer is of the wrong kind.
        ValueError: if the optimizer's name is not known, or the gradient has no closed form.
    """
    expected = 'optimizer must be "sgd", a class from torch.optim or a functools.partial of one'
    if isinstance(optimizer, str):
        if optimizer != "sgd":
            raise ValueError(f"{expected}, got {optimizer!r}")
    else:
        cls = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
        if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
            raise TypeError(
                f"{expected} (train makes its own copy of the model), got {optimizer!r}"
            )
        if issubclass(cls, torch.optim.LBFGS):
            raise TypeError(
                "optimizer must make one update from one gradient, got LBFGS, which evaluates the "
                "loss several times a step"
            )
    if gradient not in ("autograd", "closed form"):
        raise ValueError(f'gradient must be "autograd" or "closed form", got {gradient!r}')
    if gradient == "closed form":
        if not isinstance(problem, LeastSquares):
            raise ValueError(
                'gradient="closed form" needs a LeastSquares, whose gradient has a formula, got a '
                f'{kind_of(problem)}: use gradient="autograd"'
            )
        dtype = trainable(problem.model)[0].dtype
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f'gradient="closed form" needs weights in float32 or float64, got {dtype}'
            )


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


def check_elementwise(optimizer: Optimizer) -> None:
    """Raise unless an optimizer updates each weight from that weight's own gradients.

    Args:
        optimizer: "sgd", a class, or a `functools.partial` of one.

    Raises:
        TypeError: if it is none of these.
        ValueError: if it has another name, or is a class not known to do so.
    """
    names = ", ".join(cls.__name__ for cls in ELEMENTWISE)
    expected = f'optimizer must be "sgd", a class from torch.optim (one of {names}) or a partial'
    if isinstance(optimizer, str):
        if optimizer != "sgd":
            raise ValueError(f"{expected} of one, got {optimizer!r}")
        return
    cls = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise TypeError(f"{expected} of one, got {optimizer!r}")
    if cls not in ELEMENTWISE:
        raise ValueError(
            f"{expected} of one: all replicas are stepped at once, in one tensor, which assumes "
            "that each weight's update depends on that weight's own gradients alone; got "
            f"{cls.__name__}: use train(seed=...) for each seed"
        )
