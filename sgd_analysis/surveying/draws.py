"""The losses and gradients of a model that draws random numbers, averaged over seeded draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgd_analysis._random_state import seed_all
from sgd_analysis.surveying.batches import Batch
from sgd_analysis.surveying.counts import Read
from sgd_analysis.surveying.evaluation import Evaluated, FixedWeights


class Draws:
    """Evaluates batches at fixed weights as means over n draws, each batch with its own seeds."""

    def __init__(self, weights: FixedWeights, n: int, seed: int) -> None:
        self._weights, self._forward = weights, weights.forward
        self._n, self._seed = n, seed
        self._n_drawn = 0  # batches

    def evaluate(self, batches: list[Batch]) -> Iterator[Evaluated]:
        """Yield what is found of each batch; the generators are afterwards as they were."""
        before = self._forward.states()
        found = []
        for inputs, targets in batches:
            loss, gradient, predictions, read, spread = self._mean_of_draws(inputs, targets)
            columns = np.array(spread)[:, None]
            found.append((loss[None], gradient[None], [predictions], [targets], [read], columns))
            self._n_drawn += 1
        before.restore()
        for one in found:
            yield self._weights.as_means(*one)

    def seed_for(self, batch: int, draw: int) -> None:
        """Seed all generators for one draw of one batch, counted from 0."""
        sequence = np.random.SeedSequence([self._seed, batch, draw])
        seed_all(int(sequence.generate_state(1)[0]), self._forward.generators)

    def _mean_of_draws(
        self, inputs: Any, targets: Any
    ) -> tuple[Tensor, Tensor, Any, Read, tuple[float, float, float]]:
        losses, total = [], torch.zeros(())
        for draw in range(self._n):
            self.seed_for(self._n_drawn, draw)
            states = self._forward.states() if draw == 0 else None
            loss, gradient, predictions, read = self._weights.one(inputs, targets)
            if states is not None and self._forward.states() == states:  # nothing was drawn
                return loss, gradient, predictions, read, (0.0, 0.0, 0.0)
            losses.append(float(loss))
            double = torch.complex128 if gradient.is_complex() else torch.float64
            total = total + gradient.to(double)
        with np.errstate(all="ignore"):
            noise = np.array(losses) - self._without_noise(inputs, targets)
            spread = _error(losses), float(noise.mean()), _error(noise)
        mean = torch.tensor(np.mean(losses), dtype=torch.float64)
        return mean, (total / self._n).to(gradient.dtype), predictions, read, spread

    def _without_noise(self, inputs: Any, targets: Any) -> NDArray[np.float64]:
        """Return the losses (n_draws,), or (1,), with what draws put in evaluation mode."""
        for _ in range(2):  # another batch may take another branch, with other modules
            quiet = dict.fromkeys(self._forward.drawing, False)
            self.seed_for(self._n_drawn, 0)
            states = self._forward.states()
            loss = self._forward.call(inputs, targets, mode=quiet)[0].detach()
            if self._forward.states() == states:
                return np.array([float(loss)])
            self._forward.find_drawing(inputs, targets)
        losses = []  # it draws in evaluation mode, too
        for draw in range(self._n):
            self.seed_for(self._n_drawn, draw)
            quiet = dict.fromkeys(self._forward.drawing, False)
            losses.append(float(self._forward.call(inputs, targets, mode=quiet)[0].detach()))
        return np.array(losses)


def _error(values: NDArray[np.float64] | list[float]) -> float:
    """Return the standard error of the mean."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5)
