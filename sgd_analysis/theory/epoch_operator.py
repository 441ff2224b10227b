"""One pass over the samples in a fixed order, as an affine map of the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._arrays import read_only
from sgd_analysis._validation import integer_between, positive_number, weight_vectors
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.many_digits import BEARABLE
from sgd_analysis.theory.visits import Visits


@dataclass(frozen=True, eq=False, repr=False)
class EpochOperator:
    r"""The affine map w ↦ Mw + b of one epoch in a fixed order; `epoch_operator` makes it.

    The step with batch j is w ← w − η(Hⱼ(w − c) + gⱼ), with Hⱼ the batch's Hessian and gⱼ its
    gradient at a reference point c. After k steps w − c is multiplied by

    .. math:: P_k = (I - \eta H_k) \cdots (I - \eta H_1), \qquad M = P_m,

    and what the gradients gⱼ have added does not depend on w. M is the `matrix`, and b where an
    epoch from w = 0 ends.

    No step leaves the span of the features of the samples that are visited: across it every Pₖ is
    the identity. Growth, spectral radius and fixed point are those on this **row space**, found
    from the singular values of the features; it is the whole space if the visited samples have d
    independent features. Everything is kept in coordinates u of the row space, w = c + Vu.

    Args:
        step_size: η.
        centre: (d,) the reference point c, the minimiser of the visited samples' loss.
        basis: (d, r) orthonormal columns V that span the row space.
        hessians: (m, r, r) the batches' Hessians in those coordinates.
        affine: (m + 1, r, r + 1) after k steps, Pₖ and a last column, by which the weights that
            start at c have moved.
        removed: (r, r) I − M on the row space.

    Example:
        >>> from sgd_analysis import LeastSquares, epoch_operator
        >>> line = LeastSquares([[1.0], [2.0]], [1.0, 2.0])  # both samples say w = 1
        >>> epoch = epoch_operator(line, 0.05, [[0], [1]])  # multiplies w − 1 by 0.9, then by 0.6
        >>> epoch([2.0]).round(6), epoch.growth.round(6)
        (array([1.54]), array([1.  , 0.9 , 0.54]))
    """

    step_size: float
    centre: NDArray[np.float64]
    basis: NDArray[np.float64]
    hessians: NDArray[np.float64]
    affine: NDArray[np.float64]
    removed: NDArray[np.float64]

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """(d, d) the matrix M, which across the row space is the identity."""
        return read_only(np.eye(len(self.basis)) - self.basis @ self.removed @ self.basis.T)

    @cached_property
    def spectral_radius(self) -> float:
        """The largest modulus of an eigenvalue of M on the row space, ρ; 0 if that is {0}.

        Below 1, epochs in this order converge from every start to a fixed point.
        """
        return float(np.abs(np.linalg.eigvals(self.affine[-1, :, :-1])).max(initial=0))

    @cached_property
    def fixed_point(self) -> NDArray[np.float64]:
        """(d,) the fixed point (I − M)⁺ b of least norm, to which an epoch returns.

        Where ρ < 1, epochs from w₀ tend to it, plus what of w₀ lies across the row space.

        Raises:
            ValueError: if 1 is an eigenvalue of M on the row space, so that there is none or more
                than one.
        """
        try:
            u = np.linalg.solve(self.removed, self.affine[-1, :, -1])
        except np.linalg.LinAlgError:
            raise ValueError(
                "the epoch must have a single fixed point, but its matrix has the eigenvalue 1 at "
                f"step size {self.step_size:g}: change the step size a little"
            ) from None
        return read_only(self.centre + self.basis @ u)

    @cached_property
    def growth(self) -> NDArray[np.float64]:
        """(m + 1,) the norm ‖Pₖ‖₂ on the row space after k = 0, …, m steps.

        The largest factor by which k steps have multiplied a difference between two weights, or,
        without noise, the distance from the minimiser.
        """
        singular = np.linalg.svd(self.affine[:, :, :-1], compute_uv=False)
        return read_only(singular.max(axis=-1, initial=0))

    @cached_property
    def transient_growth(self) -> float:
        """The largest norm ‖Pₖ‖₂ over 0 ≤ k ≤ m; at least 1, since P₀ is the identity."""
        return float(self.growth.max(initial=1))

    @cached_property
    def settled_growth(self) -> NDArray[np.float64]:
        """(m + 1,) the norm ‖Pₖv‖ for the unit eigenvector v of M of the largest modulus.

        Over many epochs the distance from the fixed point turns into the direction v, which fades
        most slowly; this is its course inside each epoch from then on, `spectral_radius` at its
        end. It may stay far below `growth`, the worst case over all directions: what makes an
        epoch's first steps grow is absent if the last steps of the epoch before have removed it.

        Raises:
            ValueError: if the growth is so large, and this so small, that Pₖv is rounding.
        """
        values, vectors = np.linalg.eig(self.affine[-1, :, :-1])
        slowest = vectors[:, np.argsort(np.abs(values))[-1:]]
        settled = np.linalg.norm(self.affine[:, :, :-1] @ slowest, axis=(1, 2))
        if self.growth.max() > BEARABLE and (settled < self.growth / BEARABLE).any():
            raise ValueError(
                "the settled growth must not be so far below the growth that double precision "
                f"cannot tell it from zero, but the growth is up to {self.growth.max():.2g}"
            )
        return read_only(settled)

    def __call__(self, w: ArrayLike) -> NDArray[np.float64]:
        """Return the weights after one epoch.

        Args:
            w: (..., d) the weights before it, one vector or many.

        Returns:
            (..., d) the weights after it.

        Raises:
            ValueError: if the last axis of w does not hold d weights.
        """
        return self._after(slice(-1, None), w)[..., 0, :]

    def path(self, w: ArrayLike) -> NDArray[np.float64]:
        """Return the weights inside an epoch, before each of its steps and after the last.

        Args:
            w: (..., d) the weights at its start, one vector or many.

        Returns:
            (..., m + 1, d) the weights; the first are w, the last what calling the operator gives.

        Raises:
            ValueError: if the last axis of w does not hold d weights.
        """
        return self._after(slice(None), w)

    def __repr__(self) -> str:
        return (
            f"EpochOperator({len(self.hessians)} steps, spectral radius "
            f"{self.spectral_radius:.6g}, transient growth {self.transient_growth:.4g})"
        )

    def _after(self, steps: slice, w: ArrayLike) -> NDArray[np.float64]:
        weights = weight_vectors("w", w, len(self.basis))
        u = (weights - self.centre) @ self.basis
        reached = np.einsum("kij,...j->...ki", self.affine[steps, :, :-1], u)
        moved = reached + self.affine[steps, :, -1] - u[..., None, :]
        return np.asarray(weights[..., None, :] + moved @ self.basis.T)


def epoch_operator(
    problem: LeastSquares,
    step_size: float,
    batches: Iterable[ArrayLike],
    *,
    memory: int = 4 << 30,
) -> EpochOperator:
    r"""Return the affine map that one epoch of plain SGD in a fixed order is, without running it.

    *Theorem.* If η ≤ 2/λmax(Hⱼ) for every batch j, no step increases a distance: ‖Pₖ‖₂ never
    grows, and there is no transient growth. For I − ηHⱼ is symmetric with its eigenvalues in
    [−1, 1]. Above that threshold, which the steepest batch alone sets, the epoch may still
    contract (spectral radius below 1) while the error grows inside it by orders of magnitude.

    The operator is that of exact arithmetic: where growth would amplify the rounding of double
    precision by more than 10¹⁰, the epoch is computed with as many digits as it takes. A real run
    in single or double precision rounds at each step, and there may diverge where this contracts.

    Args:
        problem: a least-squares problem, with or without noise.
        step_size: η > 0, the same for every batch, however many samples it holds.
        batches: index arrays, one a batch, in the order in which they are visited, as
            `batches(indices, batch_size)` gives them. They may differ in length, and need not be
            a partition of the samples: a there-and-back order names each sample twice.
        memory: about how many bytes the matrices of all m steps may take, of which each is as
            large as the rank of the features visited.

    Returns:
        The operator, to be called with the weights at an epoch's start.

    Raises:
        TypeError: if problem is not a LeastSquares, or step_size not a number.
        ValueError: if step_size is not positive and finite, or so large that the epoch overflows;
            if there is no batch; if one is empty or names a sample that does not exist; or if
            more memory is needed.

    Example:
        >>> from sgd_analysis import LeastSquares, batches, epoch_operator
        >>> line = LeastSquares([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 3.0, 5.0])
        >>> operator = epoch_operator(line, 0.1, batches(range(3), 1))
        >>> operator
        EpochOperator(3 steps, spectral radius 0.816, transient growth 1)
        >>> operator.fixed_point.round(6)
        array([2., 1.])
    """
    eta = positive_number("step_size", step_size)
    visits = Visits(problem, batches, integer_between("memory", memory, 1))
    with np.errstate(over="ignore", invalid="ignore"):
        affine, removed = visits.affine_maps(eta)
    if not np.isfinite(affine).all():
        raise ValueError(
            f"step_size must be small enough for the epoch's matrix to be finite, got {eta:g}"
        )
    return EpochOperator(eta, visits.centre, visits.basis, visits.hessians, affine, removed)
