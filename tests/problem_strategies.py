"""Hypothesis strategies for random least-squares problems, and for their samples in batches."""

import numpy as np
from hypothesis import strategies as st

from sgd_analysis import LeastSquares, batches


@st.composite
def least_squares(
    draw,
    max_samples=12,
    min_weights=1,
    max_weights=5,
    rank_deficient=None,
    min_samples=1,
    dtypes=(np.float64,),
):
    """Noisy problems, from a scalar to more weights than samples, some with dependent columns."""
    n_samples = draw(st.integers(min_samples, max_samples))
    d = draw(st.integers(min_weights, max_weights))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = rng.normal(size=(n_samples, d)) * rng.uniform(0.2, 3, size=d)
    if d > 1 and (draw(st.booleans()) if rank_deficient is None else rank_deficient):
        features[:, -1] = 2 * features[:, 0]
    dtype = draw(st.sampled_from(dtypes))
    return LeastSquares(features.astype(dtype), rng.normal(size=n_samples).astype(dtype))


@st.composite
def partitions(draw, n_samples):
    """All samples in a random order, in index arrays of one size and a ragged tail."""
    order = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).permutation(n_samples)
    return [batch.numpy() for batch in batches(order, draw(st.integers(1, n_samples)))]


@st.composite
def visits(draw, n_samples, *, partition=None):
    """Batches of sample indices: a partition, or any visits, a sample in several or in none."""
    if draw(st.booleans()) if partition is None else partition:
        return draw(partitions(n_samples))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, n_samples), min_size=1, max_size=6))
    return [rng.integers(n_samples, size=size) for size in sizes]
