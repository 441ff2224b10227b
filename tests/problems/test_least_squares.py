import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import FiniteSum, LeastSquares, quadratic_fit, second_moment_operator
from tests.problem_strategies import least_squares


def per_sample_autograd(problem, w):
    """The slow oracle: loss, gradient and Hessian of the mean, one sample at a time."""
    weights = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    loss, gradient, hessian = 0, 0, 0
    for row, target in zip(torch.tensor(problem.features), problem.targets, strict=True):

        def sample_loss(v, row=row, target=target):
            return (row @ v - target) ** 2 / problem.n_samples

        loss += sample_loss(weights).item()
        gradient += torch.autograd.grad(sample_loss(weights), weights)[0].numpy()
        hessian += torch.autograd.functional.hessian(sample_loss, weights).numpy()
    return loss, gradient, hessian


@given(least_squares(), st.integers(0, 10**6))
def test_risk_gradient_and_hessian_equal_a_per_sample_autograd_loop(problem, seed):
    w = np.random.default_rng(seed).normal(size=problem.n_parameters)
    loss, gradient, hessian = per_sample_autograd(problem, w)
    assert_allclose(problem.empirical_risk(w), loss, rtol=1e-10, atol=1e-13)
    assert_allclose(problem.full_gradient(w), gradient, rtol=1e-10, atol=1e-12)
    assert_allclose(problem.hessian, hessian, rtol=1e-10, atol=1e-13)


@given(least_squares())
def test_the_spectrum_rebuilds_the_hessian(problem):
    v = problem.eigenvectors
    assert_allclose(
        (v * problem.eigenvalues) @ v.T, problem.hessian, atol=1e-11 * problem.eigenvalues[-1]
    )
    assert_allclose(v.T @ v, np.eye(problem.n_parameters), atol=1e-12)
    assert (np.diff(problem.eigenvalues) >= 0).all()
    largest = np.argmax(np.abs(v), axis=0)
    assert (v[largest, np.arange(problem.n_parameters)] > 0).all()


@given(least_squares())
def test_the_minimiser_is_the_least_norm_solution(problem):
    solution = np.linalg.pinv(problem.features) @ problem.targets.numpy()
    assert_allclose(problem.minimiser, solution, rtol=1e-8, atol=1e-10)
    assert_allclose(problem.full_gradient(problem.minimiser), 0, atol=1e-12)


@given(least_squares(min_weights=2, rank_deficient=True))
def test_dependent_features_have_a_zero_eigenvalue_that_the_condition_number_leaves_out(problem):
    assert problem.eigenvalues[0] == 0
    assert np.isfinite(problem.condition_number)
    assert problem.condition_number >= 1


@given(least_squares(max_samples=20), st.integers(1, 20), st.integers(0, 10**6))
def test_batch_hessians_weighted_by_size_average_to_the_hessian(problem, batch_size, seed):
    order = np.random.default_rng(seed).permutation(problem.n_samples)
    batches = np.split(order, range(batch_size, problem.n_samples, batch_size))
    sizes = np.array([len(batch) for batch in batches])
    mean = np.einsum("b,bij->ij", sizes / problem.n_samples, problem.batch_hessians(batches))
    assert_allclose(mean, problem.hessian, rtol=1e-10, atol=1e-12)


def test_many_weight_vectors_are_evaluated_at_once():
    problem = quadratic_fit()
    w = np.random.default_rng(0).normal(size=(4, 5, 3))
    assert problem.empirical_risk(w).shape == (4, 5)
    assert problem.full_gradient(w).shape == (4, 5, 3)
    assert_allclose(problem.empirical_risk(w)[2, 3], problem.empirical_risk(w[2, 3]), rtol=1e-14)


def test_a_diverged_weight_vector_gives_no_warning_and_a_risk_that_is_not_finite():
    assert not np.isfinite(quadratic_fit().empirical_risk([np.inf, 0, np.nan]))


