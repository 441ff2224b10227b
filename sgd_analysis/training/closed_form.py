"""Stochastic gradient descent on least squares by its formula: two dots a step, and no graph."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sgd_analysis._arrays import norms, quiet
from sgd_analysis._weights import flat_weights, load_weights, trainable
from sgd_analysis.history.history import History
from sgd_analysis.history.path_gradient import path_gradient_norms, path_gradients
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.recording.metadata import metadata
from sgd_analysis.stopping import diverged
from sgd_analysis.training.plan import Plan
from sgd_analysis.training.watch import Watch

_BLOCK = 512  # how many epochs of one step are made together
_COLUMNS = ("loss", "n_samples", "epoch", "step_size", "norm", "path_norm")
_MEMORY = 64 << 20  # the bytes of gradients that are kept, as many as a Recorder keeps


class ClosedFormLoop:
    r"""A run of plain SGD on least squares.

    .. math:: r = \Phi_b w - y_b, \qquad f_b(w) = \tfrac1B \lVert r \rVert^2, \qquad
        w \leftarrow w - \tfrac{2\eta}{B} \Phi_b^\top r

    Everything is computed in double precision, and then rounded to the problem's dtype: the
    weights after each update, losses and gradients when they are recorded.

    Args:
        plan: the settings of the run.
        problem: the plan's.
        watch: says when to stop.
        model: what is trained, in single or double precision.
    """

    def __init__(self, plan: Plan, problem: LeastSquares, watch: Watch, model: nn.Module) -> None:
        self.ended_by = diverged()  # unless a rule ends it
        self._plan, self._watch = plan, watch
        self._parameters = trainable(model)
        start = flat_weights(self._parameters)
        self._dtype = start.dtype
        self._w = np.append(start, 1.0).astype(np.float64)
        # A residual is the product of (φ, −y) and (w, 1). Rows of zeros fill up a ragged batch.
        rows = np.column_stack([problem.features, -problem.targets.double().numpy()])
        self._rows = np.pad(rows, ((0, 1), (0, 0)))
        self._log = _Log(len(start), start.dtype)

    @property
    def history(self) -> History:
        """What was recorded so far."""
        return self._log.history((self._plan.problem.criterion,))

    def epochs(self) -> Generator[NDArray[np.floating], None, None]:
        """Yield the weights (n, n_parameters) after some epochs; `ended_by` says why it ends."""
        watch, log = self._watch, self._log
        for rows, sizes, n_epochs in self._batches():
            n_batches, before = len(sizes), watch.n_epochs
            eta = self._plan.step_sizes(log.n_steps, n_epochs * n_batches)
            path, loss, gradient = self._descend(rows, sizes, eta)
            finite = np.isfinite(loss)
            n_finite = len(loss) if finite.all() else int(finite.argmin())
            n_finished = n_finite // n_batches  # epochs
            weights = path[n_batches::n_batches][:n_finished].copy()  # the path need not stay
            edges = np.arange(n_finished + 1) * n_batches
            path_norm = path_gradient_norms(gradient, np.resize(sizes, edges[-1]), edges)
            rule = None
            if n_finished:
                losses = loss[: n_finished * n_batches].reshape(n_finished, n_batches)
                rule = watch.after(losses, sizes, weights, path_gradient_norm=path_norm.copy)
            n_taken = watch.n_epochs - before
            n_updates = n_rows = n_taken * n_batches
            diverges = n_finite < len(loss) and not rule
            if diverges:
                n_updates, n_rows = n_finite, n_finite + 1
            log.add(
                loss=loss[:n_rows],
                n_samples=np.resize(sizes, n_rows),
                epoch=before + np.arange(n_rows) // n_batches,
                step_size=eta[:n_rows],
                gradient=gradient[:n_rows],
                path_norm=path_norm[:n_taken],
            )
            load_weights(self._parameters, path[n_updates])
            self._w[:-1] = path[n_updates]
            if n_taken:
                yield weights[:n_taken]
            if rule:
                self.ended_by = rule
            if rule or diverges:
                return

    @quiet
    def _descend(
        self, rows: NDArray[np.float64], sizes: NDArray[np.int64], eta: NDArray[np.float64]
    ) -> tuple[NDArray[np.floating], NDArray[np.float64], NDArray[np.floating]]:
        """Make a step for each η.

        Args:
            rows: (n_batches, batch_size, d + 1) each batch's (φ, −y), and rows of zeros.
            sizes: (n_batches,) the sizes of the batches.
            eta: (n_steps,) the step sizes; in several epochs they are the same.

        Returns:
            The weights (n_steps + 1, d) before the first step and after each, and before each
            one its batch's loss (n_steps,) and gradient (n_steps, d).
        """
        n_steps = len(eta)
        scale = 2 / np.resize(sizes, n_steps)
        moves = rows * (scale * eta)[: len(rows), None, None]
        moves[..., -1] = 0
        rows = np.broadcast_to(rows, (n_steps, *rows.shape[1:]))
        moves = np.broadcast_to(moves, rows.shape)
        path = np.empty((n_steps + 1, len(self._w)))
        path[0] = self._w
        residuals = np.empty(rows.shape[:2])
        move, rounded = np.empty(len(self._w)), np.empty(len(self._w), self._dtype)
        for batch, to_move, before, residual, after in zip(
            rows, moves, path[:-1], residuals, path[1:], strict=True
        ):
            batch.dot(before, residual)
            residual.dot(to_move, move)
            np.subtract(before, move, rounded)
            after[:] = rounded
        # Rounded when torch rounds it, so that it overflows when torch's does.
        squares = (residuals**2).sum(axis=1).astype(self._dtype)
        loss = (squares * (scale / 2)).astype(self._dtype)
        gradient = (residuals[:, None] @ rows)[:, 0, :-1] * scale[:, None]
        return (
            path[:, :-1].astype(self._dtype),
            loss.astype(np.float64),
            gradient.astype(self._dtype),
        )

    def _batches(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64], int]]:
        """Yield the rows (n_batches, batch_size, d + 1) of some epochs, and the batches' sizes."""
        rows, size = self._rows, self._plan.batch_size
        n_samples = len(rows) - 1
        if size is None:
            # The triangle has the same sums of squares and products as all rows, at every w.
            triangle = np.asarray(np.linalg.qr(rows, mode="r"))
            n_epochs = 1 if callable(self._plan.step_size) else _BLOCK
            while True:
                yield triangle[None], np.array([n_samples]), n_epochs
        for indices in self._plan.visits(size):
            n_batches = -(-len(indices) // size)
            padded = np.full(n_batches * size, n_samples)
            padded[: len(indices)] = indices.numpy()
            sizes = np.full(n_batches, size)
            sizes[-1] -= len(padded) - len(indices)
            yield rows[padded].reshape(n_batches, size, -1), sizes, 1


class _Log:
    """The rows of a run, and their gradients as long as they fit."""

    def __init__(self, n_parameters: int, dtype: np.dtype[Any]) -> None:
        self.n_steps = self._n_epochs = 0
        self._columns: dict[str, list[NDArray[Any]]] = {
            name: [np.zeros(0, int)] for name in _COLUMNS
        }
        self._room = _MEMORY // (n_parameters * dtype.itemsize)  # how many gradients fit
        self._kept = [np.zeros((0, n_parameters), dtype)]
        self._last: NDArray[np.floating] = self._kept[0]

    def add(self, gradient: NDArray[np.floating], **columns: NDArray[Any]) -> None:
        """Add the rows of some epochs, and the path gradients' norms of those that are finished."""
        columns["norm"] = norms(gradient)
        for name, column in columns.items():
            self._columns[name].append(column)
        if self.n_steps < self._room:
            self._kept.append(gradient[: self._room - self.n_steps])
        self._last = gradient
        self.n_steps += len(gradient)
        self._n_epochs += len(columns["path_norm"])

    def history(self, criteria: tuple[object, ...]) -> History:
        """Return what was recorded so far."""
        column = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        kept, last_path = np.concatenate(self._kept), None
        if len(kept) < self.n_steps:
            first = int(np.searchsorted(column["epoch"], column["epoch"][-1])) - self.n_steps
            sizes = column["n_samples"][first:].astype(np.float64)
            ((_, (last_path,)),) = path_gradients(self._last[first:], sizes, np.array([0, -first]))
        groups = [{"lr": float(eta)} for eta in column["step_size"][-1:]]
        return History(
            loss=column["loss"],
            n_samples=column["n_samples"],
            epoch=column["epoch"],
            step_size=column["step_size"][:, None],
            n_epochs=self._n_epochs,
            gradients=Vectors(kept, column["norm"], column["path_norm"], last_path),
            metadata=metadata("PlainSGD", groups, criteria),
        )
