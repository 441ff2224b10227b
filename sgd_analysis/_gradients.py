"""Reading the vectors of a step off its parameters: whole, as a norm, or into a sum."""

import math
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._columns import Value
from sgd_analysis._validation import as_array
from sgd_analysis._vectors import norms

# The gradients of all parameters, kept alive while a pass runs, and their versions.
State: TypeAlias = tuple[list[Tensor | None], list[int | None]]
_PLAIN = (Tensor, torch.nn.Parameter)
_BLOCK_BYTES = 1 << 20  # of the vectors that are stored together, and at most so many of them
_BLOCK_ROWS = 256


def n_bytes(parameters: Iterable[Tensor]) -> int:
    """Return what one vector over the parameters takes when it is kept."""
    return sum(p.numel() * (4 if p.dtype == torch.bfloat16 else p.itemsize) for p in parameters)


def state(parameters: Iterable[Tensor]) -> State:
    """Return the gradients, and their versions, for `changed` to compare with after a pass."""
    gradients = [parameter.grad for parameter in parameters]
    return gradients, [None if g is None else g._version for g in gradients]


class Mark(NamedTuple):
    """A gradient as a backward pass has left it."""

    parameter: Tensor
    gradient: weakref.ref[Tensor]  # without keeping it alive
    version: int
    held_anything: bool | Tensor | None = None  # None: it was not looked at

    @property
    def is_there(self) -> bool:
        """Whether the parameter has the same gradient still, clipped or cleared or not."""
        found = self.parameter.grad
        return found is not None and found is self.gradient()

    @property
    def is_untouched(self) -> bool:
        """Whether it is as it was, as far as versions tell: `grad.data.zero_()` leaves them so."""
        found = self.parameter.grad
        return found is not None and found is self.gradient() and found._version == self.version

    def with_contents(self) -> "Mark":
        """Return it with a look at the gradient, which takes no waiting for a device."""
        gradient = self.gradient()
        if gradient is None:
            return self
        held = _holds_anything(on_this_process(gradient))
        return self._replace(held_anything=bool(held) if held.is_cpu else held)


def changed(parameters: Iterable[Tensor], before: State) -> Mark | None:
    """Return the first gradient that is another one than before, or has changed; None if none."""
    for parameter, known, version in zip(parameters, *before, strict=False):
        gradient = parameter.grad
        if gradient is not None and (gradient is not known or gradient._version != version):
            return Mark(parameter, weakref.ref(gradient), gradient._version)
    return None


def was_cleared(mark: Mark, parameters: Iterable[Tensor]) -> bool | Tensor:
    """Return whether gradients were cleared since a pass; a tensor if only a device knows."""
    if mark.is_untouched:
        if mark.held_anything is False:
            return False
        holds = _holds_anything(on_this_process(mark.parameter.grad))  # type: ignore[arg-type]
        if holds.is_cpu and holds:
            return False
        if isinstance(mark.held_anything, Tensor):
            return mark.held_anything & _all_zero(parameters)
    return _all_zero(parameters)


def _all_zero(parameters: Iterable[Tensor]) -> bool | Tensor:
    # Those of frozen parameters do not count: they may be left over from before.
    gradients = [
        on_this_process(p.grad) for p in parameters if p.grad is not None and p.requires_grad
    ]
    if all(gradient.is_cpu for gradient in gradients):
        return not any(_holds_anything(gradient) for gradient in gradients)
    flags = [_holds_anything(gradient).to(gradients[0].device) for gradient in gradients]
    return ~torch.stack(flags).any()


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
    parts = [vector for vector in vectors if vector is not None]
    if not parts:
        return 0.0
    if any(part.is_sparse or part.itemsize < 4 for part in parts):
        parts = [part.coalesce().values() if part.is_sparse else part for part in parts]
        parts = [part.float() if part.itemsize < 4 else part for part in parts]
    parts = [part.detach() for part in parts]
    total = _norm_of_norms(torch._foreach_norm(parts))
    if not total.is_cpu:
        return total
    if total.item() == math.inf:  # their squares may be too large for the dtype, not they
        total = _norm_of_norms([torch.linalg.vector_norm(p, dtype=_double(p)) for p in parts])
    return total.item()


class _Block(NamedTuple):
    """Rows to copy vectors into: that of step `first`, and of the steps after it."""

    first: int
    parts: list[Tensor]  # for each parameter its part of all rows
    places: list[tuple[Tensor, ...]]  # for each row its parts


