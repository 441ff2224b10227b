"""Drawing, never computing: functions that draw what was measured or predicted on given axes.

Matplotlib comes with the extra `sgd-analysis[figures]`; nothing else in the package needs it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._validation import as_array
from sgd_analysis.history import History
from sgd_analysis.problems import LeastSquares

# The same kind of curve looks the same everywhere; each has a colour and a dash pattern.
MEASURED: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "linewidth": 2.5}
PREDICTED: dict[str, Any] = {"color": "#D55E00", "linestyle": (0, (5, 3)), "linewidth": 1.8}
BACKDROP: dict[str, Any] = {"color": "#808080", "linestyle": "-", "linewidth": 7, "alpha": 0.45}
REFERENCE: dict[str, Any] = {"color": "#808080", "linestyle": ":", "linewidth": 1.5}


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
    lines = ax.contour(*axes, risk, levels=levels, cmap="cividis", linewidths=1.6)
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
