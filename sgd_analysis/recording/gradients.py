"""What is read off gradients: their norm, this process's part of them, their bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sgd_analysis._arrays import Value

_PLAIN = (Tensor, torch.nn.Parameter)


def n_bytes(parameters: Iterable[Tensor]) -> int:
    """Return what one vector over the parameters takes when it is kept."""
    return sum(p.numel() * (4 if p.dtype == torch.bfloat16 else p.itemsize) for p in parameters)


def on_this_process(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor that several share, and any other as it is."""
    # A DTensor; its module is not imported here. Asking its type would cost more.
    return tensor if type(tensor) in _PLAIN else getattr(tensor, "to_local", lambda: tensor)()


def unscaled(
    gradients: Iterable[Tensor | None], scale: Tensor | float, overflow: Tensor
) -> list[Tensor | None]:
    """Return gradients without the scale of mixed precision; nan where it overflowed."""
    return [g if g is None else torch.where(overflow > 0, torch.nan, g / scale) for g in gradients]


def norm(vectors: Iterable[Tensor | None]) -> Value:
    """Return the Euclidean norm of all entries together, None standing for zeros."""
    parts = [_plain(vector) for vector in vectors if vector is not None]
    if not parts:
        return 0.0
    total = _norm_of_norms(torch._foreach_norm(parts))
    if not total.is_cpu:
        return total
    if total.item() == math.inf:  # their squares may be too large for the dtype, not they
        total = _norm_of_norms([torch.linalg.vector_norm(p, dtype=_double(p)) for p in parts])
    return total.item()


def _plain(part: Tensor) -> Tensor:
    """Return the entries without a graph, dense and in single precision at least."""
    if part.requires_grad:
        part = part.detach()
    if part.is_sparse:
        part = part.coalesce().values()
    return part if part.itemsize >= 4 else part.float()


def _norm_of_norms(norms: Sequence[Tensor]) -> Tensor:
    device = norms[0].device
    together = torch.stack([n if n.device == device else n.to(device) for n in norms])
    total: Tensor = torch.linalg.vector_norm(together)
    return total


def _double(part: Tensor) -> torch.dtype:
    return torch.complex128 if part.is_complex() else torch.float64
