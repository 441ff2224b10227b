"""The batches of an epoch, on the space in which they move the weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgd_analysis._validation import instance_of, room_for
from sgd_analysis.problems.index_batches import index_batches
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.theory.many_digits import affine_maps, digits_needed


class Visits:
    """The batches of an epoch on the row space: their Hessians, and their gradients at a centre.

    The centre is the minimiser over the samples visited. Around it nothing large cancels.
    """

    def __init__(
        self, problem: LeastSquares, batches: Iterable[ArrayLike], memory: int = 4 << 30
    ) -> None:
        instance_of("problem", problem, LeastSquares, "the only kind with closed forms")
        visits = index_batches(batches, problem.n_samples)
        if not visits:
            raise ValueError("batches must hold at least one batch, got none")
        self._problem, self._indices, self._memory = problem, visits, memory
        index, sizes = np.concatenate(visits), np.array([len(batch) for batch in visits])
        visited = np.unique(index)
        seen = problem
        if len(visited) < problem.n_samples:
            seen = LeastSquares(problem.features[visited], problem._float64_targets[visited])
        self.centre = seen.minimiser
        self.basis = seen.eigenvectors[:, seen.eigenvalues > 0]
        self._require_room(self.basis.shape[1])
        rows = problem.features @ self.basis
        self.hessians = np.array([2 / len(b) * rows[b].T @ rows[b] for b in visits])
        residuals = problem.features @ self.centre - problem._float64_targets
        each = 2 * residuals[index, None] * rows[index]
        firsts = np.cumsum(sizes) - sizes
        self.gradients = np.add.reduceat(each, firsts, axis=0) / sizes[:, None]

    def affine_maps(self, step_size: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `EpochOperator.affine` and `EpochOperator.removed`, inf where they overflow."""
        digits = digits_needed(step_size, self.hessians)
        if digits is not None:
            self._require_room(len(self.basis))
            affine, removed = affine_maps(
                self._problem, step_size, self._indices, self.centre, digits
            )
            into = self.basis.T
            matrices, moved = affine[:, :, :-1], affine[:, :, -1:]
            affine = into @ np.concatenate([matrices @ self.basis, moved], axis=-1)
            return affine, into @ removed @ self.basis
        m, r = self.gradients.shape
        affine, removed = np.zeros((m + 1, r, r + 1)), np.zeros((r, r))
        affine[0, :, :-1] = np.eye(r)
        for k in range(m):
            step = step_size * (self.hessians[k] @ affine[k])
            affine[k + 1] = affine[k] - step
            affine[k + 1, :, -1] -= step_size * self.gradients[k]
            removed += step[:, :-1]  # summed up: I − M would cancel for a small η
        return affine, removed

    def _require_room(self, size: int) -> None:
        m = len(self._indices)
        what = f"the epoch must be of fewer batches, or of fewer weights, than {m} and {size}"
        # Hessians, their copy while eigenvalues are sought, and the maps after each step.
        room_for(what, (3 * m + 1) * size * (size + 1), self._memory)
