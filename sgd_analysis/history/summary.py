"""A run at a glance, as a line of text or a small HTML table."""

from __future__ import annotations

import html as escape
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BARS = "▁▂▃▄▅▆▇█"
_N_BARS = 12
_SHOWN = (
    "running_loss",
    "running_size_weighted_loss",
    "mean_batch_loss",
    "path_gradient_norm",
)


def text(
    n_steps: int, running_loss: NDArray[np.float64], by_size: NDArray[np.float64] | None = None
) -> str:
    """Return one line: how much was recorded, and how the running loss (n_epochs,) went.

    If it is to be seen, also how it would have gone with passes that weigh by their sizes.
    """
    count = f"{n_steps} steps, {len(running_loss)} finished epochs"
    if not len(running_loss):
        return f"History({count})"
    ends = f"{running_loss[0]:.4g} {sparkline(running_loss)} {running_loss[-1]:.4g}"
    if by_size is not None:
        ends += f", weighted by size {by_size[0]:.4g} {sparkline(by_size)} {by_size[-1]:.4g}"
    return f"History({count}, running loss {ends})"


def sparkline(values: NDArray[np.float64]) -> str:
    """Return at most a dozen bars, on a logarithmic scale if all finite values are positive.

    Each bar is the last value of its share of them; one that is not finite is a space.
    """
    n_bars = min(_N_BARS, len(values))
    shown = values[np.linspace(0, len(values) - 1, n_bars).round().astype(int)]
    finite = np.isfinite(shown)
    if not finite.any():
        return " " * n_bars
    if shown[finite].min() > 0:
        shown = np.log(shown, where=finite, out=np.full(n_bars, np.nan))
    low, high = shown[finite].min(), shown[finite].max()
    span = high - low if high > low else 1.0
    heights = np.where(finite, (shown - low) / span * (len(_BARS) - 1), 0).round().astype(int)
    return "".join(_BARS[h] if ok else " " for h, ok in zip(heights, finite, strict=True))


def html(caption: str, table: Mapping[str, NDArray[Any]], evaluated: Iterable[str]) -> str:
    """Return an HTML table under a line of text, made of that of `History.epochs`."""
    shown = {name: table[name] for name in (*_SHOWN, *evaluated) if name in table}
    heads = (escape.escape(name.replace("_", " ")) for name in ("epoch", *shown))
    names = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = [
        f'<tr><th scope="row">{epoch}</th>' + "".join(f"<td>{v:.4g}</td>" for v in values) + "</tr>"
        for epoch, *values in zip(table["epoch"], *shown.values(), strict=True)
    ]
    caption = f"<caption>{escape.escape(caption)}</caption>"
    head, body = f"<thead><tr>{names}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    return f'<table class="dataframe">{caption}{head}{body}</table>'
