"""A model that is linear in its weights: one to start from, and a check that another is."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._arrays import as_array
from sgd_analysis._weights import flat_weights, load_weights, trainable


class LinearInFeatures(nn.Module):
    """The model `features @ w`, from w = 0."""

    def __init__(self, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_features, dtype=dtype))

    def forward(self, features: Tensor) -> Tensor:
        """Return the predictions (n_samples,)."""
        return features @ self.weights


def check_is_linear(model: nn.Module, inputs: Tensor, features: NDArray[np.float64]) -> None:
    """Raise unless model(inputs) is features @ w, for the model's one vector of weights w.

    Raises:
        ValueError: if it is not.
    """
    model = copy.deepcopy(model)
    parameter, *others = trainable(model)
    n_weights, d = sum(part.numel() for part in (parameter, *others)), features.shape[1]
    if len(features) != len(inputs) or d != n_weights:
        raise ValueError(
            f"features of shape {features.shape} do not match {len(inputs)} inputs "
            f"and a model of {n_weights} weights"
        )
    if others:
        raise ValueError("model must have one parameter tensor, the vector w of d weights")
    for w in (flat_weights([parameter]).astype(np.float64), np.linspace(1, 2, d)):
        load_weights([parameter], w)
        with torch.no_grad():
            predictions = as_array(model(inputs))
        expected = features @ w
        scale = np.abs(features) @ np.abs(w)
        # A few roundings of each product and sum, in the model's own precision.
        slack = 8 * d * float(torch.finfo(parameter.dtype).eps) * scale.max(initial=1)
        if predictions.shape != expected.shape or np.abs(predictions - expected).max() > slack:
            raise ValueError(
                "model(inputs) must be features @ w, of shape "
                f"{expected.shape}; for w = {w} it has shape {predictions.shape} and other "
                "values"
            )
