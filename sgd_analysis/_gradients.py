"""Reading the vectors of a step off its parameters: whole, as a norm, or into a sum."""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._columns import Value
from sgd_analysis._validation import as_array
from sgd_analysis._vectors import norms

# For each parameter its gradient, without keeping it alive, and the gradient's version.
State: TypeAlias = list[tuple[weakref.ref[Tensor], int] | None]

_BLOCK_BYTES = 1 << 20  # of the vectors that are stored together, and at most so many of them
_BLOCK_ROWS = 256


def n_bytes(parameters: Iterable[Tensor]) -> int:
    """Return what one vector over the parameters takes when it is kept."""
    return sum(p.numel() * (4 if p.dtype == torch.bfloat16 else p.itemsize) for p in parameters)


def state(parameters: Iterable[Tensor]) -> State:
    """Return what `has_passed` needs to tell if a backward pass has come since."""
    found: State = []
    for parameter in parameters:
        gradient = parameter.grad
        found.append(None if gradient is None else (weakref.ref(gradient), gradient._version))
    return found


def has_passed(parameters: Iterable[Tensor], before: State) -> bool:
    """Return whether there are gradients other than before, or changed ones."""
    for parameter, known in zip(parameters, before, strict=False):
        gradient = parameter.grad
        if gradient is not None and (
            known is None or known[0]() is not gradient or known[1] != gradient._version
        ):
            return True
    return False


def cleared(parameters: Iterable[Tensor]) -> bool | Tensor:
    """Return whether gradients were cleared, by None or zeros; a tensor if a device knows."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    # A gradient that a backward pass has made and nobody has touched since has version 0: if it
    # is zero, it was not cleared.
    if not gradients or any(gradient._version == 0 for gradient in gradients):
        return not gradients
    if all(gradient.is_cpu for gradient in gradients):
        return not any(_holds_anything(gradient) for gradient in gradients)
    flags = [_holds_anything(gradient).to(gradients[0].device) for gradient in gradients]
    return ~torch.stack(flags).any()


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
    each = torch._foreach_norm([part.detach() for part in parts])
    total: Tensor = torch.linalg.vector_norm(torch.stack([one.to(each[0].device) for one in each]))
    return total.item() if total.is_cpu else total


class Kept:
    """Vectors kept whole, those of the first steps, in the parameters' dtype (bfloat16: float32).

    They are copied into blocks of rows, on the device they come from, and wait there for `store`;
    a full block in main memory is stored at once, and used again.

    Args:
        missing: what stands in the earlier rows for a parameter that was added later.
        rows: (n, n_parameters) the vectors to begin with.
    """

    def __init__(self, missing: float, rows: NDArray[Any] | None = None) -> None:
        self._missing = missing
        self._rows = np.empty((0, 0), np.float16) if rows is None else rows
        self._n_stored = self._n_measured = len(self._rows)
        self._parameters: Sequence[Tensor] = ()
        self._waiting: list[list[Tensor]] = []  # the full blocks, on a device
        self._block: list[Tensor] = []  # for each parameter its part of some rows
        self._places: list[tuple[Tensor, ...]] = []  # for each row its parts
        self._n_used = self._n_taken = 0  # of the block's rows: hold a vector, are stored

    @property
    def rows(self) -> NDArray[Any]:
        """A view (n, n_parameters) of what was stored."""
        return self._rows[: self._n_stored]

    def lay_out(self, parameters: Sequence[Tensor]) -> None:
        """Say over which parameters the vectors that follow go."""
        self.store()
        self._parameters = parameters
        self._block, self._places = [], []
        self._n_used = self._n_taken = 0

    def write(self, vector: Sequence[Tensor | None]) -> None:
        """Copy one vector, in parts, None standing for zeros; it is not there until `count`."""
        if self._n_used == len(self._places):
            self._begin_block()
        place = self._places[self._n_used]
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

    def count(self) -> None:
        """Add the vector that was written last."""
        self._n_used += 1

    def store(self) -> None:
        """Bring the vectors that wait into main memory, and into their rows."""
        for block in self._waiting:
            self._store_rows(block)
        self._waiting = []
        if self._n_used > self._n_taken:
            new = slice(self._n_taken, self._n_used)
            self._store_rows([part[new] for part in self._block])
            self._n_taken = self._n_used

    def measure(self, norm: NDArray[np.float64]) -> None:
        """Write the norms of the vectors that came since the last time into their rows."""
        new = slice(self._n_measured, self._n_stored)
        norm[new] = norms(self._rows[new])
        self._n_measured = self._n_stored

    def _begin_block(self) -> None:
        if self._block and all(part.is_cpu for part in self._block):
            self.store()
        else:
            if self._block:
                self._waiting.append([part[self._n_taken :] for part in self._block])
            n_rows = min(max(_BLOCK_BYTES // (n_bytes(self._parameters) or 1), 1), _BLOCK_ROWS)
            self._block = [p.detach().new_empty((n_rows, *p.shape)) for p in self._parameters]
            self._places = list(zip(*[part.unbind() for part in self._block], strict=True))
        self._n_used = self._n_taken = 0

    def _store_rows(self, block: list[Tensor]) -> None:
        parts = [as_array(part.reshape(len(part), -1)) for part in block]
        n_new, width = len(parts[0]), sum(part.shape[1] for part in parts)
        self._reserve(n_new, width, np.result_type(*parts))
        new = slice(self._n_stored, self._n_stored + n_new)
        np.concatenate(parts, axis=1, out=self._rows[new])
        self._n_stored += n_new

    def _reserve(self, n_new: int, width: int, dtype: np.dtype[Any]) -> None:
        capacity, known = self._rows.shape
        needed = self._n_stored + n_new
        if needed <= capacity and width == known:
            return
        grown = np.empty(
            (max(needed, 2 * self._n_stored), width), np.result_type(self._rows, dtype)
        )
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

    def vector(self) -> NDArray[Any]:
        """Return a copy of the sum as one vector (n_parameters,), waiting for the device."""
        return np.concatenate([as_array(total).ravel() for total in self._sums])

    def norm(self) -> float:
        """Return the norm of the sum, waiting for the device."""
        return float(norm(self._sums))


def _zeros(like: Tensor) -> Tensor:
    """Return zeros to sum up in, in single precision at least."""
    dtype = like.dtype if like.itemsize >= 4 else torch.float32
    return torch.zeros(like.shape, dtype=dtype, device=like.device)


def _holds_anything(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        return torch.tensor(gradient._nnz() > 0)
    return gradient.any()
