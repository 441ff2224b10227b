"""What was recorded along a run: one row a step, as arrays."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._arrays import quiet, read_only, sums, weighted_means
from sgd_analysis.history import also, archive, evaluated, summary, writers
from sgd_analysis.history.columns import ALWAYS, IF_GIVEN, as_column, check_shapes
from sgd_analysis.history.epochs import Epochs
from sgd_analysis.history.fingerprints import Fingerprints
from sgd_analysis.history.path_gradient import as_means, path_gradient_norms, path_gradients
from sgd_analysis.history.size_weighting import VISIBLE, median_change
from sgd_analysis.history.tables import by_step, framed
from sgd_analysis.history.vectors import Vectors

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd

_SHOWN = 5  # epochs, in the table of a notebook


@dataclass(frozen=True, eq=False, repr=False)
class History:
    r"""What a training loop saw, one row a step, each at the weights **before** its update.

    `history[e]` is the history of epoch e alone, `history[:e]` that of the first e epochs
    (positions count from 0; -1 is the last one). An epoch that was begun and not finished is
    `history[-1]` and is not counted by `n_epochs`. Reading a column copies nothing, and columns
    cannot be written to. A `Recorder` makes histories; few will want to build one by hand.

    Args:
        loss: (n_steps,) each step's objective, the function whose gradient it takes: what the
            loop calls `backward()` on, as `loss.item()` gives it, in loss units; what the loop
            observed instead, where it did; nan where neither was seen.
        n_samples: (n_steps,) the number of samples in each batch; nan where it is not known.
        epoch: (n_steps,) the position, from 0, of the epoch each step belongs to, not decreasing.
        step_size: (n_steps, n_groups) the step size used, one column a parameter group; nan
            before a group was added.
        n_epochs: the number of finished epochs.
        denominator: (n_steps,) what the mean over each batch divides by, and the batch's weight in
            the running loss: its number of samples, unless the criterion counts elements, targets
            that are not ignored, or the sum of class weights; `n_samples` unless given.
        skipped: (n_steps,) the steps at which mixed precision found an overflow and left the
            weights as they were; none unless given.
        gradients: the gradients the optimizer was given, or None if they were not recorded.
        local_gradients: with several processes, the gradients of this one's own batches.
        kept_weights: (n_kept, n_parameters) the weights at the first n_kept steps, or None.
        own_objective: (n_steps,) the objective where `loss` is not, else nan; None if it always is.
        divisor: (n_steps,) of objectives that are sums, what makes means over the batch of them
            and their gradients; None if they are means.
        size_weighting: (n_steps,) what is to be added to an objective of several backward passes
            for each to weigh by its size; nan where that is not known; None if it is nothing.
        also: what was asked for by `record(..., also=[...])`, by its name: `unclipped_norm` and
            `update_norm` (n_steps,), `norms_by_parameter` (n_kept, n) of the first steps.
        fingerprints: which samples each step has seen, where `record(..., also=["fingerprints"])`
            asked for it; in a history gathered from several processes, those of all of them.
        evaluated: what the loop evaluated when its epochs had ended, (n_epochs,) a name; nan where
            it did not. In a history gathered from several processes it is rank 0's.
        ranks: in a history gathered from several processes, the history of each.
        metadata: what the run was made with: criteria and their `reduction`, optimizer, versions;
            only what JSON can hold.

    Raises:
        TypeError: if a column holds anything but real numbers.
        ValueError: if the columns differ in length, if epochs are left out or go backwards, if
            n_epochs is not the number of epochs begun, or one less, or if what was evaluated has
            the name of another column.

    Example:
        >>> from sgd_analysis import quadratic_fit, train
        >>> run = train(quadratic_fit(), step_size=1e-5, max_epochs=3, batch_size=500)
        >>> history = run.history
        >>> history.n_steps, history.n_epochs, history.gradient.shape
        (12, 3, (12, 3))
        >>> history[-1].loss.shape, history.running_loss.shape
        ((4,), (3,))
        >>> history.to_pandas()["epoch"].tolist()
        [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    """

    loss: NDArray[np.float64]
    n_samples: NDArray[np.float64]
    epoch: NDArray[np.int64]
    step_size: NDArray[np.float64]
    n_epochs: int
    denominator: NDArray[np.float64] = None  # type: ignore[assignment]  # an array from
    skipped: NDArray[np.bool_] = None  # type: ignore[assignment]  # __post_init__ on
    gradients: Vectors | None = None
    local_gradients: Vectors | None = None
    kept_weights: NDArray[Any] | None = None
    own_objective: NDArray[np.float64] | None = None
    divisor: NDArray[np.float64] | None = None
    size_weighting: NDArray[np.float64] | None = None
    also: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    fingerprints: Fingerprints | None = None
    evaluated: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    ranks: tuple[History, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.skipped is None:
            object.__setattr__(self, "skipped", np.zeros(np.shape(self.loss), dtype=bool))
        if self.denominator is None:
            object.__setattr__(self, "denominator", self.n_samples)
        for name in self._columns:
            object.__setattr__(self, name, as_column(name, getattr(self, name)))
        object.__setattr__(self, "n_epochs", operator.index(self.n_epochs))
        check_shapes(self._columns)
        self._epochs.check()
        self._check_vectors()
        object.__setattr__(self, "also", also.checked(self.also, self.n_steps))
        object.__setattr__(self, "evaluated", evaluated.checked(self.evaluated, self.n_epochs))
        if self.kept_weights is not None:
            self._check_weights()
        if self.fingerprints is not None and len(self.fingerprints.ends) > self.n_steps:
            raise ValueError(
                f"fingerprints must be those of the first of {self.n_steps} steps, got "
                f"{len(self.fingerprints.ends)} ends"
            )
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"metadata must be a mapping, got {self.metadata!r}")

    @classmethod
    def _unchecked(cls, **fields: Any) -> History:
        """Return one of read-only columns that are known to fit, however many rows they have."""
        history = object.__new__(cls)
        vars(history).update(fields)
        return history

    def _check_vectors(self) -> None:
        for name in ("gradients", "local_gradients"):
            vectors = getattr(self, name)
            if vectors is not None and len(vectors.norm) != self.n_steps:
                raise ValueError(
                    f"{name} must have one norm a step, {self.n_steps}, got {len(vectors.norm)}"
                )
        paths = None if self.gradients is None else self.gradients.path_norm
        if paths is not None and len(paths) != self.n_epochs:
            raise ValueError(
                f"path_norm must have one value a finished epoch, {self.n_epochs}, got {len(paths)}"
            )

    def _check_weights(self) -> None:
        weights = read_only(np.asarray(self.kept_weights))
        if weights.ndim != 2 or len(weights) > self.n_steps:
            raise ValueError(
                "kept_weights (n_kept, n_parameters) must be those of the first steps, got "
                f"shape {weights.shape} for {self.n_steps} steps"
            )
        object.__setattr__(self, "kept_weights", weights)

    def __repr__(self) -> str:
        return summary.text(self.n_steps, self.running_loss, self._seen_by_size())

    def _repr_html_(self) -> str:
        first = max(self.n_epochs - _SHOWN, 0)
        last = self[first : self.n_epochs]
        return summary.html(repr(self), last.epochs(), self.evaluated)

    @property
    def n_steps(self) -> int:
        """The number of steps recorded."""
        return len(self.loss)

    @property
    def objective(self) -> NDArray[np.float64]:
        """(n_steps,) the function whose gradient each step takes, before its update.

        It is `loss`, unless the loop observed another one or asked for what the criteria say.
        """
        if self.own_objective is None:
            return self.loss
        return np.where(np.isnan(self.own_objective), self.loss, self.own_objective)

    @property
    @quiet
    def batch_loss(self) -> NDArray[np.float64]:
        """(n_steps,) each batch's loss as a mean, also where the objective is a sum."""
        if self.divisor is None:
            return self.loss
        mean = as_means(self.loss, self.divisor)
        return np.where(self.loss == self.objective, mean, self.loss)  # what is observed is a mean

    @property
    @quiet
    def size_weighted_loss(self) -> NDArray[np.float64]:
        r"""(n_steps,) each batch's loss if its backward passes weighed by their sizes.

        A loop that accumulates the means L_j of K passes with the same factor c gives each of
        them one vote, whatever its size n_j. The batch as a whole gives it to each sample:

        .. math:: c K \sum_{j=1}^{K} \frac{n_j}{n_1 + \dots + n_K} L_j
            \quad\text{in place of}\quad c \sum_{j=1}^{K} L_j

        With c = 1/K it is the mean over all of the step's samples (or tokens: n_j is what the mean
        divides by). It is `batch_loss` where a step has one pass, passes of equal sizes, or with
        other factors than one vote each; where they are of different criteria, or see the same
        samples; and where `loss` is not the objective but a mean over samples already. It is nan
        where no pass of several tells its size; one that does not beside others that do is taken
        for a penalty, of another criterion.
        """
        if self.size_weighting is None:
            return self.batch_loss
        added = as_means(self.size_weighting, self.divisor)
        return np.asarray(self.batch_loss + added)

    @property
    @quiet
    def running_loss(self) -> NDArray[np.float64]:
        """(n_epochs,) the size-weighted mean of each finished epoch's batch losses, w moving."""
        return weighted_means(self.batch_loss, self.denominator, self._epochs.edges)

    @property
    @quiet
    def mean_batch_loss(self) -> NDArray[np.float64]:
        """(n_epochs,) the unweighted mean of each finished epoch's batch losses, w moving."""
        return weighted_means(self.batch_loss, np.ones(self.n_steps), self._epochs.edges)

    @property
    def gradient_norm(self) -> NDArray[np.float64]:
        """(n_steps,) the norm of the gradient the optimizer was given; nan at a skipped step.

        Raises ValueError if gradients were not recorded.
        """
        return self._vectors("gradients").norm

    @property
    def gradient(self) -> NDArray[Any]:
        """(n_steps, n_parameters) the gradient the optimizer was given, at each step.

        Parameters come in the order of the optimizer's groups; one without a gradient has zeros.
        Clipping, averaging over ranks and unscaling, where the loop does them, are included.
        Raises ValueError if it was not kept for all of these steps, naming the last epoch that
        was; `history.gradients.kept` has the rows there are.
        """
        return self._whole("gradient", self._vectors("gradients").kept)

    @property
    def local_gradient_norm(self) -> NDArray[np.float64]:
        """(n_steps,) the norm of the gradient of this process's own batch, before averaging.

        Raises ValueError if the run had one process only.
        """
        return self._vectors("local_gradients").norm

    @property
    def local_gradient(self) -> NDArray[Any]:
        """(n_steps, n_parameters) the gradient of this process's own batch, before averaging.

        It is not yet clipped or unscaled, either. Raises ValueError if the run had one process
        only, or if it was not kept for all of these steps.
        """
        return self._whole("local_gradient", self._vectors("local_gradients").kept)

    @property
    def unclipped_norm(self) -> NDArray[np.float64]:
        """(n_steps,) the norm of the gradient as each step's last backward pass left it.

        It is not yet clipped; without a GradScaler's factor, and nan where that overflowed.
        Raises ValueError if `record(..., also=["unclipped_norm"])` did not ask for it.
        """
        return self._asked_for("unclipped_norm")

    @property
    def update_norm(self) -> NDArray[np.float64]:
        """(n_steps,) the distance ‖w_{k+1} − w_k‖ that each step moves the weights.

        It is 0 at a skipped step, and nan at one that raised. Raises ValueError if
        `record(..., also=["update_norm"])` did not ask for it.
        """
        return self._asked_for("update_norm")

    @property
    def norms_by_parameter(self) -> NDArray[np.float64]:
        """(n_steps, n) the norm of each parameter's gradient, in the order of `parameter_names`.

        Raises:
            ValueError: if `record(..., also=["norms_by_parameter"])` did not ask for them, or
                they were not kept for all of these steps.
        """
        return self._whole("norms_by_parameter", self._asked_for("norms_by_parameter"))

    @property
    def parameter_names(self) -> dict[str, slice]:
        """The names of the parameters, each with where its entries are in `gradient[k]`.

        Without names, from `record(..., named_parameters=)` or from the optimizer, they are "0",
        "1", …

        Raises:
            ValueError: if `record` has not made the history, or an older version of it has.
        """
        if "parameters" not in self.metadata:
            raise ValueError("parameter_names were not recorded: record() does so")
        return also.slices(self.metadata["parameters"])

    @property
    def weights(self) -> NDArray[Any]:
        """(n_steps, n_parameters) the weights at which each batch's loss was computed.

        They are recorded by `record(..., weights=True)`, as long as they fit its memory.

        Raises:
            ValueError: if they were not recorded, or not kept for all of these steps.
        """
        if self.kept_weights is None:
            raise ValueError("weights were not recorded: record(..., weights=True) does so")
        return self._whole("weights", self.kept_weights)

    @property
    @quiet
    def path_gradient(self) -> NDArray[Any]:
        r"""(n_epochs, n_parameters) the size-weighted mean of each finished epoch's gradients.

        The weights move from one gradient to the next, so that it is the gradient of the global
        loss at neither end of the epoch. Steps that were skipped do not count. Raises ValueError
        if it was not kept for all of these epochs, naming the last one that was; that of the
        last epoch, `history[-1].path_gradient`, always is.
        """
        vectors, edges = self._vectors("gradients"), self._epochs.edges
        if vectors.last_path is not None and self.n_epochs == self._epochs.n_begun == 1:
            return vectors.last_path[None]
        self._whole("path_gradient", vectors.kept[: edges[-1]], edges[-1])
        paths = np.empty((self.n_epochs, vectors.kept.shape[1]), vectors.kept.dtype)
        for epochs, path in path_gradients(vectors.kept, *self._steps_of_path(edges)):
            paths[epochs] = path
        return paths

    @property
    @quiet
    def path_gradient_norm(self) -> NDArray[np.float64]:
        """(n_epochs,) the norm of each finished epoch's path gradient.

        Raises ValueError if gradients were not recorded.
        """
        vectors, edges = self._vectors("gradients"), self._epochs.edges
        n_kept = int(np.searchsorted(edges[1:], len(vectors.kept), side="right"))
        kept = path_gradient_norms(vectors.kept, *self._steps_of_path(edges[: n_kept + 1]))
        streamed = np.zeros(0) if vectors.path_norm is None else vectors.path_norm[n_kept:]
        return np.concatenate([kept, streamed])

    def __getitem__(self, epochs: int | slice) -> History:
        """Return the history of one epoch, or of several that follow each other.

        Args:
            epochs: a position, from 0, or a slice of them; negative ones count from the end, and
                an epoch that was not finished is the last.

        Returns:
            A History of those epochs' steps, without copying them.

        Raises:
            TypeError: if it is neither an integer nor a slice.
            IndexError: if that epoch was not recorded.
            ValueError: if a slice does not go forward one epoch at a time.
        """
        first, end = self._epochs.selected(epochs)
        steps = self._epochs.steps(first, end)
        finished = slice(first, min(end, self.n_epochs))
        is_last = end == self._epochs.n_begun
        parts: dict[str, Any] = {name: column[steps] for name, column in self._columns.items()}
        for name in ("gradients", "local_gradients"):
            vectors = getattr(self, name)
            parts[name] = vectors and vectors.part(steps, finished, is_last=is_last)
        return History(
            **parts,
            kept_weights=None if self.kept_weights is None else self.kept_weights[steps],
            n_epochs=max(finished.stop - first, 0),
            also={name: array[steps] for name, array in self.also.items()},
            fingerprints=self.fingerprints and self.fingerprints.part(steps),
            evaluated={name: column[finished] for name, column in self.evaluated.items()},
            ranks=tuple(rank[epochs] for rank in self.ranks),
            metadata=self.metadata,
        )

    @quiet
    def epochs(self) -> dict[str, NDArray[Any]]:
        """Return what is known of each finished epoch, as columns of a table: one row an epoch.

        Returns:
            `epoch`, its number in the run, from 1; `n_steps`; `n_samples`; `running_loss` and
            `mean_batch_loss`; `running_size_weighted_loss` where `size_weighted_loss` differs; if
            gradients were recorded, `path_gradient_norm` and `mean_gradient_norm`, the mean of its
            steps' gradient norms; `mean_unclipped_norm` and `mean_update_norm` where they were
            asked for; and what was `evaluated`.
            (n_epochs,) each; steps that were skipped have no part in the norms.
            `to_pandas(by="epoch")` makes a DataFrame of them.

        Example:
            >>> from sgd_analysis import quadratic_fit, train
            >>> run = train(quadratic_fit(), step_size=1e-5, max_epochs=2, batch_size=500)
            >>> table = run.history.epochs()
            >>> table["epoch"].tolist(), table["n_steps"].tolist(), table["n_samples"].tolist()
            ([1, 2], [4, 4], [2000.0, 2000.0])
        """
        edges = self._epochs.edges
        table: dict[str, NDArray[Any]] = {
            "epoch": self.epoch[edges[:-1]] + 1,
            "n_steps": np.diff(edges),
            "n_samples": sums(self.n_samples, edges),
            "running_loss": self.running_loss,
            "mean_batch_loss": self.mean_batch_loss,
        }
        if self.size_weighting is not None:
            weighted = weighted_means(self.size_weighted_loss, self.denominator, edges)
            table["running_size_weighted_loss"] = weighted
        if self.gradients is not None:
            used = np.where(self.skipped, 0.0, 1.0)
            table["path_gradient_norm"] = self.path_gradient_norm
            table["mean_gradient_norm"] = weighted_means(self.gradient_norm, used, edges)
        for name in also.BY_STEP:
            if name in self.also:
                weights = np.where(self.skipped | np.isnan(self.also[name]), 0.0, 1.0)
                table[f"mean_{name}"] = weighted_means(self.also[name], weights, edges)
        return table | dict(self.evaluated)

    def steps(self) -> dict[str, NDArray[Any]]:
        """Return what is known of each step, as columns of a table: one row a step.

        Returns:
            The columns, `size_weighted_loss` where it differs, and the norms of gradients, those
            by parameter as `norm of <name>` (nan where they did not fit into memory), (n_steps,)
            each; with several parameter groups `step_size_0`, `step_size_1`, … instead of
            `step_size`. Epochs are counted from 1.
            `to_pandas(by="step")` makes a DataFrame of them.

        Example:
            >>> from sgd_analysis import quadratic_fit, train
            >>> run = train(quadratic_fit(), step_size=1e-5, max_epochs=2, batch_size=1000)
            >>> table = run.history.steps()
            >>> table["epoch"].tolist(), table["gradient_norm"].shape
            ([1, 1, 2, 2], (4,))
        """
        columns = {name: getattr(self, name) for name in ALWAYS}
        if self.size_weighting is not None:
            columns["size_weighted_loss"] = self.size_weighted_loss
        norms = {
            f"{name.removesuffix('s')}_norm": vectors.norm
            for name in ("gradients", "local_gradients")
            if (vectors := getattr(self, name)) is not None
        }
        names = self.parameter_names if also.BY_PARAMETER in self.also else {}
        return by_step(columns, norms | dict(also.columns(self.also, self.n_steps, names)))

    def to_pandas(self, by: Literal["step", "epoch"] = "step") -> pd.DataFrame:
        """Return a table with one row a step, or one a finished epoch; vectors are left out.

        Steps and epochs are counted from 1 there, as a person counts: steps from the first of
        this history, epochs from the first of the run, also in the table of `history[e]`. Into
        files, of which the second kind needs pyarrow::

            history.to_pandas(by="epoch").to_csv("run.csv")
            history.to_pandas(by="step").to_parquet("run.parquet")

        Args:
            by: "step" for `steps()`, "epoch" for `epochs()`.

        Returns:
            A DataFrame with the index `step`, or `epoch`.

        Raises:
            ImportError: if pandas is not installed.
            ValueError: if `by` is something else.
        """
        if by == "epoch":
            table = self.epochs()
            return framed(table, "epoch", table.pop("epoch"))
        if by != "step":
            raise ValueError(f'by must be "step" or "epoch", got {by!r}')
        return framed(self.steps(), "step", range(1, self.n_steps + 1))

    def log_to(self, writer: Any, prefix: str = writers.PREFIX) -> None:
        """Hand everything by step and by epoch to a logger, in the order of the steps.

        The names are those of `to_pandas()` after the prefix: `sgd_analysis/loss` and the step
        sizes and norms at their steps, counted from 1; `sgd_analysis/running_loss`, what else
        `epochs()` has, and what was `evaluated` at the step that ended their epoch. A step's nan
        is handed on, as all of these loggers take it; an epoch's says that something is not known,
        and is left out.

        Args:
            writer: what has `add_scalar(name, value, step)`, such as TensorBoard's SummaryWriter;
                `log(numbers, step=)`: wandb, trackio, or a run of theirs (wandb takes no step
                below one it has: give it a run of its own); or `log_metrics(numbers, step=)`:
                mlflow, or a logger of Lightning's.
            prefix: what the names begin with: another one for each of several optimizers.

        Raises:
            TypeError: if the writer is of none of these kinds.
            ValueError: if wandb would drop the rows.

        Example:
            >>> from sgd_analysis import quadratic_fit, train
            >>> class Printer:
            ...     def log(self, numbers, step):
            ...         print(step, [name for name in numbers if "loss" in name])
            >>> run = train(quadratic_fit(), step_size=1e-5, max_epochs=1, batch_size=1000)
            >>> run.history.log_to(Printer(), prefix="")
            1 ['loss']
            2 ['loss', 'running_loss', 'mean_batch_loss']
        """
        write = writers.writing(writer, prefix)
        for row in writers.rows(self):
            write(row.numbers, row.step)

    def plot(self) -> matplotlib.figure.Figure:
        """Draw what there is to see first: losses, norms, and what was evaluated.

        The panels stand above each other, over the epochs: epoch e goes from e − 1 to e, and the
        steps lie in it where they were made, before their updates (where no epoch has finished,
        the axis counts steps). Light lines have a value a step, those with markers one a finished
        epoch, at its end. Solid and blue is what a loop prints, the weights moving; green what is
        recorded besides; dashed and red what was `evaluated` at fixed weights: beside the losses
        if the last word of its name is loss or risk, or says on which samples (train, validation,
        test); beside the gradient norms if it ends so; and else in a panel of its own. Axes are
        logarithmic where all values are positive and far enough apart. Of very many steps the
        least and the greatest of each bin are drawn.

        Returns:
            A matplotlib Figure, which pyplot knows nothing of: a notebook shows it, and
            `figure.savefig("run.svg")` writes it to a file.

        Raises:
            ImportError: if matplotlib is not installed.

        Example:
            >>> from sgd_analysis import quadratic_fit, train
            >>> run = train(quadratic_fit(), step_size=1e-5, max_epochs=3, batch_size=500)
            >>> losses, norms = run.history.plot().axes
            >>> norms.get_xlabel(), [line.get_label() for line in losses.lines]
            ('epoch', ['batch loss, each step', 'running loss'])
        """
        try:
            from sgd_analysis.history.drawing import draw
        except ImportError as error:
            raise ImportError(
                "plot() needs matplotlib: pip install matplotlib, or this library with its extra "
                "[figures]"
            ) from error
        return draw(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything recorded to a file in numpy's .npz format, with JSON metadata.

        The file is complete or not there: whatever interrupts the saving leaves the file that was
        at `path` before as it was. It keeps that file's mode. The hidden file beside it that a
        killed process leaves is removed when `path` is next saved or loaded.

        Args:
            path: where to; `History.load` reads it from there.

        Raises:
            TypeError: if the metadata holds what JSON cannot.
            OSError: if the file cannot be written: if `path` is read-only, or no regular file but
                a device or a named pipe.
        """
        archive.write(path, self)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> History:
        """Read a file that `save` wrote; `record(..., history=...)` continues the run.

        Args:
            path: where it is.

        Returns:
            The History, equal to the one that was saved, to the bit.

        Raises:
            ValueError: if the file was not written by `save`, is damaged or not complete, holds
                pickled objects, or was written by a newer version; the error says which.
            OSError: if there is no such file, or it cannot be read.
        """
        return archive.read(path, History)

    @quiet
    def _seen_by_size(self) -> NDArray[np.float64] | None:
        """Return the running loss (n_epochs,) weighted by size, if that is another to the eye."""
        if self.size_weighting is None:
            return None
        if median_change(self.loss, self.size_weighting) <= VISIBLE:
            return None
        return weighted_means(self.size_weighted_loss, self.denominator, self._epochs.edges)

    @property
    def _columns(self) -> dict[str, NDArray[Any]]:
        there = {name: getattr(self, name) for name in (*ALWAYS, *IF_GIVEN)}
        return {name: column for name, column in there.items() if column is not None}

    @property
    def _epochs(self) -> Epochs:
        return Epochs(self.epoch, self.n_epochs)

    def _asked_for(self, name: str) -> NDArray[np.float64]:
        if name not in self.also:
            raise also.not_recorded(name)
        return self.also[name]

    def _vectors(self, name: str) -> Vectors:
        vectors: Vectors | None = getattr(self, name)
        if vectors is None:
            raise ValueError(
                f"{name} were not recorded"
                + (": they are where torch.distributed has several processes" * (name[0] == "l"))
            )
        return vectors

    def _whole(self, name: str, kept: NDArray[Any], n_steps: int | None = None) -> NDArray[Any]:
        n_steps = self.n_steps if n_steps is None else n_steps
        if len(kept) < n_steps:
            epochs = np.searchsorted(self._epochs.edges[1:], len(kept), side="right")
            last = f"the last epoch that was is [{epochs - 1}]" if epochs else "no whole epoch was"
            raise ValueError(
                f"{name} was kept for the first {len(kept)} of these {n_steps} steps only, and "
                f"{last}: give record() more memory= to keep more"
            )
        return kept

    def _steps_of_path(
        self, edges: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64] | None]:
        """Return what `path_gradients` has to know of the first finished epochs' steps."""
        steps = slice(edges[-1])
        denominator = np.where(self.skipped[steps], 0, self.denominator[steps])
        return denominator, edges, None if self.divisor is None else self.divisor[steps]
