"""Second moments through an epoch whose batches are disjoint, and what noise adds to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sgd_analysis.theory.random_step import subset_spread
from sgd_analysis.theory.symmetric import kron, on_symmetric, symmetric_basis

Array = NDArray[np.float64]


def through_disjoint(
    sizes: Sequence[int], steps: Mapping[int, Array], shifts: Mapping[int, Array], moments: Array
) -> Iterator[tuple[Array, Array, Array]]:
    """Take moments through an epoch, to first order in the covariance of disjoint batches.

    A batch of n samples has the step T plus 1/n Σ_{s∈b} h_s plus what no such sum expresses. The
    response holds for each sample s what its having been in the batches so far has changed,
    Σ T⋯T h_s T⋯T. The next batch cannot hold s again, which changes its step.

    Args:
        sizes: (m,) the sizes of the batches, N in all.
        steps: for each size the mean T (p, p) of a step's operator.
        shifts: for each size (q, p, p), of which Σ x ⊗ y is that of h_s ⊗ h'_s over s, by N.
        moments: (p, c) what to take through.

    Yields:
        Before each batch and after the last: the moments (p, c) as if batches were independent,
        their correction (p, c), and the response (q, p, c).
    """
    others = -1 / max(sum(sizes) - 1, 1)
    correction = np.zeros_like(moments)
    response = np.zeros((len(shifts[sizes[0]]), *moments.shape))
    yield moments, correction, response
    for n in sizes:
        overlap = np.tensordot(shifts[n], response, ([0, 2], [0, 1]))
        correction = steps[n] @ correction + others * overlap
        response = steps[n] @ response + shifts[n] @ moments
        moments = steps[n] @ moments
        yield moments, correction, response


def epoch_noise(features: Array, residuals: Array, step_size: float, sizes: Sequence[int]) -> Array:
    r"""Return the second moments of where a reshuffled epoch ends that starts at the minimiser.

    With u = 0 at the minimiser, H_b the Hessian of a batch and g_b its gradient there, an epoch
    goes u ← u − η(H_b u + g_b). Since the gradients of all batches, weighted by their sizes, are
    zero together, almost all of what they add is taken back before the epoch ends. In

    .. math:: v = u + G, \qquad G = \eta \sum_b \frac{n_b}{B} g_b, \qquad
        v \leftarrow v - \eta H_b (v - G) - \eta \Bigl(1 - \frac{n_b}{B}\Bigr) g_b

    nothing has to cancel: G comes back to 0, and v is what stays. To first order in the covariance
    of disjoint batches the moments of G are exact. Left out are the joint moments of three batches
    and more, a share of order 1/m of the result at every step size.

    Args:
        features: (n_samples, r) in coordinates in which they have rank r.
        residuals: (n_samples,) at the minimiser.
        step_size: η > 0.
        sizes: (m,) the sizes of the batches, none larger than the first, n_samples in all.

    Returns:
        (r, r) E[uuᵀ] at the epoch's end.
    """
    n_samples, r = features.shape
    k = 2 * r + 1
    hessians = 2 * features[:, :, None] * features[:, None, :]
    gradients = 2 * residuals[:, None] * features
    each = np.column_stack([hessians.reshape(n_samples, r * r), gradients])
    # Only sums over samples of products of two deviations count: as few rows have the same.
    deviations = (each - each.mean(axis=0)) / np.sqrt(n_samples)
    factor = np.asarray(np.linalg.qr(deviations, mode="r"))
    hessian, gradient = factor[:, : r * r].reshape(len(factor), r, r), factor[:, r * r :]
    in_v, in_g = slice(r), slice(r, 2 * r)
    mean = np.eye(k)
    mean[in_v, in_v] -= step_size * hessians.mean(axis=0)
    mean[in_v, in_g] += step_size * hessians.mean(axis=0)
    pairs = kron(mean, mean)
    steps, shifts = {}, {}
    for n in set(sizes):
        deviation = np.zeros((len(factor), k, k))
        deviation[:, in_v, in_v] = -step_size * hessian
        deviation[:, in_v, in_g] = step_size * hessian
        deviation[:, in_v, -1] = -step_size * (1 - n / sizes[0]) * gradient
        deviation[:, in_g, -1] = step_size * n / sizes[0] * gradient
        spread = subset_spread(n_samples, n) * kron(deviation, deviation).sum(axis=0)
        steps[n] = on_symmetric(pairs + spread)
        shifts[n] = on_symmetric(kron(deviation, mean) + kron(mean, deviation))
    basis = symmetric_basis(k)
    *_, (moments, correction, _) = through_disjoint(sizes, steps, shifts, basis[-1:].T)
    ends = (basis @ (moments + correction)).reshape(k, k)
    return np.asarray(ends[in_v, in_v])
