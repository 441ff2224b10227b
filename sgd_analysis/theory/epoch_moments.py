"""The second moments of the weights through an epoch of random batches, independent or disjoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sgd_analysis._validation import room_for
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.disjoint_batches import epoch_noise, through_disjoint
from sgd_analysis.theory.random_step import StepMoments, homogeneous
from sgd_analysis.theory.symmetric import kron, on_symmetric, symmetric_basis


@dataclass(frozen=True, eq=False)
class EpochMoments:
    """Steps on the second moments E[zzᵀ] of z = (u, 1), w = ŵ + Vu, in the risk's eigenbasis.

    A moment is a vector (p,), p = (r + 1)(r + 2)/2, in the basis of the symmetric matrices; what is
    across the row space changes no loss.
    """

    problem: LeastSquares
    step_size: float
    spread: Callable[[int, int], float]

    @property
    def basis(self) -> NDArray[np.float64]:
        """(d, r) the eigenvectors V of the risk that span the row space."""
        return self.problem.eigenvectors[:, self.problem.eigenvalues > 0]

    @cached_property
    def rows(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n_samples, r + 1) twice: sample i's step is z ↦ z − 2η leftᵢ (rightᵢ · z)."""
        problem = self.problem
        residuals = problem.features @ problem.minimiser - problem._float64_targets
        return homogeneous(problem.features @ self.basis, -residuals)

    @cached_property
    def samples(self) -> StepMoments:
        """The moments of the samples' steps."""
        return StepMoments.of(*self.rows)

    @cached_property
    def risk(self) -> NDArray[np.float64]:
        """(p,) the risk, as a linear function of the moments."""
        halves = self.problem.eigenvalues[self.problem.eigenvalues > 0] / 2
        matrix = np.diag([*halves, self.problem.least_risk])
        return np.asarray(matrix.ravel() @ symmetric_basis(len(matrix)))

    def moments(self, w: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return zzᵀ (p,) at fixed weights."""
        z = np.append((w - self.problem.minimiser) @ self.basis, 1)
        return np.asarray(np.outer(z, z).ravel() @ symmetric_basis(len(z)))

    def step(self, size: int) -> NDArray[np.float64]:
        """Return T (p, p), the mean over batches of that size of a step's operator."""
        spread = self.spread(self.problem.n_samples, size)
        return on_symmetric(self.samples.operator(self.step_size, spread))

    def independent(self, sizes: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return an epoch's running loss (p,) and its matrix (p, p), batches independent."""
        steps = {size: self.step(size) for size in set(sizes)}
        reached, loss = np.eye(len(self.risk)), np.zeros(len(self.risk))
        for size in sizes:
            loss += size / self.problem.n_samples * (self.risk @ reached)
            reached = steps[size] @ reached
        return loss, reached

    def reshuffled(self, sizes: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the same for disjoint batches, to first order in their covariance.

        What an epoch from the minimiser adds is that of `epoch_noise`, which is of fourth order
        in η for equal batches: all that is below cancels.
        """
        n_samples = self.problem.n_samples
        linear, square, losses = self._additive_parts
        steps = {n: self.step(n) for n in set(sizes)}
        shifts = {
            n: linear + (n_samples - 2 * n) / (n * max(n_samples - 2, 1)) * square
            for n in set(sizes)
        }
        others = -1 / max(n_samples - 1, 1)
        loss = np.zeros(len(self.risk))
        epoch = through_disjoint(sizes, steps, shifts, np.eye(len(loss)))
        for n, (reached, correction, response) in zip(sizes, epoch, strict=False):
            seen = self.risk @ (reached + correction) + others * np.tensordot(losses, response, 2)
            loss += n / n_samples * seen
        *_, (reached, correction, _) = epoch
        return loss, self._with_noise(reached + correction, sizes)

    def _with_noise(self, matrix: NDArray[np.float64], sizes: list[int]) -> NDArray[np.float64]:
        """Return an epoch's matrix (p, p) with that noise for what it adds at the minimiser."""
        left, right = self.rows
        k = left.shape[1]
        basis = symmetric_basis(k)
        # The moments at the minimiser are all zero but that of the constant, basis vector p − 1.
        ends = (basis @ matrix[:, -1]).reshape(k, k)
        ends[:-1, :-1] = epoch_noise(left[:, :-1], -right[:, -1], self.step_size, sizes)
        return np.column_stack([matrix[:, :-1], ends.ravel() @ basis])

    @cached_property
    def _additive_parts(self) -> tuple[NDArray[np.float64], ...]:
        """Return what each sample adds to a batch's step, (q, p, p) twice, and loss, (q, p).

        With D_s = −η(X_s − X̄) and Ā = I − ηX̄, a batch b of n samples has A_b = Ā + (1/n) Σ D_s and
        A_b ⊗ A_b = Ā ⊗ Ā + (1/n) Σ (D_s ⊗ Ā + Ā ⊗ D_s) + (1/n²) Σ_{s,t∈b} D_s ⊗ D_t. Of the last
        term the sum over samples that is nearest in mean square, found from its mean given s ∈ b,
        is (N − 2n)/(n²(N − 2)) Σ D_s ⊗ D_s. Returned are D_s ⊗ Ā + Ā ⊗ D_s, D_s ⊗ D_s and the
        sample's loss, each less its mean.

        Only sums over s of products of two of them are needed, which the triangular factor of
        their QR decomposition gives as well, with q <= N rows in place of N samples.
        """
        left, right = self.rows
        n_samples, k = left.shape
        room_for(
            f"features and samples must be fewer than {k - 1} and {n_samples} for a reshuffled "
            "order: each sample has a second moment of each pair with each pair of weights",
            4 * n_samples * k**4,
        )
        mean_step = np.eye(k) - self.step_size * self.samples.mean
        deviation = -self.step_size * (2 * left[:, :, None] * right[:, None, :] - self.samples.mean)
        linear = kron(deviation, mean_step) + kron(mean_step, deviation)
        square = on_symmetric(kron(deviation, deviation))
        losses = (right[:, :, None] * right[:, None, :]).reshape(n_samples, k * k)
        parts = [
            on_symmetric(linear),
            square - square.mean(axis=0),
            (losses - losses.mean(axis=0)) @ symmetric_basis(k),
        ]
        columns = np.column_stack([part.reshape(n_samples, -1) for part in parts])
        factor = np.linalg.qr(columns / np.sqrt(n_samples), mode="r")
        ends = np.cumsum([part[0].size for part in parts])[:-1]
        return tuple(
            rows.reshape(-1, *part.shape[1:])
            for rows, part in zip(np.split(factor, ends, axis=1), parts, strict=True)
        )
