"""When to stop, and why: rules that look at a finished epoch and give their reason."""

from collections.abc import Callable
from dataclasses import dataclass

from sgd_analysis._validation import positive_number
from sgd_analysis.history import History


@dataclass(frozen=True)
class StoppingRule:
    """A named condition on a finished epoch; rules are joined with `|`, the first to hold wins.

    Args:
        name: the reason given when the rule holds.
        holds: a function of the finished epoch's `History`.
        otherwise: the rule to ask when this one does not hold; `|` fills it in.

    Example:
        >>> running_loss_below(0.1) | last_batch_loss_below(1e-3)
        running_loss_below(0.1) | last_batch_loss_below(0.001)
    """

    name: str
    holds: Callable[[History], bool]
    otherwise: "StoppingRule | None" = None

    def reason(self, epoch: History) -> str | None:
        """Return why the run should stop after this epoch, or None if it should go on.

        Args:
            epoch: the history of the epoch that has just finished.

        Returns:
            The name of the first of the joined rules that holds, or None; None, too, for an
            epoch that was begun and not finished.
        """
        if epoch.n_epochs == 0:
            return None
        if self.holds(epoch):
            return self.name
        return self.otherwise.reason(epoch) if self.otherwise else None

    def __or__(self, other: "StoppingRule") -> "StoppingRule":
        """Join two rules: stop as soon as either holds.

        Returns:
            A rule that gives the reason of the first that holds.
        """
        if not isinstance(other, StoppingRule):
            return NotImplemented
        rest = other if self.otherwise is None else self.otherwise | other
        return StoppingRule(self.name, self.holds, rest)

    def __repr__(self) -> str:
        return self.name if self.otherwise is None else f"{self.name} | {self.otherwise!r}"


def running_loss_below(epsilon: float) -> StoppingRule:
    """Stop once an epoch's running loss, the size-weighted mean of its batch losses, is below ε.

    Args:
        epsilon: the threshold, in loss units.

    Returns:
        A rule for `train(stop=...)`.

    Raises:
        TypeError: if epsilon is not a number.
        ValueError: if epsilon is not positive and finite.
    """
    return _below("running_loss_below", epsilon, lambda epoch: epoch.running_loss[-1])


def mean_batch_loss_below(epsilon: float) -> StoppingRule:
    """Stop once the unweighted mean of an epoch's batch losses is below ε.

    Args:
        epsilon: the threshold, in loss units.

    Returns:
        A rule for `train(stop=...)`.

    Raises:
        TypeError: if epsilon is not a number.
        ValueError: if epsilon is not positive and finite.
    """
    return _below("mean_batch_loss_below", epsilon, lambda epoch: epoch.mean_batch_loss[-1])


def last_batch_loss_below(epsilon: float) -> StoppingRule:
    """Stop once the loss of an epoch's last batch alone is below ε.

    Args:
        epsilon: the threshold, in loss units.

    Returns:
        A rule for `train(stop=...)`.

    Raises:
        TypeError: if epsilon is not a number.
        ValueError: if epsilon is not positive and finite.
    """
    return _below("last_batch_loss_below", epsilon, lambda epoch: epoch.loss[-1])


def _below(name: str, epsilon: float, value: Callable[[History], float]) -> StoppingRule:
    threshold = positive_number("epsilon", epsilon)
    return StoppingRule(f"{name}({threshold:.12g})", lambda epoch: bool(value(epoch) < threshold))
