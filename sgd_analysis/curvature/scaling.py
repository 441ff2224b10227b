"""What an optimizer multiplies a gradient by, and the largest curvature that its steps bear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from sgd_analysis._arrays import quotient
from sgd_analysis._validation import kind_of

_Group: TypeAlias = Mapping[str, Any]


class Scaling(NamedTuple):
    """How one parameter moves: by diagonal times the gradient of the loss + decay/2 ‖w‖².

    The diagonal is relative to the largest step size, and None before a first step.
    """

    diagonal: Tensor | None
    decay: float


def scalings(optimizer: Optimizer) -> dict[nn.Parameter, Scaling]:
    """Return the present scaling of each of an optimizer's parameters.

    Raises:
        TypeError: if the optimizer is of a kind that is not known here.
        ValueError: if it maximises.
    """
    diagonal_of, _ = _known(optimizer)
    largest = _largest_step_size(optimizer)
    found = {}
    for group in optimizer.param_groups:
        decay = 0.0 if _is_decoupled(optimizer, group) else float(group["weight_decay"])
        relative = float(group["lr"]) / largest if largest else 1.0
        for parameter in group["params"]:
            # Not optimizer.state[parameter], which would make an entry.
            state = optimizer.state.get(parameter, {})
            is_new = diagonal_of is not _of_sgd and not float(state.get("step", 0))
            diagonal = None if is_new else diagonal_of(parameter.detach(), group, state) * relative
            found[parameter] = Scaling(diagonal, decay)
    return found


def stability_limit(optimizer: Optimizer) -> float:
    r"""Return the largest `preconditioned_sharpness` at which an optimizer's steps do not grow.

    On a quadratic, along an eigenvector of D H with eigenvalue λ, and with D held fixed, a step of
    size η with momentum β is :math:`w_{k+1} = w_k - \eta c \lambda w_k + \beta (w_k - w_{k-1})`.
    Its solutions are powers of the roots of :math:`z^2 - (1 + \beta - \eta c \lambda) z + \beta`,
    whose product is β < 1; as λ grows from 0, a root leaves the unit circle at z = −1, where
    :math:`\eta c \lambda = 2 (1 + \beta)`:

    - SGD and RMSprop, c = 1 (1 − τ with dampening τ): 2(1 + β)/η, and without momentum 2/η;
    - Adam and AdamW, whose momentum is a mean, c = 1 − β₁, once their first bias correction is
      gone: 2(1 + β₁)/((1 − β₁)η), which is 38/η for β₁ = 0.9;
    - SGD with Nesterov's momentum has
      :math:`z^2 - (1 + \beta)(1 - \eta\lambda) z + \beta (1 - \eta\lambda)`, whose root is −1
      at 2(1 + β)/((1 + 2β)η);
    - Adagrad: 2/η.

    AdamW's decoupled decay lowers it by the factor 1 − ηλ_w/2, λ_w the decay, which is left out.

    Args:
        optimizer: SGD, RMSprop, Adam, AdamW or Adagrad of `torch.optim`. Its groups may differ in
            their step sizes, of which η is the largest, but not in their momentum.

    Returns:
        The limit, inf where the step size is 0. A quadratic whose preconditioned sharpness is
        above it is left, at a geometric rate; a network's sharpness most often hovers there.

    Raises:
        TypeError: if the optimizer is of another kind.
        ValueError: if it maximises, or its groups have several momenta.

    Example:
        >>> import torch
        >>> from sgd_analysis import stability_limit
        >>> weights = [torch.nn.Parameter(torch.ones(1))]
        >>> stability_limit(torch.optim.SGD(weights, lr=0.5, momentum=0.5))
        6.0
        >>> round(stability_limit(torch.optim.Adam(weights, lr=0.001)))
        38000

    References:
        J. M. Cohen et al., Gradient descent on neural networks typically occurs at the edge of
        stability, 2021, arXiv:2103.00065; Adaptive gradient methods at the edge of stability,
        2022, arXiv:2207.14484.
    """
    _, factor_of = _known(optimizer)
    factors = {factor_of(group) for group in optimizer.param_groups}
    if len(factors) > 1:
        raise ValueError(
            "the optimizer's groups must have one momentum for one limit to hold, got several: "
            "compare the sharpness of each group's parameters, the others frozen, with a limit "
            "of its own"
        )
    return quotient(factors.pop(), _largest_step_size(optimizer))


def _largest_step_size(optimizer: Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _is_decoupled(optimizer: Optimizer, group: _Group) -> bool:
    return isinstance(optimizer, AdamW) or bool(group.get("decoupled_weight_decay"))


def _of_sgd(like: Tensor, group: _Group, state: _Group) -> Tensor:
    return torch.ones_like(like)


def _of_rmsprop(like: Tensor, group: _Group, state: _Group) -> Tensor:
    squares: Tensor = state["square_avg"]
    if group["centered"]:
        squares = squares - state["grad_avg"] ** 2
    return _inverse(squares, group)


def _of_adam(like: Tensor, group: _Group, state: _Group) -> Tensor:
    step, (beta1, beta2) = float(state["step"]), map(float, group["betas"])
    squares = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    return _inverse(squares / (1 - beta2**step), group, over=1 - beta1**step)


def _of_adagrad(like: Tensor, group: _Group, state: _Group) -> Tensor:
    decay = 1 + (float(state["step"]) - 1) * group["lr_decay"]
    return _inverse(state["sum"], group, over=decay)


def _inverse(squares: Tensor, group: _Group, *, over: float = 1.0) -> Tensor:
    divisor: Tensor = over * (squares.sqrt() + group["eps"])
    return divisor.reciprocal()


def _sgd_factor(group: _Group) -> float:
    beta = float(group["momentum"])
    if group["nesterov"]:
        return 2 * (1 + beta) / (1 + 2 * beta)
    return quotient(2 * (1 + beta), 1 - group["dampening"]) if beta else 2.0


def _adam_factor(group: _Group) -> float:
    beta = float(group["betas"][0])
    return 2 * (1 + beta) / (1 - beta)


_Kind: TypeAlias = tuple[Callable[[Tensor, _Group, _Group], Tensor], Callable[[_Group], float]]
_KINDS: dict[type[Optimizer], _Kind] = {
    SGD: (_of_sgd, _sgd_factor),
    RMSprop: (_of_rmsprop, lambda group: 2 * (1 + float(group["momentum"]))),
    Adam: (_of_adam, _adam_factor),
    AdamW: (_of_adam, _adam_factor),
    Adagrad: (_of_adagrad, lambda group: 2.0),
}


def _known(optimizer: Optimizer) -> _Kind:
    if type(optimizer) not in _KINDS:
        names = ", ".join(kind.__name__ for kind in _KINDS)
        raise TypeError(
            f"optimizer must be one of torch.optim's {names}, whose scaling is known, got "
            f"{kind_of(optimizer)}: of a wrapper, give the optimizer within"
        )
    if any(group["maximize"] for group in optimizer.param_groups):
        raise ValueError(
            "optimizer must minimise, got maximize=True: negate the loss instead, as in "
            "criterion=lambda predictions, targets: -objective(predictions, targets)"
        )
    return _KINDS[type(optimizer)]
