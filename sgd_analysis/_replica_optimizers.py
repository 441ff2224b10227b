"""Optimizers that step many replicas held in one tensor as they would step each alone."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sgd_analysis.training import Optimizer

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


def update(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Callable[[float], None]:
    """Return a function of the step size that updates parameters from their `.grad`.

    Args:
        optimizer: one that `check_elementwise` has let pass.
        parameters: what it updates.

    Returns:
        A function to call once a step, without building a graph.
    """
    if isinstance(optimizer, str):

        def by_hand(eta: float) -> None:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-eta)

        return by_hand

    instance = optimizer(parameters, lr=1.0)  # its step size is set before each step

    def through_optimizer(eta: float) -> None:
        for group in instance.param_groups:
            group["lr"] = eta
        instance.step()

    return through_optimizer
