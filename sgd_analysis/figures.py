"""Drawing, never computing: functions that draw what was measured or predicted on given axes.

Matplotlib comes with the extra `sgd-analysis[figures]`; only this and `History.plot` need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

# The register: a colour means one thing in the whole book, and each kind of curve has a dash
# pattern besides. First, which of the numbers of a training loop a curve is.
PRINTED: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "linewidth": 2, "marker": "o"}
OF_THE_MODEL: dict[str, Any] = {**PRINTED, "color": "#D55E00", "linestyle": "--", "marker": "s"}
# Anything else that was measured; several values of a parameter are its shades (matplotlibrc).
MEASURED: dict[str, Any] = {"color": "#2F9A72", "linestyle": "-", "linewidth": 2.5}
PREDICTED: dict[str, Any] = {"color": "#000000", "linestyle": (0, (5, 3)), "linewidth": 1.8}
REFERENCE: dict[str, Any] = {"color": "#4D4D4D", "linestyle": ":", "linewidth": 1.5}
BACKDROP: dict[str, Any] = {"color": "#808080", "linestyle": "-", "linewidth": 7, "alpha": 0.45}

# Where several optimizers or orders meet. Shuffled mini-batches are plain SGD, and look like it.
METHODS: dict[str, dict[str, Any]] = {
    "gradient descent": {"color": "#744E03", "linestyle": "-"},
    "SGD": {"color": "#867CDC", "linestyle": "--"},
    "momentum": {"color": "#0C3801", "linestyle": "-."},
    "RMSprop": {"color": "#AE6E99", "linestyle": ":"},
    "Adam": {"color": "#87894E", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
}
ORDERS: dict[str, dict[str, Any]] = {
    "cyclic": {"color": "#C52FB3", "linestyle": "-"},
    "shuffle_once": {"color": "#704A7D", "linestyle": "-."},
    "reshuffle": METHODS["SGD"],
    "with_replacement": {"color": "#430646", "linestyle": ":"},
    "independent": {"color": "#430646", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
}


def quantile_band(
    ax: Axes,
    x: ArrayLike,
    values: ArrayLike,
    label: str,
    *,
    quantiles: tuple[float, float] = (0.05, 0.95),
    **style: Any,
) -> None:
    """Draw many runs as their median and the band between two of their quantiles.

    Args:
        ax: where to draw.
        x: (n,) the positions, epochs or steps most often.
        values: (n_runs, n) one row a run. Infinite values are drawn as far as they go, and a run
            that has become nan counts as infinite: it has diverged.
        label: the median's name in the legend.
        quantiles: the lower and the upper edge of the band, between 0 and 1.
        style: how the median is drawn; the band has its colour.

    Raises:
        ValueError: if values is not (n_runs, n).

    Example:
        >>> from matplotlib.figure import Figure
        >>> from sgd_analysis import figures, quadratic_fit, train_ensemble
        >>> runs = train_ensemble(quadratic_fit(), range(8), step_size=1e-4, max_epochs=3)
        >>> ax = Figure().subplots()
        >>> figures.quantile_band(ax, [1, 2, 3], runs.running_loss, "median of 8 runs")
        >>> [line.get_label() for line in ax.lines]
        ['median of 8 runs']
    """
    positions, runs = np.asarray(x), np.asarray(values, dtype=np.float64)
    if runs.ndim != 2 or positions.shape != runs.shape[1:]:
        raise ValueError(
            "values must have one row a run and one column a position, got shape "
            f"{runs.shape} for {positions.shape} positions"
        )
    runs = np.where(np.isnan(runs), np.inf, runs)
    # The nearest run's own value: between a finite and an infinite one nothing can be interpolated.
    edges = (quantiles[0], 0.5, quantiles[1])
    low, median, high = np.quantile(runs, edges, axis=0, method="nearest")
    (line,) = ax.plot(positions, median, label=label, **style)
    top = np.where(np.isfinite(high), high, np.finfo(np.float64).max)
    ax.fill_between(positions, low, top, color=line.get_color(), alpha=0.2, linewidth=0)


def stopping_epochs(ax: Axes, epochs: ArrayLike, n_epochs: int, marked: Mapping[str, int]) -> None:
    """Draw how many runs stopped after each epoch.

    Args:
        ax: where to draw.
        epochs: (n_runs,) the epoch after which each run stopped, from 1; nan if it never did.
        n_epochs: the number of epochs that each run was given.
        marked: labelled epochs, each drawn as a vertical line.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from sgd_analysis import figures
        >>> ax = Figure().subplots()
        >>> figures.stopping_epochs(ax, [2, 2, float("nan"), 3], 4, {"predicted": 2})
        >>> [int(bar.get_height()) for bar in ax.patches]
        [0, 2, 1, 0]
    """
    stopped = np.asarray(epochs, dtype=np.float64)
    stopped = stopped[np.isfinite(stopped)]
    counts = np.bincount(stopped.astype(int), minlength=n_epochs + 1)[1 : n_epochs + 1]
    ax.bar(np.arange(1, n_epochs + 1), counts, width=0.85, color=MEASURED["color"])
    styles = (PREDICTED, REFERENCE)
    for position, (label, epoch) in enumerate(marked.items()):
        ax.axvline(epoch, label=label, **styles[position % 2])
    ax.set(xlabel="epoch after which a run stopped", ylabel="number of runs")
    if marked:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)  # above, not on the bars
