"""A history at a glance, as a line of text or a small HTML table."""

import html as escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sgd_analysis.history import History

_BARS = "▁▂▃▄▅▆▇█"
_N_BARS = 12
_N_ROWS = 5


def text(history: "History") -> str:
    """Return one line: how much was recorded, and how the running loss went."""
    count = f"{history.n_steps} steps, {history.n_epochs} finished epochs"
    if history.n_epochs == 0:
        return f"History({count})"
    loss = history.running_loss
    ends = f"{loss[0]:.4g} {sparkline(loss)} {loss[-1]:.4g}"
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


def html(history: "History") -> str:
    """Return a table of the last few finished epochs under the line of text."""
    caption = f"<caption>{escape.escape(text(history))}</caption>"
    last = history[max(history.n_epochs - _N_ROWS, 0) : history.n_epochs]
    columns = {
        "running loss": last.running_loss,
        "mean batch loss": last.mean_batch_loss,
    }
    if last.gradients is not None:
        columns["path gradient norm"] = last.path_gradient_norm
    names = "".join(f'<th scope="col">{name}</th>' for name in ("epoch", *columns))
    rows = [
        f'<tr><th scope="row">{last.epoch[0] + row + 1}</th>'
        + "".join(f"<td>{values[row]:.4g}</td>" for values in columns.values())
        + "</tr>"
        for row in range(last.n_epochs)
    ]
    head, body = f"<thead><tr>{names}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    return f'<table class="dataframe">{caption}{head}{body}</table>'
