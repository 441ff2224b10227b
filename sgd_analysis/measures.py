"""What holds at fixed weights, and what the path along an epoch adds to it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sgd_analysis._fixed_weights import FixedWeights
from sgd_analysis._random_state import undisturbed
from sgd_analysis._survey import Survey, quotient
from sgd_analysis._tally import Tally
from sgd_analysis._validation import integer_between
from sgd_analysis.history import History
from sgd_analysis.problems import Criterion, trainable


def survey(
    model: nn.Module,
    criterion: Criterion,
    loader: Iterable[Any],
    *,
    memory: int = 64 << 20,
    n_samples: Callable[..., float] | None = None,
) -> Survey:
    """Compute the loss and the gradient of every batch at the model's present weights.

    Nothing else changes: parameters, their `.grad`, buffers, modes and attributes of the modules
    and all random states are afterwards what they were, bit for bit, also if an error ends it.
    The model is taken in its present mode. In training mode a batch norm gives each batch the
    loss that the training loop would see; call `model.eval()` first for what it predicts with.
    Hooks of the model run, as some belong to its function, those of the criterion do not: a
    `Recorder` on it does not see the survey.

    Many small batches of the same shapes are evaluated together by `torch.func` where the model
    allows, all others one by one: a model whose branches depend on data, batch norm in training
    mode, recurrent layers, inputs that are no tensors.

    Args:
        model: any module with at least one trainable parameter.
        criterion: a loss module, with reduction "mean" or "sum", or a function (predictions,
            targets) -> the mean over the batch.
        loader: an iterable of batches (inputs, targets) on the model's device: a DataLoader, or a
            list of pairs. It says which samples there are, and how they are put in batches.
        memory: the bytes that the batches' gradients may take. When there are more, none of them
            is kept, only the full gradient and the norms. Besides them and a copy of the model,
            what is evaluated at once takes some 32 MiB, or what one batch takes.
        n_samples: how many samples a batch counts for, a function of (predictions, targets). By
            default, what the mean of torch's own losses divides by, as `record` has it: the
            number of targets not ignored, the sum of their class weights, or the number of
            elements; for other criteria the length of the predictions.

    Returns:
        A `Survey` of the batches in the loader's order.

    Raises:
        TypeError: if an argument is of the wrong kind, or the loader does not yield pairs.
        ValueError: if the model has nothing to train, if its forward pass or the criterion draws
            random numbers, if the loss is not one number that depends on the weights, if there is
            no batch, or memory is negative.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> batches = [(torch.ones(3, 2), torch.zeros(3, 1)), (torch.ones(1, 2), torch.ones(1, 1))]
        >>> at_start = survey(model, torch.nn.MSELoss(), batches)
        >>> at_start.n_samples, at_start.gradient.shape
        (array([3., 1.]), (2, 3))
    """
    _check_kinds(model, criterion, loader, n_samples)
    tally = Tally(integer_between("memory", memory, 0))
    with undisturbed(loader), torch.inference_mode(False), torch.enable_grad():
        weights = FixedWeights(model, criterion, n_samples)
        try:
            for batches in weights.batches(loader):
                for evaluated in weights.evaluate(batches):
                    tally.add(*evaluated)
        finally:
            weights.restore()
    return tally.survey()


def expected_batch_gradient_norm_squared(
    survey: Survey, batch_size: int, *, estimate: bool = False
) -> float:
    r"""Return the mean squared norm of the gradient of a random batch, at the survey's weights.

    Over all subsets of B of the N samples, drawn uniformly without replacement,

    .. math:: E \lVert \nabla f_B \rVert^2
        = \lVert \nabla F \rVert^2 + \frac{\operatorname{tr} \Sigma}{B} \frac{N - B}{N - 1}.

    Args:
        survey: of batches of one sample each, or with `estimate`, of larger random ones.
        batch_size: B, between 1 and the number of samples N.
        estimate: as for `Survey.gradient_variance`.

    Returns:
        E‖∇f_B‖², in squared gradient units.

    Raises:
        TypeError: if survey is no Survey, or batch_size no integer.
        ValueError: if batch_size is out of range, or as `Survey.gradient_variance`.
    """
    _check_survey("survey", survey)
    n_samples = int(survey.batch_size.sum())
    size = integer_between("batch_size", batch_size, 1, n_samples, meaning="the number of samples")
    variance = survey.gradient_variance(estimate=estimate)
    left_out = (n_samples - size) / max(n_samples - 1, 1)
    return survey.full_gradient_norm * survey.full_gradient_norm + variance / size * left_out


@dataclass(frozen=True)
class LossGap:
    """What an epoch's printed loss is above the global loss, and why: all in loss units.

    To rounding, mean_batch_loss − empirical_risk = weighting + drift + mode.

    Args:
        mean_batch_loss: the unweighted mean of the epoch's batch losses, the weights moving.
        empirical_risk: the global loss at the end of the epoch; in evaluation mode where that
            was surveyed.
        weighting: mean batch loss − running loss: what counting a ragged last batch as much as a
            whole one adds.
        drift: running loss − global loss at the end, in the mode trained in: what the path adds.
        mode: the global loss at the end, in the mode trained in − in evaluation mode: what batch
            norm adds by normalising each batch by itself; 0 where it was not surveyed.
    """

    mean_batch_loss: float
    empirical_risk: float
    weighting: float
    drift: float
    mode: float

    def __repr__(self) -> str:
        return (
            f"LossGap(mean batch loss {self.mean_batch_loss:.6g} − empirical risk "
            f"{self.empirical_risk:.6g} = {self.mean_batch_loss - self.empirical_risk:.6g} = "
            f"weighting {self.weighting:.6g} + drift {self.drift:.6g} + mode {self.mode:.6g})"
        )


def loss_gap(epoch: History, at_end: Survey, *, evaluated: Survey | None = None) -> LossGap:
    """Take apart the difference between an epoch's mean batch loss and the global loss at its end.

    Args:
        epoch: one finished epoch, `history[e]`.
        at_end: a survey of the same samples, in any batches, at the weights at the epoch's end
            and in the mode trained in. Only a batch norm cares how they are put in batches.
        evaluated: the same after `model.eval()`, where the model has such a mode. A model with
            dropout can be surveyed in evaluation mode only; that survey is its `at_end`, and
            what dropout adds to the losses is then part of the drift.

    Returns:
        The `LossGap`; its `empirical_risk` is that of `evaluated` where it is given, and of
        `at_end` otherwise.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if epoch is not exactly one finished epoch, or the sample counts differ.
    """
    if not isinstance(epoch, History):
        raise TypeError(f"epoch must be a History of one epoch, got {type(epoch).__name__}")
    if epoch.n_epochs != 1 or epoch.epoch[0] != epoch.epoch[-1]:
        raise ValueError(
            "epoch must be exactly one finished epoch, history[e], got a history of "
            f"{epoch.n_steps} steps and {epoch.n_epochs} finished epochs"
        )
    surveys = {"at_end": at_end} | ({} if evaluated is None else {"evaluated": evaluated})
    for name, one in surveys.items():
        _check_survey(name, one)
        _check_same_samples(epoch.n_samples, name, one.n_samples)
    mean_batch_loss, running_loss = float(epoch.mean_batch_loss[0]), float(epoch.running_loss[0])
    risk = at_end.empirical_risk
    final = risk if evaluated is None else evaluated.empirical_risk
    return LossGap(
        mean_batch_loss=mean_batch_loss,
        empirical_risk=final,
        weighting=mean_batch_loss - running_loss,
        drift=running_loss - risk,
        mode=0.0 if evaluated is None else risk - final,
    )


@dataclass(frozen=True, eq=False)
class ResidualNorms:
    r"""The loss as one vector norm ‖Y − f(X)‖, and as a sum of such norms over batches.

    With r_b the residuals of batch b and r those of all m batches,

    .. math:: \lVert r \rVert \le \sum_{b=1}^{m} \lVert r_b \rVert \le \sqrt{m} \lVert r \rVert.

    On the left is the triangle inequality (of the vectors that are r_b on batch b, and 0
    elsewhere), with equality if all batches but one are fitted exactly; on the right that of
    Cauchy and Schwarz, with equality if all batches have the same norm. Means of squares have no
    such gap: this is why a sum of batch norms is not the norm of all, at any weights.

    Args:
        batch_norm: (n_batches,) the norms ‖r_b‖, in units of the targets.
    """

    batch_norm: NDArray[np.float64]

    @property
    def total(self) -> float:
        """The norm of all residuals, ‖r‖ = ‖Y − f(X)‖; also the lower bound of the sum."""
        return float(np.linalg.norm(self.batch_norm))

    @property
    def sum_of_batches(self) -> float:
        """The sum of the batches' norms, Σ ‖r_b‖."""
        return float(self.batch_norm.sum())

    @property
    def upper_bound(self) -> float:
        """The largest that the sum can be, √m ‖r‖."""
        return math.sqrt(len(self.batch_norm)) * self.total

    @property
    def ratio(self) -> float:
        """Σ ‖r_b‖ / ‖r‖, between 1 and √m; nan if all residuals are zero."""
        return quotient(self.sum_of_batches, self.total)


