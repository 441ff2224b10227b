"""Many seeds at once: the runs that `train` would make one after another, as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._arrays import quiet
from sgd_analysis._progress import progress_bar
from sgd_analysis._validation import integer_between
from sgd_analysis.ensemble.loop import train_all
from sgd_analysis.ensemble.replicas import Records
from sgd_analysis.orders import Order
from sgd_analysis.problems.finite_sum import FiniteSum
from sgd_analysis.stopping import QUANTITIES, StoppingRule
from sgd_analysis.training.optimizers import Optimizer
from sgd_analysis.training.plan import StepSize, checked_plan


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    """The runs of many seeds, none of them stopped: row r is the run of `seeds[r]`.

    A replica that diverges, its running loss no longer finite, has nan in all that comes after.

    Args:
        seeds: (n_replicas,) the seed of each replica.
        running_loss: (n_replicas, n_epochs) the size-weighted mean of each epoch's batch losses,
            w moving, in loss units.
        mean_batch_loss: (n_replicas, n_epochs) the same, unweighted.
        last_batch_loss: (n_replicas, n_epochs) the loss of each epoch's last batch, before its
            own update.
        empirical_risk: (n_replicas, n_epochs) the global loss, all samples at the weights of each
            epoch's end.
        path_gradient_norm: (n_replicas, n_epochs) the norm of the size-weighted mean of each
            epoch's batch gradients, w moving, in loss units a weight unit.
        full_gradient_norm: (n_replicas, n_epochs) ‖∇F‖, all samples at the weights of each
            epoch's end, for a `LeastSquares`; None for other problems.
        weights: (n_replicas, n_parameters) the weights at the end, in the parameters' dtype.
        checkpoints: (n_replicas, n_epochs + 1, n_parameters) the weights at the start and after
            each epoch, or None if they were not asked for.

    Example:
        >>> from sgd_analysis import quadratic_fit, train_ensemble
        >>> ensemble = train_ensemble(
        ...     quadratic_fit(), range(20), step_size=2e-4, max_epochs=3, batch_size=10
        ... )
        >>> ensemble
        Ensemble(20 replicas, 3 epochs, 0 diverged)
        >>> ensemble.running_loss.shape, ensemble.weights.shape
        ((20, 3), (20, 3))
    """

    seeds: NDArray[np.int64]
    running_loss: NDArray[np.float64]
    mean_batch_loss: NDArray[np.float64]
    last_batch_loss: NDArray[np.float64]
    empirical_risk: NDArray[np.float64]
    path_gradient_norm: NDArray[np.float64]
    full_gradient_norm: NDArray[np.float64] | None
    weights: NDArray[np.floating]
    checkpoints: NDArray[np.floating] | None

    @property
    def n_replicas(self) -> int:
        """The number of replicas R."""
        return len(self.seeds)

    @property
    def epochs(self) -> int:
        """The number of epochs each replica was trained for."""
        return int(self.running_loss.shape[1])

    @quiet
    def epochs_to(self, rule: StoppingRule) -> NDArray[np.float64]:
        """Return the number of epochs after which a rule would have stopped each replica.

        It is `train(..., stop=rule).epochs` of each seed. Nothing counts that comes after the
        epoch in which a replica diverged, since its run ended there; `diverged()` gives that epoch.

        Args:
            rule: a stopping rule, or several joined with `|`.

        Returns:
            (n_replicas,) epochs, counted from 1; nan where the rule never held.

        Raises:
            TypeError: if rule is not a stopping rule.
            ValueError: if it looks at a quantity that was not recorded.
        """
        if not isinstance(rule, StoppingRule):
            raise TypeError(
                f"rule must be a stopping rule such as running_loss_below(0.1), got {rule!r}"
            )
        values = {q: getattr(self, q) for q in QUANTITIES if getattr(self, q) is not None}
        if missing := rule.quantities - values.keys():
            raise ValueError(
                f"rule must look at what was recorded, {', '.join(values)}; got {rule!r}, which "
                f"needs {', '.join(sorted(missing))}"
            )
        had_diverged = np.pad(_has_diverged(self.running_loss)[:, :-1], ((0, 0), (1, 0)))
        stops = rule.stops(values) & ~had_diverged
        return np.where(stops.any(axis=1), stops.argmax(axis=1) + 1.0, np.nan)

    def __repr__(self) -> str:
        n_diverged = int(_has_diverged(self.running_loss)[:, -1].sum())
        return f"Ensemble({self.n_replicas} replicas, {self.epochs} epochs, {n_diverged} diverged)"


def train_ensemble(
    problem: FiniteSum,
    seeds: Iterable[int] = range(1024),
    optimizer: Optimizer = "sgd",
    *,
    step_size: StepSize,
    max_epochs: int,
    batch_size: int | None = None,
    order: str | Order = "reshuffle",
    drop_last: bool = False,
    start: ArrayLike | None = None,
    gradient: Literal["autograd", "closed form"] = "autograd",
    checkpoints: bool = False,
    memory: int = 64 << 20,
    progress: bool = False,
) -> Ensemble:
    """Train one replica a seed, all at once: what `train(..., seed=seed)` gives for each.

    What both functions take has the same name, the same default and the same meaning. Each seed
    has its own random numbers, so that a replica can be run again alone. Replicas do not disturb
    each other: one that diverges leaves the others as they are.

    Args:
        problem: what to minimise; its model is copied, never changed.
        seeds: one seed a replica, integers >= 0; the same may come twice.
        optimizer: "sgd", or a class from `torch.optim` that updates each weight from its own
            gradients alone (SGD with momentum, RMSprop, Adam and their kin), or a
            `functools.partial` of one.
        step_size: η > 0, or a function of the step (from 0) that returns it.
        max_epochs: for how many epochs each replica is trained; no rule stops it before,
            `Ensemble.epochs_to` tells afterwards when one would have.
        batch_size: B, between 1 and n_samples. None: all samples in their given order, whatever
            `order` says, one step an epoch.
        order: the order in which samples are visited, as in `train`.
        drop_last: leave out what is left for a last batch smaller than B.
        start: (n_parameters,) the weights that all replicas start from; the model's own unless
            given.
        gradient: "autograd"; or "closed form", that of a LeastSquares by its formula, some ten
            times as fast. Each gives what `train` gives with it, up to rounding: sums over a
            batch may be taken in another order. Two runs that differ by rounding tell different
            stories where it is amplified (by RMSprop's bursts) or is all that is left of a loss.
        checkpoints: whether to keep the weights after each epoch.
        memory: about how many bytes training may take besides what is returned; it decides how
            many replicas are stepped at once, at least one (64 in closed form).
        progress: show a bar (never when the variable CI is set).

    Returns:
        The `Ensemble`. The caller's random state is left as it was.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: as `train`, and if there is no seed, if the optimizer mixes weights, if the
            problem has no closed form where one is asked for, if an order yields another number
            of indices for one seed than for another, or if `torch.vmap` cannot vectorize the
            model.

    Example:
        >>> from sgd_analysis import LeastSquares, running_loss_below, train_ensemble
        >>> line = LeastSquares([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 3.0, 5.0])
        >>> ensemble = train_ensemble(line, range(5), step_size=0.1, max_epochs=20, batch_size=1)
        >>> ensemble.epochs_to(running_loss_below(0.01))
        array([2., 7., 4., 2., 2.])
    """
    plan = checked_plan(
        problem,
        optimizer,
        step_size=step_size,
        max_epochs=max_epochs,
        batch_size=batch_size,
        order=order,
        drop_last=drop_last,
        start=start,
        gradient=gradient,
        elementwise=True,
    )
    if callable(step_size):  # asked once a step, however many parts the replicas are trained in
        plan = replace(plan, step_size=cache(step_size))
    all_seeds = _checked_seeds(seeds)
    memory = integer_between("memory", memory, 1)
    with (
        torch.random.fork_rng(devices=[]),
        progress_bar(progress, len(all_seeds) * plan.max_epochs) as bar,
    ):
        records = train_all(plan, all_seeds, memory, bar.update, keep_checkpoints=checkpoints)
    _forget_what_follows_divergence(records)
    weights = records.pop("checkpoints")
    return Ensemble(
        seeds=np.array(all_seeds, dtype=np.int64),
        full_gradient_norm=records.pop("full_gradient_norm", None),
        weights=weights[:, -1],
        checkpoints=weights if checkpoints else None,
        **records,
    )


def _has_diverged(running_loss: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (n_replicas, n_epochs) whether each replica has diverged by an epoch's end."""
    return np.logical_or.accumulate(~np.isfinite(running_loss), axis=1)


def _forget_what_follows_divergence(records: Records) -> None:
    diverged = _has_diverged(records["running_loss"])
    for name, values in records.items():
        if name == "checkpoints":
            n_ends = min(values.shape[1], diverged.shape[1])  # the start is none
            values[:, -n_ends:][diverged[:, -n_ends:]] = np.nan
        elif name in ("empirical_risk", "full_gradient_norm"):
            values[diverged] = np.nan
        else:
            values[:, 1:][diverged[:, :-1]] = np.nan


def _checked_seeds(seeds: Iterable[int]) -> list[int]:
    if not isinstance(seeds, Iterable):
        raise TypeError(f"seeds must be integers, for instance range(1024), got {seeds!r}")
    checked = [integer_between(f"seeds[{i}]", seed, 0, 2**63 - 1) for i, seed in enumerate(seeds)]
    if not checked:
        raise ValueError("seeds must hold at least one seed, got none")
    return checked