def test_all_zero_features_have_no_curvature():
    flat = LeastSquares(np.zeros((4, 2)), np.ones(4))
    assert_array_equal(flat.eigenvalues, 0)
    assert flat.largest_stable_step_size == np.inf
    assert np.isnan(flat.condition_number)
    assert flat.least_risk == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("features", "targets", "message"),
        [
            (np.ones(3), np.ones(3), r"features must be a matrix of shape \(n_samples, d\)"),
            (np.ones((3, 0)), np.ones(3), "d >= 1"),
            (np.ones((3, 2)), np.ones((3, 1)), "targets must be a vector"),
            (np.ones((3, 2)), np.ones(4), "same number of samples, got 3 and 4"),
            (np.ones((0, 2)), np.ones(0), "features must hold at least one sample"),
            (np.array([[1.0], [np.nan]]), np.ones(2), "features must be finite, got 1 nan"),
            (np.ones((2, 1)), np.array([1.0, np.inf]), "targets must be finite, got 1 nan"),
        ],
    )
    def test_least_squares(self, features, targets, message):
        with pytest.raises(ValueError, match=message):
            LeastSquares(features, targets)

    def test_true_weights_of_another_length(self):
        with pytest.raises(ValueError, match=r"true_weights must have shape \(2,\).*got \(3,\)"):
            LeastSquares(np.ones((3, 2)), np.ones(3), true_weights=[1, 2, 3])

    def test_features_that_do_not_match_the_model(self):
        model = torch.nn.Linear(4, 1, bias=False)
        with pytest.raises(ValueError, match="do not match 3 inputs and a model of 4 weights"):
            LeastSquares(np.ones((3, 2)), np.ones(3), model=model)
        with pytest.raises(ValueError, match="one parameter tensor"):
            LeastSquares(np.ones((3, 5)), np.ones(3), model=torch.nn.Linear(4, 1))

    def test_a_model_that_is_not_features_times_weights(self):
        x = np.ones((3, 2), "f")
        columns = torch.nn.Linear(2, 1, bias=False)  # predictions of shape (3, 1)
        with pytest.raises(ValueError, match=r"model\(inputs\) must be features @ w, of shape"):
            LeastSquares(x, np.ones(3), model=columns)
        flat = torch.nn.Sequential(columns, torch.nn.Flatten(0))
        assert LeastSquares(x, np.ones(3, "f"), model=flat).n_parameters == 2
        with pytest.raises(ValueError, match="and other values"):
            LeastSquares(2 * x, np.ones(3), model=flat, inputs=x)

    def test_data_that_are_not_numbers(self):
        with pytest.raises(TypeError, match="features must hold numbers, got an array of dtype"):
            LeastSquares([["a"]], [1])
        with pytest.raises(TypeError, match="targets must hold numbers, got an array of dtype obj"):
            LeastSquares([[1.0]], None)
        with pytest.raises(ValueError, match="features must have rows of the same length"):
            LeastSquares([[1.0], [1.0, 2.0]], [1, 2])

    def test_features_whose_squares_overflow(self):
        with pytest.raises(ValueError, match=r"features must be small enough.*1e\+200"):
            LeastSquares([[1e200]], [1.0]).eigenvalues  # noqa: B018  # a property that computes

    @pytest.mark.parametrize("scale", [1e-155, 1e-200, 1e-310])
    def test_features_whose_squares_underflow(self, scale):
        # The risk at w = 0 was inf.
        problem = LeastSquares([[scale], [2 * scale]], [1.0, 1.0])
        with pytest.raises(ValueError, match=r"features must be large enough.*rescale them"):
            problem.empirical_risk([0.0])

    def test_small_features_have_the_risk_of_the_same_line_in_another_unit(self):
        problem = LeastSquares([[1e-150], [2e-150]], [1e7, 1e7])
        assert_allclose(problem.empirical_risk([[0.0], [1e157]]), [1e14, 5e13], rtol=1e-12)

    def test_second_moments_need_fourth_powers(self):
        problem = LeastSquares([[1e-100], [2e-100]], [1.0, 1.0])
        with pytest.raises(ValueError, match=r"fourth powers to have all digits.*rescale"):
            second_moment_operator(problem, 1e199, 1)

    @pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
    @pytest.mark.parametrize("kind", ["sparse_coo", "sparse_csr", "nested"])
    def test_data_that_are_not_dense(self, kind):
        dense = torch.eye(3)
        data = (
            torch.nested.nested_tensor([dense, dense])
            if kind == "nested"
            else dense.to_sparse(layout=getattr(torch, kind))
        )
        with pytest.raises(TypeError, match=rf"features must be dense, got .*{kind}.*to_dense\(\)"):
            LeastSquares(data, torch.ones(3))
        with pytest.raises(TypeError, match="inputs must be dense"):
            FiniteSum(torch.nn.Linear(3, 1), torch.nn.MSELoss(), data, torch.ones(3, 1))

    def test_data_that_are_masked(self):
        masked = np.ma.masked_equal([[1.0], [2.0]], 2)
        for features in (masked, [masked[0], masked[1]]):
            with pytest.raises(ValueError, match="features must have a value everywhere, got mask"):
                LeastSquares(features, [1.0, 2.0])
        with pytest.raises(ValueError, match="targets must have a value everywhere"):
            LeastSquares([[1.0], [2.0]], masked[:, 0])
        assert LeastSquares(np.ma.array([[1.0]]), [1.0]).n_samples == 1  # none is masked

    @pytest.mark.parametrize("method", ["empirical_risk", "full_gradient"])
    def test_weights_of_another_length(self, method):
        with pytest.raises(ValueError, match=r"w must have shape \(\.\.\., 3\).*got shape \(2,\)"):
            getattr(quadratic_fit(), method)([1.0, 2.0])

    @pytest.mark.parametrize(
        ("batches", "message"),
        [
            ([[0], []], "batch 1 must be a non-empty vector"),
            ([[0.5]], "batch 0 must be a non-empty vector of sample indices"),
            ([[0, 2000]], "between 0 and 1999, got values between 0 and 2000"),
            ([[-1]], "between 0 and 1999"),
        ],
    )
    def test_batches_of_samples_that_do_not_exist(self, batches, message):
        with pytest.raises(ValueError, match=message):
            quadratic_fit().batch_hessians(batches)


