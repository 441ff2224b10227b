"""Why a printed loss is not the global loss: an epoch's accounts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import kind_of
from sgd_analysis.history.history import History
from sgd_analysis.surveying.survey import Survey, check_survey


@dataclass(frozen=True)
class LossGap:
    """What an epoch's printed loss is above the global loss, and why: all in loss units.

    To rounding, mean_batch_loss − empirical_risk = weighting + drift + mode + noise. A term that
    the surveys do not tell is nan, and `unknown` says why; it is never part of another term.

    Args:
        mean_batch_loss: the unweighted mean of the epoch's batch losses, the weights moving.
        empirical_risk: the global loss at the end of the epoch; in evaluation mode where that
            was surveyed.
        weighting: mean batch loss − running loss: what counting a ragged last batch as much as a
            whole one adds.
        drift: running loss − global loss at the end, in the mode trained in and on the batches
            visited: what the path adds.
        mode: the global loss at the end in the mode trained in, but without noise − in evaluation
            mode: what batch norm adds by normalising each batch by itself; 0 where evaluation
            mode was not surveyed. Some of it is there even if the running statistics are those of
            the batch: torch's running variance divides by n − 1 and a batch's own by n, so that
            the mode is zero, to rounding, only after running_var is multiplied by (n − 1)/n.
        noise: what dropout, and whatever else draws random numbers in training mode only, adds to
            the global loss at the end, in the mean over the draws of the survey.
        drift_error: the standard error of the drift that comes from random numbers: those of the
            epoch, which saw one draw for each batch (taken to scatter as at its end), and those
            of the survey. 0 where nothing is drawn.
        noise_error: the standard error of the noise, which comes from the survey's draws.
        unknown: why a term is nan, and what to do; empty if none is.

    Example:
        >>> from sgd_analysis import LossGap
        >>> gap = LossGap(3.0, empirical_risk=2.0, weighting=0.25, drift=0.75, mode=0.0)
        >>> gap.weighting + gap.drift + gap.mode + gap.noise == gap.mean_batch_loss - 2.0
        True
    """

    mean_batch_loss: float
    empirical_risk: float
    weighting: float
    drift: float
    mode: float
    noise: float = 0.0
    drift_error: float = 0.0
    noise_error: float = 0.0
    unknown: str = ""

    def __repr__(self) -> str:
        drift = f"{self.drift:.6g}" + (f" ± {self.drift_error:.2g}" if self.drift_error else "")
        noise = f"{self.noise:.6g}" + (f" ± {self.noise_error:.2g}" if self.noise_error else "")
        return (
            f"LossGap(mean batch loss {self.mean_batch_loss:.6g} − empirical risk "
            f"{self.empirical_risk:.6g} = {self.mean_batch_loss - self.empirical_risk:.6g} = "
            f"weighting {self.weighting:.6g} + drift {drift} + mode {self.mode:.6g} + noise "
            f"{noise}{'; ' + self.unknown if self.unknown else ''})"
        )

    def numbers(self) -> dict[str, float]:
        """Return what `recorder.evaluate` keeps of it beside an epoch.

        Returns:
            `weighting`, `drift`, `mode` and `noise`.
        """
        names = ("weighting", "drift", "mode", "noise")
        return {name: getattr(self, name) for name in names}


def loss_gap(epoch: History, at_end: Survey, *, evaluated: Survey | None = None) -> LossGap:
    """Take apart the difference between an epoch's mean batch loss and the global loss at its end.

    Where nothing is drawn and no batch norm is in training mode, any batches of the same samples
    will do. A batch norm needs those that the epoch has visited::

        visited = list(loader)
        for inputs, targets in visited:
            ...  # train
        at_end = survey(model, criterion, visited)

    Dropout needs draws: `survey(model, criterion, visited, draws=64)`.

    Args:
        epoch: one finished epoch, `history[e]`.
        at_end: a survey of the same samples, at the weights at the epoch's end and in the mode
            trained in.
        evaluated: the same after `model.eval()`, in any batches, where the model has such a mode.

    Returns:
        The `LossGap`; its `empirical_risk` is that of `evaluated` where it is given, and
        otherwise that of `at_end`, without its noise.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if epoch is not exactly one finished epoch, or the sample counts differ.

    Example:
        >>> from sgd_analysis import LeastSquares, loss_gap, train
        >>> line = LeastSquares([[1.0], [1.0]], [0.0, 2.0])
        >>> run = train(line, step_size=0.25, batch_size=1, max_epochs=1, order="cyclic")
        >>> loss_gap(run.history[0], line.survey(run.weights, [[0], [1]]))
        LossGap(mean batch loss 2 − empirical risk 1 = 1 = weighting 0 + drift 1 + mode 0 + noise 0)
    """
    if not isinstance(epoch, History):
        raise TypeError(f"epoch must be a History of one epoch, got {kind_of(epoch)}")
    if epoch.n_epochs != 1 or epoch.epoch[0] != epoch.epoch[-1]:
        raise ValueError(
            "epoch must be exactly one finished epoch, history[e], got a history of "
            f"{epoch.n_steps} steps and {epoch.n_epochs} finished epochs"
        )
    visited = epoch.denominator
    surveys = {"at_end": at_end} | ({} if evaluated is None else {"evaluated": evaluated})
    for name, one in surveys.items():
        check_survey(name, one)
        _check_same_samples(visited, name, one.denominator)
    unknown = _unknown(visited, at_end)
    mean_batch_loss, running_loss = float(epoch.mean_batch_loss[0]), float(epoch.running_loss[0])
    risk, noise = at_end.empirical_risk, at_end.noise
    without_noise = risk if math.isnan(noise) else risk - noise
    final = without_noise if evaluated is None else evaluated.empirical_risk
    return LossGap(
        mean_batch_loss=mean_batch_loss,
        empirical_risk=final,
        weighting=mean_batch_loss - running_loss,
        drift=math.nan if unknown else running_loss - risk,
        mode=without_noise - final,
        noise=noise,
        drift_error=0.0 if unknown else at_end.standard_error * (at_end.draws + 1) ** 0.5,
        noise_error=at_end.noise_error,
        unknown=unknown,
    )


def _unknown(visited: NDArray[np.float64], at_end: Survey) -> str:
    """Return why the drift is unknown, or nothing if it is known."""
    if math.isnan(at_end.noise):
        return (
            "drift and noise are nan, for at_end was surveyed with the modules that draw in "
            "evaluation mode: survey the mode trained in, with draws=64, say"
        )
    if not at_end.couples:
        return ""
    other = not np.array_equal(visited, at_end.denominator)
    if other or at_end.may_reorder:
        return (
            "drift is nan, for samples that share a batch change each other's loss (as in batch "
            f"norm), and at_end {'is' if other else 'may be'} of other batches than the epoch has "
            "visited: train on visited = list(loader), and survey visited"
        )
    return ""


def _check_same_samples(
    recorded: NDArray[np.float64], name: str, surveyed: NDArray[np.float64]
) -> None:
    counts = recorded.sum(), surveyed.sum()
    # Sums of class weights depend on the partition by their rounding, counts do not.
    are_whole = all((column % 1 == 0).all() for column in (recorded, surveyed))
    if not abs(counts[0] - counts[1]) <= (0.0 if are_whole else 1e-6 * counts[1]):
        raise ValueError(
            f"epoch and {name} must be of the same samples, got {counts[0]:.10g} in the epoch and "
            f"{counts[1]:.10g} in the survey: survey the samples the epoch has used (a loader "
            "with drop_last leaves some out)"
        )