def residual_norms(survey: Survey) -> ResidualNorms:
    """Return the norms of the residuals of a survey's batches and of all of them together.

    Args:
        survey: of a criterion that is the **mean of squared residuals**, as `torch.nn.MSELoss`
            is. That it is one cannot be seen from its values; of others the result has no
            meaning. Where the squares are summed over several outputs a sample and the mean taken
            over samples, the norms are right, too.

    Returns:
        The `ResidualNorms`, ‖r_b‖ = √(n_b f_b).

    Raises:
        TypeError: if survey is no Survey.
        ValueError: if a loss is negative, which no mean of squares is.
    """
    _check_survey("survey", survey)
    squares = np.where(survey.n_samples > 0, survey.n_samples * survey.loss, 0.0)
    if (squares < 0).any():
        raise ValueError(
            "survey must be of a mean of squared residuals, whose losses are never negative, got "
            f"a loss of {survey.loss.min():g}"
        )
    return ResidualNorms(np.sqrt(squares))


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


def _check_survey(name: str, value: object) -> None:
    if not isinstance(value, Survey):
        raise TypeError(f"{name} must be a Survey, got {type(value).__name__}")


def _check_kinds(model: object, criterion: object, loader: object, n_samples: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not callable(criterion):
        raise TypeError(
            "criterion must be callable as criterion(predictions, targets), got "
            f"{type(criterion).__name__}"
        )
    if not isinstance(loader, Iterable):
        raise TypeError(
            "loader must be an iterable of batches (inputs, targets), such as a DataLoader, got "
            f"{type(loader).__name__}"
        )
    if n_samples is not None and not callable(n_samples):
        raise TypeError(
            "n_samples must be a function of (predictions, targets), such as "
            f"lambda predictions, targets: len(targets), got {n_samples!r}"
        )
    if not trainable(model):
        raise ValueError(
            "model has no parameter with requires_grad=True: there is no gradient to survey"
        )
