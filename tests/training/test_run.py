"""The average of where a run went."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import (
    LeastSquares,
    iterate_average,
    train,
)


class TestIterateAverage:
    def test_it_is_the_mean_of_the_checkpoints_so_far(self):
        checkpoints = np.random.default_rng(0).normal(size=(6, 2))
        for first in range(6):
            expected = [checkpoints[first : e + 1].mean(axis=0) for e in range(first, 6)]
            assert_allclose(iterate_average(checkpoints, first=first), expected, rtol=1e-12)
        assert iterate_average(checkpoints.astype("f")).dtype == np.float64

    def test_with_a_constant_step_and_noisy_labels_the_average_beats_the_last_iterate(self):
        rng = np.random.default_rng(1)
        features = rng.normal(size=(100, 3))
        problem = LeastSquares(features, features @ [1, -2, 0.5] + rng.normal(size=100))
        gains = []
        for seed in range(20):
            run = train(
                problem,
                step_size=0.1,
                batch_size=5,
                order="independent",
                max_epochs=40,
                seed=seed,
                gradient="closed form",
            )
            average = iterate_average(run.checkpoints, first=10)
            last, mean = problem.empirical_risk([run.weights, average[-1]]) - problem.least_risk
            assert average.shape == (31, 3)
            gains.append(last / mean)
        # The mean of thirty nearly independent iterates has a thirtieth of their variance.
        logs = np.log(gains)
        assert logs.mean() - 3 * logs.std(ddof=1) / np.sqrt(20) > np.log(5)

    def test_weights_of_a_run_that_diverged_pass_through(self):
        assert_array_equal(iterate_average([[1.0], [np.inf]]), [[1.0], [np.inf]])

    @pytest.mark.parametrize(
        ("checkpoints", "first", "error", "message"),
        [
            ([1.0, 2.0], 0, ValueError, r"of shape \(n, n_parameters\).* got shape \(2,\)"),
            (np.zeros((0, 3)), 0, ValueError, r"got shape \(0, 3\)"),
            ([[1.0], [2.0]], 2, ValueError, r"between 0 and 1 \(the last checkpoint\), got 2"),
            ([[1.0], [2.0]], -1, ValueError, "between 0 and 1 .* got -1"),
            ([[1.0], [2.0]], 0.5, TypeError, "first must be an integer, got 0.5"),
        ],
    )
    def test_bad_input(self, checkpoints, first, error, message):
        with pytest.raises(error, match=message):
            iterate_average(checkpoints, first=first)
