import itertools

import numpy as np
from hypothesis import strategies as st

from tests.problem_strategies import least_squares

BOTH = (np.float32, np.float64)


@st.composite
def small_steps(draw, max_weights=3, **options):
    """A problem small enough to go through all its batches, a batch size and a step size."""
    options = {"max_samples": 6, "max_weights": max_weights, "dtypes": BOTH} | options
    problem = draw(least_squares(**options))
    batch_size = draw(st.integers(1, problem.n_samples))
    fraction = draw(st.floats(0.01, 2))
    return problem, fraction * problem.largest_stable_step_size, batch_size


def all_batches(problem, batch_size):
    return list(itertools.combinations(range(problem.n_samples), batch_size))
