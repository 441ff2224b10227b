"""When to stop, and why: rules that look at the finished epochs and give their reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import integer_between, positive_number

Series: TypeAlias = NDArray[np.float64]

QUANTITIES = (
    "running_loss",
    "mean_batch_loss",
    "last_batch_loss",
    "empirical_risk",
    "full_gradient_norm",
    "path_gradient_norm",
)


@dataclass(frozen=True)
class StoppingRule:
    """A condition on how one quantity went, epoch by epoch; rules are joined with `|`.

    The first of the joined rules to hold gives the reason. A rule keeps no state: it is asked
    about all epochs at once, so that the same rule serves a run and an ensemble of runs.

    The functions `..._below(epsilon)` make rules for `train(stop=...)` with a threshold that has to
    be positive and finite; anything else raises a ValueError, or a TypeError if it is no number.

    Args:
        name: the reason given when the rule holds.
        quantity: what it looks at: "running_loss", "mean_batch_loss", "last_batch_loss" and
            "path_gradient_norm", which the training loop sees along an epoch, or
            "empirical_risk" and "full_gradient_norm", all samples at the weights at its end.
        holds: a function of the quantity's values (..., n_epochs), one an epoch, that returns
            for each epoch whether to stop after it, as far as the epochs up to it tell; most
            often False for nan.
        converged: whether a run that ends by this rule has reached what it was run for.
        otherwise: the rule to ask when this one does not hold; `|` fills it in.

    Raises:
        ValueError: if the quantity is not one of these.

    Example:
        >>> from sgd_analysis import last_batch_loss_below, running_loss_below
        >>> running_loss_below(0.1) | last_batch_loss_below(1e-3)
        running_loss_below(0.1) | last_batch_loss_below(0.001)
    """

    name: str
    quantity: str
    holds: Callable[[Series], NDArray[np.bool_]]
    converged: bool = True
    otherwise: StoppingRule | None = None

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise ValueError(f"quantity must be one of {QUANTITIES}, got {self.quantity!r}")

    @property
    def quantities(self) -> frozenset[str]:
        """The names of the quantities that this rule and those joined to it look at."""
        others = self.otherwise.quantities if self.otherwise else frozenset()
        return others | {self.quantity}

    def stops(self, values: Mapping[str, Series]) -> NDArray[np.bool_]:
        """Return after which epochs this rule, or one joined to it, says to stop.

        Args:
            values: (..., n_epochs) the values of each of the `quantities`.

        Returns:
            (..., n_epochs) True where one of the rules holds.
        """
        here = np.asarray(self.holds(values[self.quantity]))
        return here | self.otherwise.stops(values) if self.otherwise else here

    def verdict(self, values: Mapping[str, Series]) -> StoppingRule | None:
        """Return the first of the joined rules that holds after the last epoch, or None.

        Args:
            values: (n_epochs,) the values of each of the `quantities` of one run.

        Returns:
            The rule, whose `name` is the reason, or None if the run should go on; None, too,
            before the first epoch has finished.
        """
        series = values[self.quantity]
        if series.size and self.holds(series)[-1]:
            return self
        return self.otherwise.verdict(values) if self.otherwise else None

    def __or__(self, other: StoppingRule) -> StoppingRule:
        """Return a rule to stop as soon as either holds; the first to hold gives the reason."""
        if not isinstance(other, StoppingRule):
            return NotImplemented
        rest = other if self.otherwise is None else self.otherwise | other
        return StoppingRule(self.name, self.quantity, self.holds, self.converged, rest)

    def __repr__(self) -> str:
        return self.name if self.otherwise is None else f"{self.name} | {self.otherwise!r}"


def running_loss_below(epsilon: float) -> StoppingRule:
    """Return a rule to stop once an epoch's running loss is below ε > 0, in loss units.

    That is the size-weighted mean of the epoch's batch losses, w moving: what most loops print.

    Example:
        >>> from sgd_analysis import quadratic_fit, running_loss_below, train
        >>> settings = dict(step_size=2e-4, max_epochs=10_000, gradient="closed form")
        >>> train(quadratic_fit(), stop=running_loss_below(0.1), **settings)
        Run('running_loss_below(0.1)' after 9340 epochs, 9340 steps)
    """
    return _below("running_loss", epsilon)


def mean_batch_loss_below(epsilon: float) -> StoppingRule:
    """Return a rule to stop once the unweighted mean of an epoch's batch losses is below ε > 0.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import mean_batch_loss_below
        >>> mean_batch_loss_below(0.1).stops({"mean_batch_loss": np.array([0.3, 0.1, 0.05])})
        array([False, False,  True])
    """
    return _below("mean_batch_loss", epsilon)


def last_batch_loss_below(epsilon: float) -> StoppingRule:
    """Return a rule to stop once the loss of an epoch's last batch alone is below ε > 0.

    Example:
        >>> from sgd_analysis import last_batch_loss_below
        >>> last_batch_loss_below(0.1).quantities
        frozenset({'last_batch_loss'})
    """
    return _below("last_batch_loss", epsilon)


def empirical_risk_below(epsilon: float) -> StoppingRule:
    """Return a rule to stop once the global loss F, at an epoch's end, is below ε > 0.

    It costs one more pass over the samples an epoch, unless the problem has a closed form.

    Example:
        >>> from sgd_analysis import empirical_risk_below, quadratic_fit, train
        >>> stop = empirical_risk_below(0.1)
        >>> settings = dict(step_size=2e-4, max_epochs=10_000, gradient="closed form")
        >>> train(quadratic_fit(), stop=stop, **settings).epochs  # the running loss needs one more
        9339
    """
    return _below("empirical_risk", epsilon)


def full_gradient_norm_below(epsilon: float) -> StoppingRule:
    """Return a rule to stop once ‖∇F‖, all samples at an epoch's end, is below ε > 0.

    ε is in loss units a weight unit. It costs one more pass over the samples an epoch, unless the
    problem has a closed form.

    Example:
        >>> from sgd_analysis import full_gradient_norm_below, running_loss_below
        >>> running_loss_below(0.1) | full_gradient_norm_below(1e-3)
        running_loss_below(0.1) | full_gradient_norm_below(0.001)
    """
    return _below("full_gradient_norm", epsilon)


def path_gradient_norm_below(epsilon: float) -> StoppingRule:
    """Return a rule to stop once the norm of an epoch's path gradient is below ε > 0.

    That is the epoch's mean gradient, w moving; ε is in loss units a weight unit.

    Example:
        >>> from sgd_analysis import path_gradient_norm_below
        >>> path_gradient_norm_below(1e-3)
        path_gradient_norm_below(0.001)
    """
    return _below("path_gradient_norm", epsilon)


def no_improvement(
    n_epochs: int, tolerance: float = 1e-3, quantity: str = "running_loss"
) -> StoppingRule:
    """Return a rule to stop once a quantity has not improved on its best for some epochs in a row.

    An epoch improves if its value is at most the best of all earlier ones less the tolerance. This
    is the rule of scikit-learn's `SGDClassifier` (`n_iter_no_change`, `tol`).

    Args:
        n_epochs: how many epochs in a row without an improvement end the run.
        tolerance: by how much an epoch has to improve to count, in the quantity's unit.
        quantity: the quantity, by one of the names that `StoppingRule` lists.

    Raises:
        TypeError: if a number is of the wrong kind.
        ValueError: if n_epochs is below 1, tolerance is negative or not finite, or the quantity
            is not known.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import no_improvement
        >>> no_improvement(2).stops({"running_loss": np.array([3.0, 1.0, 1.0, 0.9999, 0.5])})
        array([False, False, False,  True, False])
    """
    patience = integer_between("n_epochs", n_epochs, 1)
    least = 0.0 if tolerance == 0 else positive_number("tolerance", tolerance)

    def holds(values: Series) -> NDArray[np.bool_]:
        known = np.where(np.isnan(values), np.inf, values)
        best = np.minimum.accumulate(known, axis=-1)
        best_before = np.concatenate([np.full_like(best[..., :1], np.inf), best[..., :-1]], axis=-1)
        epoch = np.arange(values.shape[-1])
        improves = values <= best_before - least  # nan does not
        latest = np.maximum.accumulate(np.where(improves, epoch, -1), axis=-1)
        return np.asarray(epoch - latest >= patience)

    name = f"no_improvement({patience}, tolerance={least:g}, quantity={quantity!r})"
    return StoppingRule(name, quantity, holds)


def diverged() -> StoppingRule:
    """Return a rule to stop once an epoch's running loss is not finite.

    Its reason is "diverged". `train` always asks it, and does not wait for such an epoch's end.

    Example:
        >>> import numpy as np
        >>> from sgd_analysis import diverged
        >>> diverged().stops({"running_loss": np.array([1e300, np.inf, np.nan])})
        array([False,  True,  True])
    """
    return StoppingRule("diverged", "running_loss", lambda v: ~np.isfinite(v), converged=False)


def epochs_reached(n_epochs: int) -> StoppingRule:
    """Return the rule that ends a run after `max_epochs`, whatever was reached by then."""
    last = integer_between("n_epochs", n_epochs, 1) - 1
    return StoppingRule(
        "max_epochs",
        "running_loss",
        lambda values: np.broadcast_to(np.arange(values.shape[-1]) >= last, values.shape),
        converged=False,
    )


def _below(quantity: str, epsilon: float) -> StoppingRule:
    threshold = positive_number("epsilon", epsilon)
    name = f"{quantity}_below({threshold:.12g})"
    return StoppingRule(name, quantity, lambda values: values < threshold)
