"""What is read off gradients: their norm, this process's part of them, their bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sgd_analysis._arrays import Value

_PIECE = 1 << 16  # entries whose squares are summed up in their own precision
_SMALL = 1e-30  # a sum of squares from which on none that matters has underflown
_WIDE = (torch.float32, torch.float64)
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


def unscaled_norm(value: Value, scale: Value) -> Value:
    """Return a norm without the factor of mixed precision; nan where that overflowed."""
    if isinstance(value, Tensor):
        value = value / scale
        return torch.where(value.isfinite(), value, math.nan)
    value = value / float(scale)
    return value if math.isfinite(value) else math.nan


def norm(vectors: Sequence[Tensor | None]) -> Value:
    """Return the Euclidean norm of all entries together, None standing for zeros."""
    square = 0.0
    for part in vectors:
        if part is not None:
            if not part.is_cpu:
                return _norm_on_device([_plain(v) for v in vectors if v is not None])
            square += _square(part)
    if _SMALL < square < math.inf:
        return math.sqrt(square)
    # Squares may be too large or too small for the dtype, where the entries are not.
    parts = [_plain(vector).double() for vector in vectors if vector is not None]
    return math.hypot(*(torch.linalg.vector_norm(part).item() for part in parts))


def norm_of_each(vectors: Sequence[Tensor | None]) -> Tensor:
    """Return the norms (n,) of vectors, 0 for None, on the device that they are on."""
    away = [vector for vector in vectors if vector is not None and not vector.is_cpu]
    if not away:
        return torch.tensor([norm([vector]) for vector in vectors], dtype=torch.float64)
    device, norms = away[0].device, iter(torch._foreach_norm([_plain(v) for v in away]))
    return torch.stack(
        [
            torch.full((), float(norm([v])), device=device)
            if v is None or v.is_cpu
            else next(norms).to(device)
            for v in vectors
        ]
    )


def _square(part: Tensor) -> float:
    """Return the sum of the squares of entries in main memory.

    In pieces: single precision loses some per cent of a sum of a hundred million.
    """
    if part.dtype not in _WIDE or part.is_sparse:
        part = _plain(part)
    entries = part.reshape(-1)
    if len(entries) <= _PIECE:
        return torch.dot(entries, entries).item()
    return sum(torch.dot(piece, piece).item() for piece in entries.split(_PIECE))


def _plain(part: Tensor) -> Tensor:
    """Return real entries without a graph, dense and in single precision at least."""
    part = part.detach()
    if part.is_sparse:
        part = part.coalesce().values()
    if part.is_complex():
        part = torch.view_as_real(part)
    return part if part.itemsize >= 4 else part.float()


def _norm_on_device(parts: list[Tensor]) -> Tensor:
    norms = torch._foreach_norm(parts)
    device = norms[0].device
    together = torch.stack([n if n.device == device else n.to(device) for n in norms])
    total: Tensor = torch.linalg.vector_norm(together)
    return total
