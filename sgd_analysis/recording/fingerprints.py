"""A fingerprint of 64 bits for each sample of a batch, by which it is known when it comes again.

A row's words of 32 bits are added up, each times a multiplier of 64 random bits of its own. Two
rows that differ share the upper half of such a sum with a probability of 2⁻³² (multilinear
hashing, which is strongly universal: Lemire and Kaser, "Strongly universal string hashing is
fast", 2014), and those of two sums with 2⁻⁶⁴. Sums of integers are the same in any order, on any
number of threads and on any device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

_BLOCK = 1 << 20  # words that are multiplied at once
_LOW = 0xFFFFFFFF


def fingerprints(batch: object) -> Tensor:
    """Return the fingerprints (n,) of a batch's n samples, as int64 on its device.

    A sample is what is in one row, along their first dimension, of all tensors and arrays in the
    batch, inputs and targets, whatever tuples and mappings hold them. Zeros that a row is padded
    with at its end change nothing. What is neither a tensor nor an array, or is a single number,
    counts for nothing.

    Raises:
        ValueError: if there is no tensor, they have not the same number of rows and device, or one
            is sparse, nested or quantized.
    """
    tensors = [tensor for tensor in _tensors(batch) if tensor.ndim]
    _check(tensors)
    sums = torch.stack([_sums(tensor, place) for place, tensor in enumerate(tensors)]).sum(0)
    return sums[:, 0] & ~_LOW | sums[:, 1] >> 32 & _LOW


def _check(tensors: list[Tensor]) -> None:
    if any(t.layout != torch.strided or t.is_nested or t.is_quantized for t in tensors):
        kinds = [f"{t.dtype} as {t.layout}{', nested' * t.is_nested}" for t in tensors]
        raise ValueError(f"the tensors of a batch must be dense and not quantized, got {kinds}")
    if len({(len(tensor), tensor.device) for tensor in tensors}) != 1:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ValueError(
            "the tensors of a batch must have one row a sample, all on one device, got shapes "
            f"{shapes}"
        )


def _tensors(batch: object) -> Iterator[Tensor]:
    match batch:
        case Tensor():
            yield batch.detach()
        case np.ndarray() if batch.dtype.kind in "biufc":
            native = batch.dtype.newbyteorder("=")
            yield torch.from_numpy(np.require(batch, native, ["C", "W"]))
        case Mapping():
            for key in sorted(batch, key=str):
                yield from _tensors(batch[key])
        case list() | tuple():
            for part in batch:
                yield from _tensors(part)


def _sums(tensor: Tensor, place: int) -> Tensor:
    """Return the two sums (n, 2) of a tensor's n rows, which is the batch's next one."""
    words = _words(tensor)
    multipliers = _multipliers(place, words.shape[1], words.device)
    n_columns = max(_BLOCK // max(len(words), 1), 1)
    blocks = zip(words.split(n_columns, 1), multipliers.split(n_columns), strict=True)
    multiplied = _multiplied if words.is_cpu else _multiplied_there
    return torch.stack([multiplied(*block) for block in blocks]).sum(0)


def _multiplied(words: Tensor, by: Tensor) -> Tensor:
    # torch multiplies no matrices of integers on a GPU, and slowly elsewhere.
    return torch.from_numpy(words.numpy().astype(np.int64) @ by.numpy())


def _multiplied_there(words: Tensor, by: Tensor) -> Tensor:
    return (words[:, :, None] * by).sum(1)


def _words(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor as integers of 32 bits (n, n_words)."""
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    rows = tensor.view(len(tensor), math.prod(tensor.shape[1:])).view(torch.uint8)
    if missing := -rows.shape[1] % 4:
        rows = torch.cat([rows, rows.new_zeros(len(rows), missing)], 1)
    return rows.view(torch.int32)


@functools.lru_cache(maxsize=8)
def _multipliers(place: int, n_words: int, device: torch.device) -> Tensor:
    """Return multipliers (n_words, 2), the same on every machine: those of SplitMix64."""
    counters = torch.arange(1, n_words + 1, device=device) + (place << 40)
    x = torch.stack([counters, counters + (1 << 39)], 1)
    x = x * _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Return what unsigned integers would be, shifted to the right."""
    return x >> by & (1 << 64 - by) - 1


def _signed(number: int) -> int:
    return number - (1 << 64)
