"""Which samples come again, and where: what a loader really gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import kind_of
from sgd_analysis.history.history import History

_FEWEST = 20  # samples that come again, for a correlation of their places
_ODD = np.uint64(0x9E3779B97F4A7C15)

_Seen = NDArray[np.uint64]


@dataclass(frozen=True, eq=False, repr=False)
class RepeatedSamples:
    """Which share of the samples that each epoch sees comes again: (n_epochs,) each, from 0 to 1.

    Two samples are the same if all that the batch holds of them is, to the bit. A loop that sees
    each sample once an epoch, shuffled, has 0, 1, 0, 0 and 0; with an augmentation that is drawn
    anew, all are 0 (and `order` nan). nan stands where there is nothing to compare.

    Args:
        within: the share that the epoch had seen before. ½ if each of two workers gives all.
        again: the share that the epoch before had seen, too.
        in_place: the share that stands at the same place as in the epoch before. 1 in a fixed
            order.
        neighbours: the share that is followed by the same sample as in the epoch before.
            1 − 1/B if whole batches of B are shuffled.
        order: the correlation of the places that samples have in this epoch with those in the
            epoch before: about 0 for a shuffle, and near 1 if a shuffle buffer is small.
        order_error: how far from 0 it is for a shuffle, 1/√(n − 1) if n samples come again.
        between_ranks: in a history gathered from several processes, the share of its samples that
            a rank shares with another one, in the mean over the ranks.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import RepeatedSamples
        >>> nothing = np.array([0.0, 0.0])
        >>> RepeatedSamples(nothing + 0.5, nothing + 1, *[nothing] * 4, nothing + np.nan)
        RepeatedSamples(2 epochs; within 0.50, again 1.00, in_place 0.00, neighbours 0.00, order \
0.00: samples come several times an epoch; do the workers share them out?)
    """

    within: NDArray[np.float64]
    again: NDArray[np.float64]
    in_place: NDArray[np.float64]
    neighbours: NDArray[np.float64]
    order: NDArray[np.float64]
    order_error: NDArray[np.float64]
    between_ranks: NDArray[np.float64]

    def __repr__(self) -> str:
        means = {name: _mean(column) for name, column in vars(self).items()}
        # The mean of several correlations is nearer to 0 for a shuffle than one of them.
        error = means.pop("order_error") / math.sqrt((~np.isnan(self.order)).sum() or 1)
        shown = ", ".join(f"{name} {v:.2f}" for name, v in means.items() if not math.isnan(v))
        n = len(self.within)
        epochs = f"{n} epoch{'s' * (n != 1)}"
        return f"RepeatedSamples({epochs}; {shown or 'nothing known'}: {_advice(means, error)})"


def _advice(mean: dict[str, float], order_error: float) -> str:
    """Return the one thing to look at first."""
    if math.isnan(mean["within"]):
        return "no finished epoch has all of its fingerprints; the recorder's warnings say why"
    if mean["between_ranks"] > 0.5:
        return "ranks see the same samples; does a DistributedSampler share them out?"
    if mean["within"] > 0.05:
        return "samples come several times an epoch; do the workers share them out?"
    if mean["in_place"] > 0.5:
        return "each epoch has the order of the one before; shuffle=True, or set_epoch(epoch)?"
    if mean["neighbours"] > 0.3:
        return "samples stay together; are whole batches shuffled?"
    if mean["order"] > max(0.1, 3 * order_error):
        return "each epoch has much of the order of the one before; is a shuffle buffer small?"
    if mean["again"] < 0.05:
        return "no sample comes again; augmentation is drawn anew, or the data is new"
    if math.isnan(mean["again"]):
        return "the rest takes two epochs"
    return "the same samples, to the bit, in another order; an augmentation would be fixed"


def repeated_samples(history: History) -> RepeatedSamples:
    """Return which share of its samples each epoch had seen before, or the epoch before had.

    It takes a recording of them, `record(..., also=["fingerprints"])`, and answers: does each
    worker give the same samples? Is the order the same in each epoch? Is the augmentation? Does
    every rank see the same data? Are samples shuffled, or whole batches?

    The samples of an epoch are those that its loader has given by its last step, in their order.
    Where a loop ends epochs itself in the midst of a loader, after `steps_per_epoch`, and fetches
    batches ahead, they are those fetched.

    Args:
        history: of one finished epoch at least.

    Returns:
        A `RepeatedSamples`, one value a finished epoch. In a history gathered from several
        processes an epoch's samples are those of all ranks, step by step.

    Raises:
        TypeError: if history is no History.
        ValueError: if the fingerprints were not recorded.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from sgd_analysis import record, repeated_samples
        >>> data = TensorDataset(torch.arange(100.0)[:, None])
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-5)
        >>> weight = optimizer.param_groups[0]["params"][0]
        >>> loader = DataLoader(data, batch_size=10)  # and shuffle=True was forgotten
        >>> with record(optimizer, also=["fingerprints"]) as recorder:
        ...     for epoch in range(3):
        ...         for (inputs,) in loader:
        ...             optimizer.zero_grad()
        ...             (weight * inputs).square().mean().backward()
        ...             optimizer.step()
        >>> repeated_samples(recorder.history).in_place
        array([nan,  1.,  1.])
    """
    if not isinstance(history, History):
        raise TypeError(f"history must be a History, got {kind_of(history)}")
    if history.fingerprints is None:
        raise ValueError(
            'fingerprints were not recorded: record(..., also=["fingerprints"]) does so'
        )
    seen = [_seen(history[e]) for e in range(history.n_epochs)]
    nothing = np.empty(0, np.uint64)
    pairs = zip([nothing, *seen], seen, strict=False)
    since = np.array([_since(*pair) for pair in pairs]).reshape(-1, 5)
    again, in_place, neighbours, order, order_error = since.T
    ranks = [[_seen(rank[e]) for rank in history.ranks] for e in range(history.n_epochs)]
    return RepeatedSamples(
        np.array([_share(one.size - np.unique(one).size, one.size) for one in seen]),
        again,
        in_place,
        neighbours,
        order,
        order_error,
        np.array([_between(each) for each in ranks]),
    )


def _seen(epoch: History) -> _Seen:
    """Return the fingerprints of an epoch; none if not all of its steps were kept."""
    if epoch.fingerprints is None:
        return np.empty(0, np.uint64)
    is_whole = len(epoch.fingerprints.ends) == epoch.n_steps
    return epoch.fingerprints.values[: None if is_whole else 0]


def _since(before: _Seen, now: _Seen) -> tuple[float, float, float, float, float]:
    """Return which share comes again, in place, and with its neighbour; the order and its error."""
    if not before.size or not now.size:
        return (math.nan,) * 5
    n = min(before.size, now.size)
    _, *places = np.intersect1d(before, now, return_indices=True)
    is_enough = len(places[0]) >= _FEWEST
    pairs = _pairs(before), _pairs(now)
    return (
        float(np.isin(now, before).mean()),
        float((now[:n] == before[:n]).mean()),
        _share(int(np.isin(pairs[1], pairs[0]).sum()), pairs[1].size),
        float(np.asarray(np.corrcoef(np.stack(places)))[0, 1]) if is_enough else math.nan,
        (len(places[0]) - 1) ** -0.5 if is_enough else math.nan,
    )


def _pairs(seen: _Seen) -> _Seen:
    """Return a fingerprint for each sample and the one that follows it."""
    return np.asarray(seen[:-1] * _ODD + seen[1:])


def _between(ranks: list[_Seen]) -> float:
    """Return which share of its samples a rank shares with another one."""
    if not ranks or not all(one.size for one in ranks):
        return math.nan
    others = [np.concatenate([*ranks[:r], *ranks[r + 1 :]]) for r in range(len(ranks))]
    return float(np.mean([np.isin(*pair).mean() for pair in zip(ranks, others, strict=True)]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(column: NDArray[np.float64]) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if known.size else math.nan
