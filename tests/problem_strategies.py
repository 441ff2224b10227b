"""Hypothesis strategies for random least-squares problems."""

import numpy as np
from hypothesis import strategies as st

from sgd_analysis import LeastSquares


@st.composite
def least_squares(draw, max_samples=12, min_weights=1, max_weights=5, rank_deficient=None):
    """Noisy problems, from a scalar to more weights than samples, some with dependent columns."""
    n_samples = draw(st.integers(1, max_samples))
    d = draw(st.integers(min_weights, max_weights))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = rng.normal(size=(n_samples, d)) * rng.uniform(0.2, 3, size=d)
    if d > 1 and (draw(st.booleans()) if rank_deficient is None else rank_deficient):
        features[:, -1] = 2 * features[:, 0]
    return LeastSquares(features, rng.normal(size=n_samples))
