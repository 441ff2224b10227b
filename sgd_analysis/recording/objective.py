"""The objective of a backward pass: the number whose gradient it computes."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording import backward
from sgd_analysis.recording.gradients import on_this_process
from sgd_analysis.recording.values import number

# The factor of what nothing has scaled: known by `is`, as any other may be on a device.
WHOLE = 1.0


def objective(roots: Sequence[Any], seeds: Sequence[Tensor | None], scale: Value) -> Value:
    """Return the sum of the roots, each times the gradient that the pass begins with.

    The factor of a GradScaler, `scale`, is taken out of it.
    """
    if len(roots) == 1:
        return _unscaled(roots[0], seeds[0], scale)
    values = [_unscaled(*pair, scale) for pair in zip(roots, seeds, strict=True)]
    return functools.reduce(operator.add, values) if values else math.nan


def _unscaled(root: Any, seed: Tensor | None, scale: Value) -> Value:
    if not isinstance(root, Tensor):
        return math.nan  # an edge of the graph, whose value is gone
    if scale is WHOLE:
        return _inner_product(on_this_process(root), seed)
    before = backward.before_scaling(root)
    if before is None:
        return _inner_product(on_this_process(root), seed) / scale
    return _inner_product(on_this_process(before), seed)


def scale_of(roots: Sequence[Any]) -> Value:
    """Return the factor by which a GradScaler has multiplied the roots, `WHOLE` if none has."""
    known = backward.scaled()
    if not known:
        return WHOLE
    nodes: list[Any] = [getattr(root, "grad_fn", None) for root in roots]
    for _ in range(3):  # scaled losses may have been added up, or divided
        nodes = [node for node in nodes if node is not None]
        for made_by in nodes:
            if found := known.get(made_by._sequence_nr()):
                return number(found.scale)
        nodes = [below for node in nodes for below, _ in node.next_functions]
    return WHOLE


def _inner_product(root: Tensor, seed: Tensor | None) -> Value:
    if root.is_complex():
        return math.nan
    seed = None if seed is None else on_this_process(seed)
    if root.numel() == 1:
        if root.is_cpu:
            return root.item() if seed is None else root.item() * seed.item()
        value = root.detach().reshape(())
        return value.clone() if seed is None else value * seed.reshape(())
    wide = torch.float32 if root.device.type == "mps" else torch.float64
    value = root.detach().to(wide)
    value = value.sum() if seed is None else (value * seed.detach()).sum()
    return value.item() if value.is_cpu else value
