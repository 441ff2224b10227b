"""How a model is given a batch, and which of what it returns is its own loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sgd_analysis._validation import kind_of


def called(model: nn.Module, batch: Any, *, spread: bool) -> Any:
    """Return what a model returns of a batch.

    A mapping is given as keyword arguments, and where `spread`, a tuple or a list as several
    arguments, if the model's forward takes them; otherwise the batch is one argument.

    Raises:
        TypeError: if some entries of a mapping are arguments of the forward, and others are not.
    """
    args: tuple[Any, ...] = (batch,)
    kwargs: dict[str, Any] = {}
    if isinstance(batch, Mapping):
        args, kwargs = (), dict(batch)
    elif spread and isinstance(batch, (tuple, list)):
        args = tuple(batch)
    else:
        return model(batch)
    signature = _signature(model)
    if signature is None or _takes(signature, args, kwargs):
        return model(*args, **kwargs)
    if any(name in signature.parameters for name in kwargs):
        raise TypeError(
            f"the batch is a mapping of {', '.join(map(repr, kwargs))}, and the model's forward "
            f"takes {signature}: let the loader yield exactly its arguments, with what the "
            'criterion takes beside them, as in (({"x": batch["x"]}, batch["y"]) for batch in '
            "loader)"
        )
    return model(batch)


def own_loss(outputs: Any) -> Any:
    """Return the loss among what a model returns.

    Raises:
        ValueError: if it is not plain which one it is.
    """
    losses = _losses_in(outputs)
    if len(losses) == 1:
        return losses[0]
    raise ValueError(
        "with criterion=None the model must return its loss: one number, a tuple with one number "
        "that has a gradient, an object or a mapping with the loss as `loss`, or a mapping of "
        f"losses to be added up, got {_described(outputs)}: give it its targets, or pick the "
        "loss by criterion=lambda output, batch: ..., with a loader that yields mappings of the "
        "forward's arguments"
    )


def _losses_in(outputs: Any) -> list[Any]:
    if isinstance(outputs, Tensor):
        return [outputs]
    is_mapping = isinstance(outputs, Mapping)
    loss = outputs.get("loss") if is_mapping else getattr(outputs, "loss", None)
    if loss is not None:
        return [loss]
    if is_mapping:
        parts = list(outputs.values())
        return [sum(parts)] if parts and all(map(_is_loss, parts)) else []
    return list(filter(_is_loss, outputs)) if isinstance(outputs, (tuple, list)) else []


def _signature(model: Any) -> inspect.Signature | None:
    """Return what a model's forward takes, None if that is unknown."""
    try:
        return inspect.signature(getattr(model, "_orig_mod", model).forward)  # if it is compiled
    except (TypeError, ValueError):
        return None


def _takes(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _is_loss(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 0 and part.requires_grad


def _described(outputs: Any) -> str:
    if isinstance(outputs, Mapping):
        return f"a mapping of {', '.join(map(repr, outputs))}"
    if isinstance(outputs, (tuple, list)):
        parts = (
            f"a tensor of shape {tuple(part.shape)}" if isinstance(part, Tensor) else kind_of(part)
            for part in outputs
        )
        return f"a {type(outputs).__name__} of {', '.join(parts)}"
    return kind_of(outputs)
