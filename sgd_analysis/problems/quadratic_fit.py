"""The source notebook's problem."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._validation import positive_number
from sgd_analysis.problems.least_squares import LeastSquares

_Samples = TypeVar("_Samples", Tensor, NDArray[np.float32])


def quadratic_fit(unit: float = 1.0) -> LeastSquares:
    """Return the source notebook's problem: a parabola through 2000 points without noise.

    The model is f(x) = m₁x² + m₂x + m₃ with w = (m₁, m₂, m₃), starting from w = 0; the inputs are
    the float32 values of `numpy.arange(-10, 10, 0.01, dtype="f")`, the true weights
    (0.3, −1.7, 2.5), and the targets f(x) in float32.

    Args:
        unit: what the inputs are measured in. With another unit than 1 the inputs are x / unit
            and the true weights change with them; the targets and the possible fits stay.

    Returns:
        A `LeastSquares` with `inputs` (2000,), `features` (2000, 3) = (x², x, 1) and
        `true_weights` (3,).

    Raises:
        TypeError: if unit is not a number.
        ValueError: if unit is not positive and finite.

    Example:
        >>> from sgd_analysis import quadratic_fit
        >>> problem = quadratic_fit()
        >>> problem.n_samples, float(problem.targets[0])
        (2000, 49.5)
    """
    unit = positive_number("unit", unit)
    grid = np.arange(-10, 10, 0.01, dtype=np.float32)
    truth = (0.3, -1.7, 2.5)
    inputs = grid / np.float32(unit)
    exact = inputs.astype(np.float64)
    return LeastSquares(
        features=np.stack([exact**2, exact, np.ones_like(exact)], axis=1),
        targets=_parabola(truth, grid),
        inputs=inputs,
        model=_Parabola(),
        true_weights=np.array(truth) * [unit**2, unit, 1],
    )


class _Parabola(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        return _parabola(self.weights.unbind(), inputs)


def _parabola(w: Any, x: _Samples) -> _Samples:
    # The order of these products is the one that gives the targets the source notebook prints,
    # digit for digit; m1 * x**2 differs in the last bit of some of them.
    m1, m2, m3 = w
    value: _Samples = m1 * x * x + m2 * x + m3
    return value
