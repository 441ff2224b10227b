"""What holds at fixed weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from sgd_analysis._arrays import quotient
from sgd_analysis._criteria import Criterion
from sgd_analysis._random_state import undisturbed
from sgd_analysis._validation import integer_between, kind_of
from sgd_analysis._weights import trainable
from sgd_analysis.surveying.checks import check_repeatable, couples, noise_is_known
from sgd_analysis.surveying.draws import Draws
from sgd_analysis.surveying.evaluation import FixedWeights
from sgd_analysis.surveying.survey import Survey, check_survey
from sgd_analysis.surveying.tally import Tally


def survey(
    model: nn.Module,
    criterion: Criterion,
    loader: Iterable[Any],
    *,
    memory: int = 64 << 20,
    n_samples: Callable[..., float] | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> Survey:
    """Compute the loss and the gradient of every batch at the model's present weights.

    Nothing else changes: parameters, their `.grad`, buffers, modes and attributes of the modules
    and all random states are afterwards what they were, bit for bit, also if an error ends it.
    What a forward pass leaves in attributes of the modules (a counter, a list) is put back before
    the next, so that the same batch has the same loss wherever it stands.

    The model is taken in its present mode. In training mode a batch norm gives each batch the
    loss that the training loop would see; call `model.eval()` first for what it predicts with.
    A model that draws random numbers has another loss each time: ask for the mean over `draws`.
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
            list of pairs. It says which samples there are, and how they are put in batches. One
            that shuffles gives other batches than the epoch before has visited, and a batch norm
            in training mode then other losses: keep those visited, by `visited = list(loader)`.
        memory: the bytes that the batches' gradients may take. When there are more, none of them
            is kept, only the full gradient and the norms. Besides them and a copy of the model,
            what is evaluated at once takes some 32 MiB, or what one batch takes.
        n_samples: how many samples a batch counts for, a function of (predictions, targets) that
            gives its `denominator`; also its `n_samples`, if the predictions have no length. By
            default, what the mean of torch's own losses divides by, as `record` has it: the
            number of targets not ignored, the sum of their class weights, or the number of
            elements; for other criteria the length of the predictions.
        draws: where the model draws random numbers (dropout in training mode), over how many
            draws each batch's loss and gradient are averaged, at least two: at so many times the
            cost. The survey then has a `standard_error`, and the `noise` that the modules which
            draw add, found by one more pass with these modules in evaluation mode. With draws,
            the model has to be in the mode it is trained in.
        seed: of the draws; the same seed and batches give the same survey.

    Returns:
        A `Survey` of the batches in the loader's order.

    Raises:
        TypeError: if an argument is of the wrong kind, or the loader does not yield pairs.
        ValueError: if the model has nothing to train, if its forward pass or the criterion draws
            random numbers and no draws are asked for, if the loss is not one number that depends
            on the weights, if a model returns one number a batch and n_samples is not given, if a
            batch has another loss at the end of the survey, if there is no batch, or if a number
            is out of range.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> batches = [(torch.ones(3, 2), torch.zeros(3, 1)), (torch.ones(1, 2), torch.ones(1, 1))]
        >>> at_start = survey(model, torch.nn.MSELoss(), batches)
        >>> at_start.n_samples, at_start.gradient.shape
        (array([3, 1]), (2, 3))
    """
    _check_kinds(model, criterion, loader, n_samples)
    tally = Tally(integer_between("memory", memory, 0))
    n_draws = 0 if draws is None else integer_between("draws", draws, 2)
    seed = integer_between("seed", seed, 0)
    with undisturbed(loader), torch.inference_mode(False), torch.enable_grad():
        weights = FixedWeights(model, criterion, n_samples)
        over_draws = Draws(weights, n_draws, seed) if n_draws else None
        evaluate = over_draws.evaluate if over_draws else weights.evaluate
        try:
            for batches in weights.batches(loader):
                for evaluated in evaluate(batches):
                    tally.add(*evaluated)
            check_repeatable(weights, seed_for=over_draws.seed_for if over_draws else None)
            reorders = _may_reorder(loader)
            known: dict[str, Any] = {"draws": n_draws, "may_reorder": reorders}
            known |= {"couples": couples(weights, compare=reorders)}
            # Whoever asks for draws says that the present mode is the one trained in.
            if not (n_draws or noise_is_known(weights)):
                known |= {"noise": math.nan}
        finally:
            weights.restore()
    return tally.survey(**known)


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
    check_survey("survey", survey)
    n_samples = int(survey.n_samples.sum())
    size = integer_between("batch_size", batch_size, 1, n_samples, meaning="the number of samples")
    variance = survey.gradient_variance(estimate=estimate)
    left_out = (n_samples - size) / max(n_samples - 1, 1)
    return survey.full_gradient_norm * survey.full_gradient_norm + variance / size * left_out


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
    check_survey("survey", survey)
    squares = np.where(survey.denominator > 0, survey.denominator * survey.loss, 0.0)
    if (squares < 0).any():
        raise ValueError(
            "survey must be of a mean of squared residuals, whose losses are never negative, got "
            f"a loss of {survey.loss.min():g}"
        )
    return ResidualNorms(np.sqrt(squares))


def _may_reorder(loader: object) -> bool:
    """Return whether its next pass may give other batches, or nobody knows."""
    if isinstance(loader, Sequence):
        return False
    batch_sampler = getattr(loader, "batch_sampler", None)
    sampler = getattr(loader, "sampler", None) if batch_sampler is None else batch_sampler
    while type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return type(sampler) is not SequentialSampler


def _check_kinds(model: object, criterion: object, loader: object, n_samples: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {kind_of(model)}")
    if not callable(criterion):
        raise TypeError(
            "criterion must be callable as criterion(predictions, targets), got "
            f"{kind_of(criterion)}"
        )
    if not isinstance(loader, Iterable):
        raise TypeError(
            "loader must be an iterable of batches (inputs, targets), such as a DataLoader, got "
            f"{kind_of(loader)}"
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
