"""What several optimizers have seen, as a small table of plain text: first epoch and last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sgd_analysis.history.history import History

_HEAD = ("optimizer", "steps", "at", "loss", "step norm", "path norm")
_N_SHOWN = 10  # optimizers
_WIDTH = 80


def report(histories: Sequence[History]) -> str:
    """Return a table of at most 80 columns, with two lines for each history.

    They are its first and its last finished epoch, with the running loss (the mean batch loss,
    where the number of samples is not known), the mean of its steps' gradient norms and the norm
    of its path gradient; or, without a finished epoch, its first and its last step.
    """
    rows = [_HEAD]
    for number, history in enumerate(histories[:_N_SHOWN], start=1):
        name = f"{number} {history.metadata.get('optimizer', '')}"
        first, *others = _ends(history)
        rows.append((name, f"{history.n_steps}", *first))
        rows += [("", "", *other) for other in others]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    width = min(widths[0], _WIDTH - sum(2 + width for width in widths[1:]))
    lines = [
        "  ".join([row[0][:width].ljust(width), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
    if len(histories) > _N_SHOWN:
        lines.append(f"... and {len(histories) - _N_SHOWN} more")
    return "\n".join(lines)


def _ends(history: History) -> list[tuple[str, str, str, str]]:
    return _epochs(history) if history.n_epochs else _steps(history)


def _epochs(history: History) -> list[tuple[str, str, str, str]]:
    table = history.epochs()
    kind, name = "running", "running_loss"
    if (np.isnan(table[name]) & ~np.isnan(table["mean_batch_loss"])).any():
        kind, name = "mean batch", "mean_batch_loss"
    nothing = np.full(history.n_epochs, np.nan)
    norm = table.get("mean_gradient_norm", nothing)
    path = table.get("path_gradient_norm", nothing)
    return [
        (
            f"epoch {table['epoch'][e]}",
            f"{kind} {table[name][e]:.4g}",
            _number(norm[e]),
            _number(path[e]),
        )
        for e in sorted({0, history.n_epochs - 1})
    ]


def _steps(history: History) -> list[tuple[str, str, str, str]]:
    has_norms = history.gradients is not None
    norms = history.gradient_norm if has_norms else np.full(history.n_steps, np.nan)
    return [
        (f"step {k + 1}", f"batch {history.batch_loss[k]:.4g}", _number(norms[k]), "-")
        for k in sorted({0, history.n_steps - 1})
    ]


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4g}"
