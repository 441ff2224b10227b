"""A model's weights as one vector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sgd_analysis._arrays import as_array


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes, in the order of the flat weight vector.

    Args:
        model: any module.

    Returns:
        Those of its parameters that require a gradient.
    """
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def flat_weights(parameters: list[nn.Parameter]) -> NDArray[np.floating]:
    """Return a copy of some parameters as one vector.

    Args:
        parameters: at least one parameter, of any shape.

    Returns:
        (n_parameters,) their weights, one after the other, in their dtype.
    """
    return as_array(torch.cat([p.detach().flatten() for p in parameters]))


def load_weights(parameters: list[nn.Parameter], weights: NDArray[np.floating]) -> None:
    """Write a flat vector of weights into parameters, in their dtype."""
    parts = torch.from_numpy(weights).split([parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.copy_(part.view_as(parameter))
