"""The batches of a loader, printed sample by sample."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sgd_analysis._random_state import seed_all
from sgd_analysis.checks.messages import NotYet, Said, told
from sgd_analysis.checks.points import BATCH_SIZE, FEW
from sgd_analysis.checks.tries import Loop, printed_by, require_written

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d*)?(?:e[-+]?\d+)?", re.I)


def printed_batches(show: Loop, *, language: Literal["en", "fr"] = "en") -> str:
    """Tell whether a function prints every sample of every batch of a loader, or what is wrong.

    Args:
        show: takes a loader, whose batches have a row a sample (input, target). Prints a line a
            sample with four numbers: of the batch, of the sample in it, x and y. Counting may
            begin at 0 or at 1.
        language: of the sentence: "en", or "fr" for French.

    Returns:
        A sentence that begins with "right" or "not yet", in French with "juste" or "pas encore".

    Example:
        >>> from sgd_analysis import checks
        >>> def show(loader):
        ...     for i, batch in enumerate(loader):
        ...         print(i, len(batch))
        >>> checks.printed_batches(show)
        'not yet: a line should have four numbers, batch, sample, x and y; this one has 2: 0 10'
        >>> print(checks.printed_batches(len, language="fr"))
        pas encore\u00a0: la fonction n'affiche rien
    """
    return told(_printed_batches, show, language)


def _printed_batches(show: Loop) -> Said:
    require_written(show, "loader")
    data: Any = FEW  # a Dataset, for all that a loader asks of one
    loader: DataLoader[Tensor] = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True)
    seed_all(0)
    batches = list(loader)
    seed_all(0)
    lines = [line.strip() for line in printed_by(show, loader).split("\n") if line.strip()]
    if not lines:
        raise NotYet("silent")
    rows = [[float(n.replace("−", "-")) for n in _NUMBER.findall(line)] for line in lines]
    for line, row in zip(lines, rows, strict=True):
        if len(row) != 4:
            raise NotYet("four_numbers", n=len(row), line=line)
    if len(rows) != len(FEW):
        raise NotYet("n_lines", n=len(rows), expected=len(FEW))
    printed = torch.tensor(rows)
    _require_points(printed[:, 2:], torch.cat(batches))
    sizes = [len(batch) for batch in batches]
    _require_numbers(printed[:, :2].long().tolist(), sizes, lines)
    return Said("right_listing", n=len(lines))


def _require_points(printed: Tensor, points: Tensor) -> None:
    def same(one: Tensor) -> bool:
        return torch.allclose(one, points, rtol=0.01, atol=0.06)  # one digit may be printed

    if not same(printed):
        raise NotYet("x_and_y" if same(printed.flip(1)) else "other_samples")


def _require_numbers(printed: list[list[int]], sizes: list[int], lines: list[str]) -> None:
    numbers = [[i, j] for i, size in enumerate(sizes) for j in range(size)]
    if not _from_zero_or_one(numbers, printed):
        if _from_zero_or_one([[j, i] for i, j in numbers], printed):
            raise NotYet("batch_and_sample")
        wrong = next(k for k, row in enumerate(printed) if row != numbers[k])
        through = [j for _, j in printed]
        key = "not_anew" if through == [*range(through[0], through[0] + len(lines))] else "numbers"
        raise NotYet(key, line=lines[wrong])


def _from_zero_or_one(numbers: list[list[int]], printed: list[list[int]]) -> bool:
    return any(printed == [[i + first, j + first] for i, j in numbers] for first in (0, 1))