def test_integer_data_are_converted_to_the_default_dtype_for_training_alone():
    large = 2**24 + 1  # the first integer that float32 does not hold
    problem = LeastSquares([[large], [1]], [1, 2])
    assert problem.inputs.dtype == problem.targets.dtype == torch.get_default_dtype()
    assert problem.features[0, 0] == large


def test_integers_beside_float64_data_do_not_cost_them_their_precision():
    problem = LeastSquares(np.full((2, 1), 1e9 + 1), [1, 2])
    assert problem.inputs.dtype == problem.targets.dtype == torch.float64
    assert problem.features[0, 0] == 1e9 + 1


def test_bfloat16_models_and_data_come_out_as_float32():
    inputs = torch.ones(3, 2, dtype=torch.bfloat16)
    problem = LeastSquares(inputs, inputs[:, 0])
    assert problem.start.dtype == np.float32
    assert_allclose(problem.minimiser, [0.5, 0.5])


def test_targets_that_carry_a_graph_are_detached():
    network = torch.nn.Linear(2, 1)
    inputs = torch.ones(3, 2, requires_grad=True)
    problem = LeastSquares(inputs, network(inputs)[:, 0])
    assert not problem.inputs.requires_grad
    assert not problem.targets.requires_grad


def test_changing_the_callers_arrays_does_not_change_the_problem():
    features, targets = np.array([[1.0], [2.0]]), np.array([1.0, 2.0])
    problem = LeastSquares(features, targets)
    features[:], targets[:] = 7, 7
    assert_allclose(problem.minimiser, [1])
    assert_array_equal(problem.inputs.numpy(), [[1], [2]])


@pytest.mark.parametrize(
    "name", ["features", "hessian", "eigenvalues", "eigenvectors", "minimiser", "true_weights"]
)
def test_what_is_cached_cannot_be_overwritten(name):
    with pytest.raises(ValueError, match="read-only"):
        getattr(quadratic_fit(), name)[...] = 0
