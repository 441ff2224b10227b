"""A survey summed up batch by batch, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis.surveying.survey import Survey


class Tally:
    """A survey that grows batch by batch, in O(n_parameters) besides the gradients it keeps.

    Args:
        memory: the bytes that kept gradients may take; when there are more, none are kept.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._columns: list[NDArray[np.float64]] = []
        self._kept: list[NDArray[Any]] | None = []
        self._n_bytes = 0
        self._total = 0.0
        self._mean: Tensor | None = None
        self._votes: Tensor | None = None  # the plain sum of the batches' gradients
        self._n_votes = 0
        self._spread = [0.0, 0.0, 0.0]  # squared error, noise, its squared error: all weighted
        self._squares = 0.0  # the sum of n_b times the squared distance from the mean

    def add(
        self,
        loss: NDArray[np.float64],
        denominator: NDArray[np.float64],
        n_samples: NDArray[np.float64],
        gradient: NDArray[Any],
        error: NDArray[np.float64] | float = 0.0,
        noise: NDArray[np.float64] | float = 0.0,
        noise_error: NDArray[np.float64] | float = 0.0,
    ) -> None:
        """Add k batches: gradient (k, n_parameters), all others (k,), see `Evaluated`."""
        double = torch.complex128 if np.iscomplexobj(gradient) else torch.float64
        rows = torch.tensor(gradient, dtype=double)  # always a copy, and it changes below
        self._columns.append(np.stack([loss, denominator, n_samples, _norms(rows).numpy()]))
        self._keep(gradient)
        weights = torch.from_numpy(denominator)
        used = denominator > 0
        for which, values in enumerate((error, noise, noise_error)):
            each = np.broadcast_to(values, denominator.shape)[used] * denominator[used]
            self._spread[which] += float(each.sum() if which == 1 else (each**2).sum())
        if not used.all():
            weights, rows = weights[used], rows[used]
        # Means and sums of squares of two groups put together: squares of differences from the
        # mean, never differences of squares, which would cancel.
        added = float(weights.sum())
        mean = weights.to(double) @ rows / (added or 1.0)
        votes = rows.sum(dim=0)
        self._votes = votes if self._votes is None else self._votes.add_(votes)
        self._n_votes += len(rows)
        self._squares += float(weights @ _norms(rows.sub_(mean)).square())
        if self._mean is None:
            self._mean = torch.zeros_like(mean)
        before, self._total = self._total, self._total + added
        share = added / (self._total or 1.0)
        shift = mean.sub_(self._mean)
        self._squares += before * share * float(_norms(shift).square())
        self._mean.add_(shift, alpha=share)

    def survey(self, **known: Any) -> Survey:
        """Return the survey of the batches added.

        Args:
            known: other fields of the survey.

        Raises:
            ValueError: if there is none in which a sample counts.
        """
        loss, denominator, n_samples, norm = np.concatenate(
            [np.zeros((4, 0)), *self._columns], axis=1
        )
        total = self._total or 1.0
        spread: dict[str, Any] = {
            "standard_error": self._spread[0] ** 0.5 / total,
            "noise": self._spread[1] / total,
            "noise_error": self._spread[2] ** 0.5 / total,
        }
        return Survey(
            loss=loss,
            denominator=denominator,
            n_samples=n_samples.astype(np.int64),
            batch_gradient_norm=norm,
            full_gradient=_as_array(self._mean),
            step_gradient=_as_array(self._votes) / (self._n_votes or 1),
            between_batch_variance=self._squares / total,
            kept_gradient=self._gradient(),
            **(spread | known),
        )

    def _gradient(self) -> NDArray[Any] | None:
        if not self._kept or len(self._kept) > 1:
            return np.concatenate(self._kept) if self._kept else None
        return self._kept[0]

    def _keep(self, gradient: NDArray[Any]) -> None:
        self._n_bytes += gradient.nbytes
        if self._n_bytes > self._memory:
            self._kept = None
        elif self._kept is not None:
            self._kept.append(gradient)


def _as_array(vector: Tensor | None) -> NDArray[Any]:
    return np.zeros(0) if vector is None else vector.numpy()


def _norms(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norms
