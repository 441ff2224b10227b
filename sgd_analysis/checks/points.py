"""The points that loops are tried with, and what their steps should be there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sgd_analysis.problems.quadratic_fit import quadratic_fit

Vector = NDArray[np.float64]
Places = NDArray[np.intp]

_PROBLEM = quadratic_fit()
POINTS = torch.stack([_PROBLEM.inputs, _PROBLEM.targets], dim=1)
# Few enough to be looked at one by one, and gentle: |x| ≤ 3. No loop has this step size by default.
FEW = POINTS[700:1300:24]
STEP_SIZE = 0.003
BELOW_ALL = -1e12  # an epsilon, also where what should be a loss is negative
_FEATURES = np.vander(FEW[:, 0].numpy().astype(np.float64), 3)
_TARGETS = FEW[:, 1].numpy().astype(np.float64)
BATCH_SIZE = 10
BATCH_SIZES = [10, 10, 5]
OTHER_SIZE, OTHER_SIZES = 7, [7, 7, 7, 4]  # no loop has this size by default


def places_of(inputs: Vector) -> Places | None:
    """Return where in `FEW` some inputs stand, or None if one of them is not there."""
    places = np.abs(inputs[:, None] - _FEATURES[:, 1]).argmin(axis=1)
    there = np.allclose(_FEATURES[places, 1], inputs, rtol=0, atol=1e-4)
    return places if there else None


def are_points(inputs: Vector) -> bool:
    """Return whether some inputs are those of points, of `FEW` or not."""
    distances = np.abs(inputs[:, None] - POINTS[:, 0].numpy()).min(axis=1)
    return bool((distances < 1e-5).all())


def loss_at(weights: Vector, places: Places | None = None) -> float:
    """Return the mean of the squares over all points, or over those at some places."""
    rows = slice(None) if places is None else places
    return float(np.mean((_FEATURES[rows] @ weights - _TARGETS[rows]) ** 2))


def gradient_at(weights: Vector, places: Places) -> Vector:
    """Return the gradient (3,) of the mean of the squares over the points at some places."""
    rows = _FEATURES[places]
    gradient: Vector = 2 * rows.T @ (rows @ weights - _TARGETS[places]) / len(places)
    return gradient


def squared_mean_gradient(weights: Vector, places: Places) -> Vector:
    """Return the gradient of the square of the mean of the differences over some points."""
    rows = _FEATURES[places]
    gradient: Vector = 2 * np.mean(rows @ weights - _TARGETS[places]) * rows.mean(axis=0)
    return gradient


def unsquared_gradients(weights: Vector, places: Places) -> list[Vector]:
    """Return the gradients of losses that forget the square: of differences, and of their norm."""
    rows = _FEATURES[places]
    errors = rows @ weights - _TARGETS[places]
    norm = rows.T @ errors / np.linalg.norm(errors)
    difference = rows.mean(axis=0)
    absolute = rows.T @ np.sign(errors) / len(places)
    return [difference, -difference, absolute, norm, norm / np.sqrt(len(places))]
