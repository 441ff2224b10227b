"""Drawing, never computing: functions that draw what was measured or predicted on given axes.

Matplotlib comes with the extra `sgd-analysis[figures]`; nothing else in the package needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._arrays import as_array
from sgd_analysis.history.history import History
from sgd_analysis.problems.least_squares import LeastSquares

# The same kind of curve looks the same everywhere; each has a colour and a dash pattern.
MEASURED: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "linewidth": 2.5}
PREDICTED: dict[str, Any] = {"color": "#D55E00", "linestyle": (0, (5, 3)), "linewidth": 1.8}
BACKDROP: dict[str, Any] = {"color": "#808080", "linestyle": "-", "linewidth": 7, "alpha": 0.45}
REFERENCE: dict[str, Any] = {"color": "#4D4D4D", "linestyle": ":", "linewidth": 1.5}

# Where several curves of a kind meet, each kind keeps its colour and dashes through the book.
METHODS: dict[str, dict[str, Any]] = {
    "gradient descent": {"color": "#0072B2", "linestyle": "-"},
    "SGD": {"color": "#D55E00", "linestyle": "--"},
    "momentum": {"color": "#009E73", "linestyle": "-."},
    "RMSprop": {"color": "#CC79A7", "linestyle": ":"},
    "Adam": {"color": "#7A5600", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
}
ORDERS: dict[str, dict[str, Any]] = {
    "cyclic": {"color": "#D55E00", "linestyle": "-"},
    "shuffle_once": {"color": "#009E73", "linestyle": "-."},
    "reshuffle": {"color": "#0072B2", "linestyle": "--"},
    "with_replacement": {"color": "#CC79A7", "linestyle": ":"},
    "independent": {"color": "#7A5600", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
}


def fit(ax: Axes, problem: LeastSquares, curves: Mapping[str, ArrayLike]) -> None:
    """Draw a one-dimensional data set and the curves of some weights.

    Args:
        ax: where to draw.
        problem: a least-squares problem with scalar inputs.
        curves: the label of each curve and its weights (d,).

    Raises:
        ValueError: if the problem's inputs are not scalars.
    """
    x, order = _sorted_inputs(problem)
    targets = as_array(problem.targets)[order]
    ax.plot(x, targets, label="data", solid_capstyle="butt", **BACKDROP)
    for label, weights in curves.items():
        ax.plot(x, problem.features[order] @ np.asarray(weights, dtype=np.float64), label=label)
    ax.set(xlabel="input x", ylabel="target y")
    ax.legend()


def fit_errors(ax: Axes, problem: LeastSquares, curves: Mapping[str, ArrayLike]) -> None:
    """Draw how far the curves of some weights lie above the data of a one-dimensional data set.

    Args:
        ax: where to draw.
        problem: a least-squares problem with scalar inputs.
        curves: the label of each curve and its weights (d,), as for `fit`.

    Raises:
        ValueError: if the problem's inputs are not scalars.
    """
    x, order = _sorted_inputs(problem)
    ax.axhline(0, **BACKDROP)
    for label, weights in curves.items():
        error = problem.features @ np.asarray(weights, dtype=np.float64) - as_array(problem.targets)
        ax.plot(x, error[order], label=label)
    ax.set(xlabel="input x", ylabel="fit − data")
    ax.legend()


def running_loss(ax: Axes, history: History, label: str = "measured") -> None:
    """Draw an epoch's running loss against the number of epochs, both on logarithmic axes.

    Args:
        ax: where to draw.
        history: what was recorded; unfinished epochs are left out.
        label: the curve's name in the legend.
    """
    epochs = np.arange(1, history.n_epochs + 1)
    ax.plot(epochs, history.running_loss, label=label, **MEASURED)
    ax.set(xscale="log", yscale="log", xlabel="epoch", ylabel="running loss (loss units)")


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
        ax.legend()


def risk_contours(
    ax: Axes,
    problem: LeastSquares,
    weights: tuple[int, int],
    half_widths: tuple[float, float],
    levels: ArrayLike,
    names: tuple[str, str],
) -> None:
    """Draw level lines of the global loss around the minimiser, in the plane of two weights.

    Args:
        ax: where to draw.
        problem: a least-squares problem.
        weights: the positions of the two weights that vary; the others stay at the minimiser.
        half_widths: how far each of them varies on either side.
        levels: (n_levels,) the risks whose level lines are drawn, in loss units, ascending; all
            but the first are labelled.
        names: what the two axes are called.
    """
    axes = [
        problem.minimiser[weight] + np.linspace(-width, width, 241)
        for weight, width in zip(weights, half_widths, strict=True)
    ]
    points = np.tile(problem.minimiser, (241, 241, 1))
    points[..., weights[0]], points[..., weights[1]] = np.meshgrid(*axes)
    risk = problem.empirical_risk(points)
    levels = np.asarray(levels)
    lines = ax.contour(*axes, risk, levels=levels, colors=MEASURED["color"])
    if levels.size > 1:  # the innermost line is too short to carry a label
        ax.clabel(lines, levels=levels[1:], fmt="%g", fontsize=10)
    ax.plot(*problem.minimiser[list(weights)], marker="+", markersize=11, color="#D55E00")
    ax.set(xlabel=names[0], ylabel=names[1])


def eigenvalue_sections(ax: Axes, problem: LeastSquares, distances: ArrayLike) -> None:
    """Draw the excess risk against the distance from the minimiser, one line an eigenvector.

    Args:
        ax: where to draw.
        problem: a least-squares problem.
        distances: (n,) positive distances along each unit eigenvector.
    """
    s: NDArray[np.float64] = np.asarray(distances, dtype=np.float64)
    for value, vector in zip(problem.eigenvalues, problem.eigenvectors.T, strict=True):
        excess = problem.empirical_risk(problem.minimiser + s[:, None] * vector)
        ax.plot(s, excess - problem.least_risk, label=f"λ = {value:,.4g}")
    ax.set(xscale="log", yscale="log")
    ax.set(xlabel="distance from the minimiser (weight units)", ylabel="F(w) − F(ŵ) (loss units)")
    ax.legend()


def _sorted_inputs(problem: LeastSquares) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
    if problem.inputs.ndim != 1:
        raise ValueError(
            "problem must have scalar inputs, of shape (n_samples,), got shape "
            f"{tuple(problem.inputs.shape)}"
        )
    inputs = as_array(problem.inputs)
    order = np.argsort(inputs)
    return inputs[order], order
