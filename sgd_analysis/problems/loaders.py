"""All samples of a DataLoader, read once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from sgd_analysis._random_state import undisturbed
from sgd_analysis._validation import kind_of


def all_samples(loader: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of all samples, in the order of the dataset's indices.

    Whatever random numbers the loader and its dataset draw, the random states stay as they were.

    Raises:
        TypeError: if there is nothing to iterate over, or a batch is no pair of tensors.
        ValueError: if there is no batch, the loader picks some of its dataset's samples, or
            samples differ in shape.
    """
    if not isinstance(loader, Iterable):
        raise TypeError(
            "loader must be a DataLoader, or an iterable of batches (inputs, targets), got "
            f"{kind_of(loader)}"
        )
    with undisturbed(loader):
        batches = list(_in_order(loader) if isinstance(loader, DataLoader) else loader)
    if not batches:
        raise ValueError("loader must give at least one batch, got none")
    inputs, targets = zip(*map(_pair, batches), strict=True)
    try:
        return torch.cat(inputs), torch.cat(targets)
    except RuntimeError as error:
        raise ValueError(f"loader must give samples of one shape: {error}") from None


def _in_order(loader: DataLoader[Any]) -> Iterable[Any]:
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        return loader
    batches: Any = loader.batch_sampler
    sampler = loader.sampler if batches is None else batches
    if type(batches) is BatchSampler:
        sampler = batches.sampler
    if type(sampler) not in (SequentialSampler, RandomSampler):
        raise ValueError(
            "loader must go through its whole dataset, in order or shuffled, got a "
            f"{kind_of(sampler)}: if it picks some of the samples, give a loader of "
            "torch.utils.data.Subset(dataset, indices)"
        )
    samples = [dataset[index] for index in range(len(dataset))]
    if batches is None:  # they are batches already
        return map(loader.collate_fn, samples)
    return [loader.collate_fn(samples)] if samples else []


def _pair(batch: Any) -> Any:
    parts = batch if isinstance(batch, (tuple, list)) else ()
    if len(parts) != 2 or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        given = ", ".join(map(_kind, parts)) or _kind(batch)
        raise TypeError(
            "loader must give each batch as a pair of tensors (inputs, targets) with a row a "
            f"sample, as that of a TensorDataset(inputs, targets) does, got {given}"
        )
    return batch


def _kind(value: object) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    return kind_of(value) + shape
