"""How a survey is taken: of a model, a criterion and a loader, without a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from sgd_analysis._criteria import Criterion
from sgd_analysis._random_state import undisturbed
from sgd_analysis._validation import integer_between, kind_of
from sgd_analysis._weights import trainable
from sgd_analysis.surveying.batches import in_lists, may_reorder
from sgd_analysis.surveying.checks import check_repeatable, couples, noise_is_known
from sgd_analysis.surveying.draws import Draws
from sgd_analysis.surveying.evaluation import FixedWeights
from sgd_analysis.surveying.survey import Survey
from sgd_analysis.surveying.tally import Tally


def survey(
    model: nn.Module,
    criterion: Criterion | None,
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
            targets) -> the mean over the batch, or a sum that its graph shows to be one. None:
            the model returns its loss, as one number; as `loss` of an object or a mapping; in a
            tuple, as the one number that has a gradient; or as a mapping of losses to be added up.
        loader: an iterable of batches on the model's device: a DataLoader, or a list. Of a pair
            (inputs, targets) the model is given the inputs; of a mapping, a tensor or another
            object that is a batch, all of it, and the criterion is one of (output, batch). With
            criterion None, a pair or a longer tuple is given to the model whole, as several
            arguments; a mapping always is as keyword arguments, if the model's forward takes
            them. The loader says which samples there are, and how they are put in batches. One
            that shuffles gives other batches than the epoch before has visited, and a batch norm
            in training mode then other losses: keep those visited, by `visited = list(loader)`.
        memory: the bytes that the batches' gradients may take. When there are more, none of them
            is kept, only the full gradient and the norms. Besides them and a copy of the model,
            what is evaluated at once takes some 32 MiB, or what one batch takes.
        n_samples: how many samples a batch counts for, a function of (predictions, targets), or
            where there is no pair of these, of (output, batch), that gives its `denominator`. By
            default, what the mean of torch's own losses divides by, as `record` has it: the
            number of targets not ignored, the sum of their class weights, or the number of
            elements. Of a function, or of the model's own loss, its graph tells that, where it
            can; of other criteria the length of the predictions stands for it. The batch's
            `n_samples` is the length of the predictions; where they have none, that of all
            tensors and lists in the batch, and where these differ, the denominator.
        draws: where the model draws random numbers (dropout in training mode), over how many
            draws each batch's loss and gradient are averaged, at least two: at so many times the
            cost. The survey then has a `standard_error`, and the `noise` that the modules which
            draw add, found by one more pass with these modules in evaluation mode. With draws,
            the model has to be in the mode it is trained in.
        seed: of the draws; the same seed and batches give the same survey.

    Returns:
        A `Survey` of the batches in the loader's order.

    Raises:
        TypeError: if an argument is of the wrong kind, or a batch does not fit the model.
        ValueError: if the model has nothing to train, if its forward pass or the criterion draws
            random numbers and no draws are asked for, if the loss is not one number that depends
            on the weights, if nobody says of how many samples it is a mean, if a batch has another
            loss at the end of the survey, if there is no batch, or if a number is out of range.

    Example:
        >>> import torch
        >>> from sgd_analysis import survey
        >>> model = torch.nn.Linear(2, 1)
        >>> batches = [(torch.ones(3, 2), torch.zeros(3, 1)), (torch.ones(1, 2), torch.ones(1, 1))]
        >>> at_start = survey(model, torch.nn.MSELoss(), batches)
        >>> at_start.n_samples, at_start.gradient.shape
        (array([3, 1]), (2, 3))

        A model that returns its loss, and a loader of mappings:

        >>> class OwnLoss(torch.nn.Linear):
        ...     def forward(self, x, labels):
        ...         logits = super().forward(x)
        ...         return {"loss": torch.nn.functional.cross_entropy(logits, labels)}
        >>> batches = [{"x": torch.ones(n, 2), "labels": torch.zeros(n).long()} for n in (3, 1)]
        >>> survey(OwnLoss(2, 4), None, batches).denominator
        array([3., 1.])
    """
    check_kinds(model, criterion, loader, n_samples)
    tally = Tally(integer_between("memory", memory, 0))
    n_draws = 0 if draws is None else integer_between("draws", draws, 2)
    seed = integer_between("seed", seed, 0)
    with undisturbed(loader), torch.inference_mode(False), torch.enable_grad():
        weights = FixedWeights(model, criterion, n_samples)
        over_draws = Draws(weights, n_draws, seed) if n_draws else None
        evaluate = over_draws.evaluate if over_draws else weights.evaluate
        try:
            for batches in in_lists(loader, weights.row_bytes, whole=criterion is None):
                for evaluated in evaluate(batches):
                    tally.add(*evaluated)
            check_repeatable(weights, seed_for=over_draws.seed_for if over_draws else None)
            reorders = may_reorder(loader)
            known: dict[str, Any] = {"draws": n_draws, "may_reorder": reorders}
            known |= {"couples": couples(weights, compare=reorders)}
            # Whoever asks for draws says that the present mode is the one trained in.
            if not (n_draws or noise_is_known(weights)):
                known |= {"noise": math.nan}
        finally:
            weights.forward.restore()
    return tally.survey(**known)


def check_kinds(model: object, criterion: object, loader: object, n_samples: object) -> None:
    """Raise unless these can be surveyed, as far as their kinds say.

    Raises:
        TypeError: if one is of the wrong kind.
        ValueError: if the model has nothing to train.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {kind_of(model)}")
    if criterion is not None and not callable(criterion):
        raise TypeError(
            "criterion must be callable as criterion(predictions, targets), or None for a model "
            f"that returns its loss, got {kind_of(criterion)}"
        )
    if not isinstance(loader, Iterable):
        raise TypeError(
            f"loader must be an iterable of batches, such as a DataLoader, got {kind_of(loader)}"
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