class Kept:
    """Vectors kept whole, those of the first steps, in the parameters' dtype (bfloat16: float32).

    They are copied into blocks of rows, on the device they come from, and wait there for `store`;
    a full block in main memory is stored at once, and used again. Each vector has the number of
    its step for a place, so that one that was written for a step that never came to be, because
    of an interrupt, is written over by the next.

    Args:
        missing: what stands in the earlier rows for a parameter that was added later.
        rows: (n, n_parameters) the vectors to begin with.
    """

    def __init__(self, missing: float, rows: NDArray[Any] | None = None) -> None:
        self._missing = missing
        self._rows = np.empty((0, 0), np.float16) if rows is None else rows
        self._n_stored = self._n_measured = len(self._rows)
        self._room = sys.maxsize
        self._parameters: Sequence[Tensor] = ()
        self._waiting: list[_Block] = []  # the full blocks, on a device
        self._block = _Block(self._n_stored, [], [])

    @property
    def rows(self) -> NDArray[Any]:
        """A view (n, n_parameters) of what was stored."""
        return self._rows[: self._n_stored]

    def lay_out(self, parameters: Sequence[Tensor], n_steps: int, room: int) -> None:
        """Say over which parameters the vectors after the first n_steps go, and how many fit."""
        self.store(n_steps)
        self._parameters, self._room = parameters, room
        self._block = _Block(n_steps, [], [])

    def write(self, step: int, vector: Sequence[Tensor | None]) -> None:
        """Copy the vector of a step, in parts, None standing for zeros."""
        if step - self._block.first >= len(self._block.places):
            self._begin_block(step)
        place = self._block.places[step - self._block.first]
        for part in vector:
            if part is None or part.requires_grad or part.layout is not torch.strided:
                break
        else:
            torch._foreach_copy_(place, vector)  # type: ignore[arg-type]  # no None among them
            return
        for row, part in zip(place, vector, strict=True):
            if part is None:
                row.zero_()
            else:
                row.copy_(part.detach() if part.layout is torch.strided else part.to_dense())

    def store(self, n_steps: int) -> None:
        """Bring the vectors of the first n_steps into main memory, and into their rows."""
        for block in self._waiting:
            self._store_block(block, n_steps)
        self._waiting = []
        self._store_block(self._block, n_steps)

    def measure(self, norm: NDArray[np.float64]) -> None:
        """Write the norms of the vectors that came since the last time into their rows."""
        new = slice(self._n_measured, self._n_stored)
        norm[new] = norms(self._rows[new])
        self._n_measured = self._n_stored

    def _begin_block(self, step: int) -> None:
        block = self._block
        if block.parts and all(part.is_cpu for part in block.parts):
            self.store(step)
            self._block = block._replace(first=step)
            return
        if block.parts:
            self._waiting = [*self._waiting, block]
        n_rows = min(max(_BLOCK_BYTES // (n_bytes(self._parameters) or 1), 1), _BLOCK_ROWS)
        parts = [p.detach().new_empty((n_rows, *p.shape)) for p in self._parameters]
        places = list(zip(*[part.unbind() for part in parts], strict=True))
        self._block = _Block(step, parts, places)

    def _store_block(self, block: _Block, n_steps: int) -> None:
        first, end = self._n_stored, min(block.first + len(block.places), n_steps)
        if first >= end or not block.parts:
            return
        new = slice(first - block.first, end - block.first)
        parts = [as_array(part[new].reshape(end - first, -1)) for part in block.parts]
        self._reserve(end, sum(part.shape[1] for part in parts), np.result_type(*parts))
        np.concatenate(parts, axis=1, out=self._rows[first:end])
        self._n_stored = end

    def _reserve(self, n_rows: int, width: int, dtype: np.dtype[Any]) -> None:
        capacity, known = self._rows.shape
        dtype = np.result_type(self._rows, dtype)
        if n_rows <= capacity and width == known and dtype == self._rows.dtype:
            return
        if n_rows > capacity:
            # While they are copied the old rows are there, too: the last time, they are half of
            # all that may be kept.
            capacity = self._room
            while capacity // 2 >= n_rows:
                capacity //= 2
            capacity = max(capacity, n_rows)
        grown = np.empty((capacity, width), dtype)
        grown[: self._n_stored, :known] = self.rows
        grown[: self._n_stored, known:] = self._missing
        self._rows = grown


class PathSum:
    """The sum of an epoch's gradients, each times its weight: O(n_parameters), however many.

    Args:
        parameters: the optimizer's parameters.
        path: (n_parameters,) what the sum begins with; zeros unless given.
    """

    def __init__(self, parameters: Sequence[Tensor], path: NDArray[Any] | None = None) -> None:
        self._sums = [_zeros(p) for p in parameters]
        if path is not None:
            sizes = [parameter.numel() for parameter in parameters]
            whole = np.pad(path, (0, sum(sizes) - len(path)))  # for parameters added since
            for total, part in zip(self._sums, torch.from_numpy(whole).split(sizes), strict=True):
                total.copy_(part.view_as(total))

    def add(
        self, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor], weight: Value
    ) -> None:
        """Add one step's gradient times its weight."""
        known = len(self._sums)
        self._sums += [_zeros(parameter) for parameter in parameters[known:]]
        pairs = [
            (total, part.detach())
            for total, part in zip(self._sums, gradients, strict=True)
            if part is not None
        ]
        if isinstance(weight, Tensor):
            for total, part in pairs:
                total.add_(part * weight.to(part.device))
        elif any(part.is_sparse for _, part in pairs):
            for total, part in pairs:
                total.add_(part, alpha=weight)
        elif pairs:
            torch._foreach_add_(*map(list, zip(*pairs, strict=True)), alpha=weight)

    def spoil(self) -> None:
        """Make the sum nan: it is not that of the steps any more."""
        for total in self._sums:
            total.fill_(math.nan)

    def vector(self) -> NDArray[Any]:
        """Return a copy of the sum as one vector (n_parameters,), waiting for the device."""
        return np.concatenate([as_array(total).ravel() for total in self._sums])

    def norm(self) -> float:
        """Return the norm of the sum, waiting for the device."""
        return float(norm(self._sums))


def _norm_of_norms(norms: Sequence[Tensor]) -> Tensor:
    together = torch.stack([norm.to(norms[0].device) for norm in norms])
    total: Tensor = torch.linalg.vector_norm(together)
    return total


def _double(part: Tensor) -> torch.dtype:
    return torch.complex128 if part.is_complex() else torch.float64


def _zeros(like: Tensor) -> Tensor:
    """Return zeros to sum up in, in single precision at least."""
    dtype = like.dtype if like.itemsize >= 4 else torch.float32
    return torch.zeros(like.shape, dtype=dtype, device=like.device)


def _holds_anything(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        return torch.tensor(gradient._nnz() > 0)
    return gradient.any()
