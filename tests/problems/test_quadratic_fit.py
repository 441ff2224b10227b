import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import quadratic_fit


class TestTheSourceNotebooksProblem:
    def test_its_inputs_are_the_float32_grid_whose_last_point_is_not_9_99(self):
        inputs = quadratic_fit().inputs
        assert inputs.shape == (2000,)
        assert inputs.dtype == torch.float32
        assert_array_equal(inputs.numpy(), np.arange(-10, 10, 0.01, dtype="f"))
        assert f"{inputs[-1].item():.6f}" == "9.990458"

    def test_its_targets_are_the_ones_the_notebook_prints(self):
        targets = quadratic_fit().targets.numpy()
        printed = ["49.5", "49.423027", "49.346115", "15.373228", "15.416082", "15.458996"]
        assert [str(y) for y in targets[[0, 1, 2, -3, -2, -1]]] == printed

    def test_its_true_weights_are_its_minimiser_up_to_the_rounding_of_the_targets(self):
        problem = quadratic_fit()
        assert_array_equal(problem.true_weights, [0.3, -1.7, 2.5])
        rounding = np.spacing(np.float32(50)) / 2
        assert_allclose(problem.minimiser, problem.true_weights, atol=rounding)
        assert 0 < problem.least_risk < rounding**2

    def test_its_model_computes_its_features_times_the_weights(self):
        problem = quadratic_fit()
        w = torch.tensor([0.7, -0.2, 1.5])
        prediction = torch.func.functional_call(problem.model, {"weights": w}, problem.inputs)
        assert_allclose(prediction, problem.features @ w.double().numpy(), rtol=1e-5, atol=1e-5)

    def test_its_spectrum_is_the_one_of_the_continuous_moments(self):
        # On [-10, 10] the moments are E x² = 100/3 and E x⁴ = 2000; the odd ones vanish, and the
        # grid leaves out the right end, whence the tolerance of one part in a thousand.
        a, b = 2000, 100 / 3
        expected = 2 * np.linalg.eigvalsh([[a, 0, b], [0, b, 0], [b, 0, 1]])
        problem = quadratic_fit()
        assert_allclose(problem.eigenvalues, expected, rtol=2e-3)
        assert_allclose(problem.largest_stable_step_size, 2 / problem.eigenvalues[-1])
        assert problem.condition_number > 4000


def test_another_unit_changes_the_weights_and_not_the_fits():
    problem, rescaled = quadratic_fit(), quadratic_fit(unit=5)
    assert_allclose(rescaled.inputs * 5, problem.inputs, rtol=1e-6)
    assert_array_equal(rescaled.targets, problem.targets)
    assert_allclose(rescaled.true_weights, [0.3 * 25, -1.7 * 5, 2.5])
    assert_allclose(rescaled.minimiser, rescaled.true_weights, atol=1e-5)
    with pytest.raises(ValueError, match="unit must be positive and finite, got 0"):
        quadratic_fit(unit=0)
