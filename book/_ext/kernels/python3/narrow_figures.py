"""Draws each figure of a page a second time, for phones: narrow, panels of one row stacked.

An IPython extension that the book's own kernel loads. The narrow drawing travels in the output's
metadata, from where `book_figures` takes it; no notebook to download, and no paper, carries it.
"""

from __future__ import annotations

from copy import deepcopy
from io import StringIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

WIDTH = 4.5  # inches: where a phone shows this 358 pixels wide, 10 points are 11 pixels high
PANEL_HEIGHT = 2.8  # of stacked panels


def copied(figure: Figure) -> Figure:
    """Copy a figure and all that is drawn in it; pyplot does not learn of the copy."""
    copy = object.__new__(type(figure))
    state = figure.__getstate__()
    state.pop("_restore_to_pylab", None)
    copy.__setstate__(deepcopy(state, {id(figure): copy}))
    return copy


def row(figure: Figure) -> list[list[Axes]]:
    """Return the panels from left to right, each with its twins, if they make up one row."""
    found = [(ax.get_subplotspec(), ax) for ax in figure.axes]
    if any(spec is None for spec, _ in found):
        return []  # panels that share a bar of colours, or were placed by hand
    grids = {spec.get_gridspec() for spec, _ in found}
    if len(grids) != 1 or (grid := grids.pop()).nrows > 1:
        return []
    panels = [[ax for spec, ax in found if spec.colspan.start == i] for i in range(grid.ncols)]
    return panels if all(panels) else []


def stack(figure: Figure, panels: list[list[Axes]]) -> None:
    """Put the panels of a row below each other; each gets the scale that a neighbour had."""
    grid = figure.add_gridspec(len(panels), 1)
    for i, panel in enumerate(panels):
        for ax in panel:
            ax.set_subplotspec(grid[i, 0])
        ax, neighbours = panel[0], panel[0].get_shared_y_axes()
        if neighbours.joined(ax, panels[0][0]) and not ax.get_ylabel():
            ax.set_ylabel(panels[0][0].get_ylabel())
            ax.tick_params("y", which="both", labelleft=True)
            ax.yaxis.offsetText.set_visible(True)


def fit(legend: Legend, width: float) -> None:
    """Spread the entries of a legend over fewer columns until it is not wider than that."""
    _, entries = legend.get_children()[0].get_children()
    columns = entries.get_children()
    while len(columns) > 1 and legend.get_window_extent().width > width:
        all_entries = [entry for column in columns for entry in column.get_children()]
        columns.pop()
        ends = [-(-i * len(all_entries) // len(columns)) for i in range(len(columns) + 1)]
        for column, (start, end) in zip(columns, pairwise(ends), strict=True):
            column.get_children()[:] = all_entries[start:end]


def break_names(ax: Axes) -> None:
    """Let the unit of an axis stand below its name where both are longer than the axis."""
    names = ax.xaxis.label, ax.yaxis.label
    sizes = [name.get_window_extent().size for name in names]
    for i, name in enumerate(names):
        if sizes[i][i] > ax.bbox.size[i]:
            name.set_text("\n(".join(name.get_text().rsplit(" (", 1)))


def narrowed(figure: Figure) -> Figure:
    """Copy a figure for a narrow screen; the figure itself stays as it is."""
    copy = copied(figure)
    width, height = copy.get_size_inches()
    panels = row(copy)
    if len(panels) > 1:
        stack(copy, panels)
        height = len(panels) * PANEL_HEIGHT
    copy.set_size_inches(min(width, WIDTH), height)
    inside = {legend: legend.get_in_layout() for ax in copy.axes if (legend := ax.get_legend())}
    for legend in inside:
        legend.set_in_layout(False)  # as wide as it is, it would leave its axes no room
    copy.draw_without_rendering()
    for legend, in_layout in inside.items():
        fit(legend, legend.axes.bbox.width)
        legend.set_in_layout(in_layout)
    for legend in copy.legends:
        fit(legend, copy.bbox.width)
        height += legend.get_window_extent().height / copy.dpi  # it stands above or below them
    copy.set_figheight(height)
    copy.draw_without_rendering()
    for ax in copy.axes:
        break_names(ax)
    return copy


def bundle(figure: Figure) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return no data, which other formatters give, but the narrow drawing as their metadata."""
    drawing = StringIO()
    if not figure.axes:
        return {}, {}
    narrowed(figure).savefig(drawing, format="svg", metadata={"Date": None})
    return {}, {"image/svg+xml": {"narrow": drawing.getvalue()}}


def load_ipython_extension(shell: InteractiveShell) -> None:
    formatter = shell.display_formatter.mimebundle_formatter
    formatter.for_type_by_name("matplotlib.figure", "Figure", bundle)
