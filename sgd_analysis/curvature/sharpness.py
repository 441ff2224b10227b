"""How curved the loss is in the directions, and by the measure, in which an optimizer moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sgd_analysis._criteria import Criterion
from sgd_analysis._random_state import undisturbed
from sgd_analysis._validation import integer_between, positive_number
from sgd_analysis.curvature.largest_eigenvalue import largest_eigenvalue
from sgd_analysis.curvature.products import ScaledHessian
from sgd_analysis.curvature.scaling import scalings
from sgd_analysis.surveying.evaluation import FixedWeights
from sgd_analysis.surveying.surveyor import check_kinds


def preconditioned_sharpness(
    model: nn.Module,
    criterion: Criterion | None,
    loader: Iterable[Any],
    optimizer: Optimizer,
    *,
    tolerance: float = 0.01,
    max_products: int = 100,
    seed: int = 0,
    n_samples: Callable[..., float] | None = None,
) -> float:
    r"""Return the largest eigenvalue of D H, to be compared with `stability_limit(optimizer)`.

    H is the Hessian of the empirical risk of a loader at the model's present weights, the batches
    weighted as `survey` has it, and D the diagonal matrix by which the optimizer multiplies a
    gradient, or its mean over past steps, at present, without the step size:

    - SGD, with and without momentum: 1;
    - RMSprop: 1/(√v + eps), v its mean of squares (minus the square of the mean if centered);
    - Adam, AdamW: 1/((1 − β₁ᵗ)(√(v/(1 − β₂ᵗ)) + eps)) after t steps, both bias corrections
      included; with `amsgrad`, v is the largest so far;
    - Adagrad: 1/(√s + eps), s its sum of squares, over 1 + (t − 1) `lr_decay`.

    Where groups have several step sizes, D is relative to the largest. A `weight_decay` that is
    added to the gradient belongs to the function descended and adds to the diagonal of H;
    AdamW's does not. Parameters that the optimizer does not move are left out: those of the model
    that it was not given, or that need no gradient.

    Above the limit the steps along some direction grow: a spike comes, with all samples in the
    batch, too. The eigenvalue is found by Lanczos' method, from a random start, on the symmetric
    matrix D^½ H D^½, which has the same eigenvalues and is never formed. Each of its products is
    one pass over the loader, and takes as long as about four gradients. Save with batch norm in
    training mode, which takes each batch by itself as the loop does, the value depends on the
    samples and not on how they are cut: large batches are the fastest.

    Nothing of the model, the optimizer or any random state changes, as with `survey`. A loader
    that shuffles gives the same batches in each pass: its generators are put back.

    Args:
        model: as for `survey`, and one that can be differentiated twice. Of a compiled one, the
            model within is taken.
        criterion: as for `survey`.
        loader: as for `survey`; it is iterated once a product, and so cannot be a generator.
        optimizer: SGD, RMSprop, Adam, AdamW or Adagrad of `torch.optim`, after a step (of SGD,
            also before).
        tolerance: how large ‖Ax − θx‖ may be for the eigenvalue θ and its unit vector x, A the
            symmetric matrix, relative to the size of θ. There is an eigenvalue within that
            distance of θ; θ itself is most often far closer, and above the largest one only by
            rounding. That no larger one was missed is as certain as that the random start has a
            part in its direction.
        max_products: how many products are made at most.
        seed: of the start.
        n_samples: as for `survey`.

    Returns:
        The largest eigenvalue, in units of one over the step size. It may be negative: it is the
        largest, not the largest in modulus.

    Raises:
        TypeError: if an argument is of the wrong kind, the optimizer included.
        ValueError: as `survey`; if the optimizer moves no parameter of the model, has not yet
            made a step, or maximises; if the passes over the loader differ; or if the Hessian is
            not finite, or not symmetric within the tolerance, as a wrong second derivative has
            it.
        RuntimeError: if max_products do not reach the tolerance: it says what was reached.

    Example:
        >>> import torch
        >>> from sgd_analysis import preconditioned_sharpness, stability_limit
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> batch = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.ones(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        >>> sharpness = preconditioned_sharpness(model, torch.nn.MSELoss(), [batch], optimizer)
        >>> round(sharpness, 3), stability_limit(optimizer)
        (9.0, 10.0)

    References:
        J. M. Cohen et al., Adaptive gradient methods at the edge of stability, 2022,
        arXiv:2207.14484.
    """
    check_kinds(model, criterion, loader, n_samples)
    tolerance = positive_number("tolerance", tolerance)
    max_products = integer_between("max_products", max_products, 1)
    seed = integer_between("seed", seed, 0)
    moved = scalings(optimizer)
    with undisturbed(loader), torch.inference_mode(False), torch.enable_grad():
        # A compiled model has one derivative only; the one within has the same parameters.
        weights = FixedWeights(getattr(model, "_orig_mod", model), criterion, n_samples)
        try:
            matrix = ScaledHessian(weights, loader, moved)
            start = matrix.random_vector(seed)
            found = largest_eigenvalue(matrix, start, tolerance, max_products)
        finally:
            weights.forward.restore()
    if found.asymmetry > tolerance:
        raise ValueError(
            "the Hessian must be symmetric, and what the model's second derivatives give is off by "
            f"{found.asymmetry:.2g} of its largest eigenvalue: an operation in it has a wrong "
            "derivative of its derivative (that of torch.nn.utils.parametrizations.weight_norm is, "
            "on the CPU, in torch 2.13), or rounds coarsely. Leave it out, compute in double "
            "precision, or give a larger tolerance="
        )
    if not found.is_certain:
        raise RuntimeError(
            f"after {max_products} products the largest eigenvalue found is {found.value:.6g}, "
            f"with the residual {found.residual:.2g}, more than tolerance={tolerance:g} times the "
            f"value: the largest is at least {found.value:.6g}; give a larger max_products=, or "
            f"tolerance={found.residual / abs(found.value) * 1.1 if found.value else 1:.2g}"
        )
    return found.value
