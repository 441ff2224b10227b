"""A history as a figure: its losses, its norms and what was evaluated, panel above panel."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from sgd_analysis.figures import MEASURED, OF_THE_MODEL, PRINTED, REFERENCE

Vector = NDArray[np.float64]
Style = dict[str, Any]

_MOST_DRAWN = 500  # steps; more of them are put into so many ranges
_MOST_MARKED = 40  # points of a line that has a marker at each
_VISIBLE = 0.05  # the relative difference at which two curves can be told apart
_INFINITE = 1e200  # or near enough: an axis with margins cannot reach much farther
_WIDTH, _FONT = 6.2, 14  # inches and points: 11 px and more on a phone
_LOSS, _NORM, _UPDATE = "loss (loss units)", "norm (loss / weight units)", "norm (weight units)"
_GAP = "gap (loss units)"
# What is evaluated is a loss, or a term of a loss gap, if the last word of its name says so.
_LOSSES = {"loss", "risk", "train", "training", "val", "valid", "validation", "dev", "eval", "test"}
_TERMS = {"weighting", "drift", "mode", "noise"}
_RECORDED: Style = {**MEASURED, "marker": "d"}  # what no loop prints
# Of the model, at fixed weights, several numbers have one colour, and differ in these.
_DASHES = [("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1, 1, 1, 1, 1)), "v"), ("-", "X")]
_ABOVE: Style = {  # where a legend lies on no data
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "frameon": False,
    "borderaxespad": 0.1,
    "handlelength": 1.6,
    "columnspacing": 1,
    "labelspacing": 0.2,
}


@dataclass(frozen=True)
class Line:
    """A line, or the band from one line up to another."""

    label: str
    x: Vector
    y: Vector
    style: Style
    top: Vector | None = None


@dataclass
class Panel:
    """What is drawn on one pair of axes."""

    name: str
    lines: list[Line] = field(default_factory=list)

    def add(self, label: str, x: Vector, y: Vector, style: Style) -> None:
        """Add a line, unless there is nothing of it to see."""
        finite = _finite(y)
        if not np.isnan(finite).all():
            marker = style["marker"] if len(y) <= _MOST_MARKED else None
            self.lines.append(Line(label, x, finite, {**style, "marker": marker}))

    def add_steps(self, label: str, x: Vector, y: Vector, style: Style) -> None:
        """Add a light line with a value a step, or a band where nobody could see them all."""
        size = -(-len(y) // _MOST_DRAWN)
        if size <= 1:
            light = {**style, "linewidth": 0.9, "alpha": 0.6, "marker": "."}
            self.add(f"{label}, each step", x, y, light)
            return
        least, greatest = _ranges(_finite(y), size)
        if not np.isnan(least).all():
            light = {"color": style["color"], "alpha": 0.3, "linewidth": 0, "step": "post"}
            edges = np.append(x[::size], x[-1])
            label = f"{label}, range of {size} steps"
            self.lines.append(Line(label, edges, least, light, top=greatest))


class ShownFigure(Figure):
    """A figure that a notebook shows, whether or not pyplot has been used there."""

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        svg = io.StringIO()
        self.savefig(svg, format="svg", metadata={"Date": None})
        return {"image/svg+xml": svg.getvalue()}


def draw(history: Any) -> Figure:
    """Return the figure of a `History`."""
    panels = [panel for panel in _panels(history) if panel.lines] or [Panel(_LOSS)]
    heights = [2.1 if i else 2.7 for i in range(len(panels))]
    rows = sum(-(-len(panel.lines) // _n_columns(panel)) for panel in panels)
    figure = ShownFigure(figsize=(_WIDTH, sum(heights) + 0.26 * rows + 0.3), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        _draw_panel(ax, panel)
    axes[-1].set_xlabel("epoch" if history.n_epochs else "step", fontsize=_FONT)
    axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def _panels(history: Any) -> list[Panel]:
    loss, norm, update = Panel(_LOSS), Panel(_NORM), Panel(_UPDATE)
    table, steps = history.epochs(), _places(history.epoch, history.n_epochs)
    ends, running, mean = table["epoch"], table["running_loss"], table["mean_batch_loss"]
    loss.add_steps("batch loss", steps, history.batch_loss, PRINTED)
    loss.add("running loss", ends, running, PRINTED)
    if not np.allclose(running, mean, rtol=_VISIBLE, atol=0, equal_nan=True):
        loss.add("mean batch loss", ends, mean, {**PRINTED, "linestyle": "-.", "marker": "d"})
    before_clipping = {**REFERENCE, "linestyle": "-"}
    norm.add_steps("unclipped norm", steps, _recorded(history, "unclipped_norm"), before_clipping)
    norm.add_steps("gradient norm", steps, _recorded(history, "gradient_norm"), PRINTED)
    if "path_gradient_norm" in table:
        norm.add("path gradient norm", ends, table["path_gradient_norm"], _RECORDED)
    update.add_steps("update norm", steps, _recorded(history, "update_norm"), _RECORDED)
    panels = {panel.name: panel for panel in (loss, norm, update)}
    dashes: dict[str, Iterator[Any]] = {}
    for name, values in history.evaluated.items():
        kind = _kind_of(name)
        linestyle, marker = next(dashes.setdefault(kind, cycle(_DASHES)))
        style = {**OF_THE_MODEL, "linestyle": linestyle, "marker": marker}
        panels.setdefault(kind, Panel(kind)).add(_words(name), ends, values, style)
    return [*panels.values()]


def _recorded(history: Any, name: str) -> Vector:
    """Return a column of a history, all nan if it was not recorded."""
    try:
        column = getattr(history, name, None)
    except ValueError:
        column = None
    return np.full(history.n_steps, np.nan) if column is None else column


def _kind_of(name: str) -> str:
    """Return the panel that something evaluated belongs into, by its name."""
    words = name.split("_")
    if words[-1] in _LOSSES:
        return _LOSS
    if words[-1] in _TERMS:
        return _GAP
    return _NORM if words[-2:] == ["gradient", "norm"] else _words(name)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _places(epoch: NDArray[np.int64], n_finished: int) -> Vector:
    """Return where steps lie (n_steps,): epoch e is from e − 1 to e; without any, their numbers.

    An unfinished epoch is taken to be as long as the one before.
    """
    numbers: Vector = np.arange(len(epoch), dtype=np.float64)
    if not n_finished:
        return numbers + 1
    first, end = (np.searchsorted(epoch, epoch, side=side) for side in ("left", "right"))
    length = end - first
    if epoch[-1] - epoch[0] >= n_finished:
        last = epoch == epoch[-1]
        length[last] = max(length[-1], length[~last][-1])
    return np.asarray(epoch + (numbers - first) / length)


def _finite(values: Vector) -> Vector:
    """Return the values that can be drawn, nan in place of the others."""
    return np.where(np.abs(values) < _INFINITE, values, np.nan)


def _ranges(values: Vector, size: int) -> Vector:
    """Return the least and the greatest of each `size` values, (2, n), the last ones twice."""
    bins = np.full((-(-len(values) // size), size), np.nan)
    bins.flat[: len(values)] = values
    bins = np.concatenate([bins, bins[-1:]])
    return np.array([np.fmin.reduce(bins, axis=1), np.fmax.reduce(bins, axis=1)])


def _n_columns(panel: Panel) -> int:
    """Return how many labels of a legend stand side by side."""
    return 2 if all(len(line.label) <= 21 for line in panel.lines) else 1


def _draw_panel(ax: Axes, panel: Panel) -> None:
    for line in panel.lines:
        if line.top is None:
            ax.plot(line.x, line.y, label=line.label, **line.style)
        else:
            ax.fill_between(line.x, line.y, line.top, label=line.label, **line.style)
    _scale(ax, [y for line in panel.lines for y in (line.y, line.top) if y is not None])
    ax.set_ylabel(panel.name.replace(" (", "\n("), fontsize=_FONT)
    ax.tick_params(labelsize=_FONT)
    ax.grid(color="#808080", alpha=0.25, linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    if panel.lines:
        ax.legend(ncols=_n_columns(panel), fontsize=_FONT - 1, **_ABOVE)
    else:
        ax.text(0.5, 0.5, "nothing was recorded", ha="center", transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])


def _scale(ax: Axes, lines: Iterable[Vector]) -> None:
    values = np.concatenate([np.zeros(0), *lines])
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 2 * values.min():
        ax.yaxis.set_major_locator(MaxNLocator(4))
        return
    ax.set_yscale("log")
    few = values.max() < 100 * values.min()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if few else LogLocator(numticks=5))
    ax.yaxis.set_major_formatter(FuncFormatter(_number))
    ax.yaxis.set_minor_formatter("")


def _number(value: float, _: int) -> str:
    """Return a number on a logarithmic axis as the book prints it."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    exponent = int(np.floor(np.log10(value * (1 + 1e-9))))
    factor = f"{value / 10.0**exponent:.3g}"
    return rf"${'' if factor == '1' else factor + chr(92) + 'cdot '}10^{{{exponent}}}$"
