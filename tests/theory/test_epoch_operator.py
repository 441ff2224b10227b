import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sgd_analysis import FiniteSum, LeastSquares, batches, epoch_operator, quadratic_fit, train
from sgd_analysis.theory.many_digits import affine_maps
from sgd_analysis.theory.visits import Visits
from tests.problem_strategies import least_squares, visits

STEP_SIZE = 0.0002
BOTH = (np.float32, np.float64)
FRACTIONS = st.floats(0.01, 1.5)


@st.composite
def epochs(draw, partition=None, **options):
    """A problem, batches of its samples, and a step size by what the steepest batch bears."""
    problem = draw(least_squares(max_weights=8, dtypes=BOTH, **options))
    order = draw(visits(problem.n_samples, partition=partition))
    steepest = np.linalg.eigvalsh(problem.batch_hessians(order)).max()
    return problem, order, draw(FRACTIONS) * 2 / steepest


def one_pass(problem, step_size, order, w):
    """The weights before each step and after the last, by residuals alone."""
    features, targets = problem.features, problem.targets.numpy().astype(float)
    path = [np.array(w, dtype=float)]
    for batch in order:
        rows = features[batch]
        residual = rows @ path[-1] - targets[batch]
        path.append(path[-1] - step_size * 2 / len(batch) * rows.T @ residual)
    return np.array(path)


def across(problem, order):
    """The projection on the directions that no visited sample sees."""
    rows = problem.features[np.concatenate(order)]
    return np.eye(problem.n_parameters) - np.linalg.pinv(rows) @ rows


def products(problem, step_size, order):
    identity = np.eye(problem.n_parameters)
    factors = (identity - step_size * h for h in problem.batch_hessians(order))
    return np.array(
        list(itertools.accumulate(factors, lambda p, factor: factor @ p, initial=identity))
    )


@given(epochs(), st.integers(0, 10**6))
def test_it_takes_the_weights_where_one_real_pass_takes_them(epoch, seed):
    problem, order, step_size = epoch
    operator = epoch_operator(problem, step_size, order)
    w = np.random.default_rng(seed).normal(size=problem.n_parameters)
    path = one_pass(problem, step_size, order, w)
    scale = np.abs(path).max()
    assert_allclose(operator(w), path[-1], rtol=1e-10, atol=1e-10 * scale)
    assert_allclose(operator.path(w), path, rtol=1e-10, atol=1e-10 * scale)
    offset = operator(np.zeros(len(w)))
    assert_allclose(operator.matrix @ w + offset, path[-1], atol=1e-10 * scale)


@given(epochs(), st.integers(0, 10**6))
def test_many_weights_go_through_an_epoch_at_once(epoch, seed):
    problem, order, step_size = epoch
    operator = epoch_operator(problem, step_size, order)
    w = np.random.default_rng(seed).normal(size=(2, 3, problem.n_parameters))
    assert operator(w).shape == w.shape
    assert operator.path(w).shape == (2, 3, len(order) + 1, problem.n_parameters)
    # A weight near zero is a difference of larger ones, and has their rounding.
    path = operator.path(w[1, 2])
    rounding = 1e-12 * np.abs(path).max()
    assert_allclose(operator(w)[1, 2], operator(w[1, 2]), rtol=1e-12, atol=rounding)
    assert_allclose(operator.path(w)[1, 2], path, rtol=1e-12, atol=rounding)


@given(epochs(), st.integers(0, 10**6))
def test_its_fixed_point_is_where_epoch_after_epoch_really_ends(epoch, seed):
    problem, order, step_size = epoch
    operator = epoch_operator(problem, step_size, order)
    assume(operator.spectral_radius < 0.9)
    w = start = np.random.default_rng(seed).normal(size=problem.n_parameters)
    for _ in range(int(35 / -np.log(max(operator.spectral_radius, 1e-15))) + 2):
        w = one_pass(problem, step_size, order, w)[-1]
    end = operator.fixed_point + across(problem, order) @ start
    scale = max(np.abs(operator.path(end)).max(), operator.transient_growth)
    assert_allclose(w, end, rtol=1e-8, atol=1e-9 * scale)


@given(epochs(max_samples=10))
def test_the_fixed_point_is_the_one_of_least_norm(epoch):
    problem, order, step_size = epoch
    operator = epoch_operator(problem, step_size, order)
    assume(operator.spectral_radius < 0.9)
    scale = np.abs(operator.path(operator.fixed_point)).max() + operator.transient_growth
    assert_allclose(operator(operator.fixed_point), operator.fixed_point, atol=1e-10 * scale)
    assert_allclose(across(problem, order) @ operator.fixed_point, 0, atol=1e-10 * scale)


@given(epochs())
def test_radius_and_growth_are_those_of_the_products_on_the_row_space(epoch):
    problem, order, step_size = epoch
    operator = epoch_operator(problem, step_size, order)
    kernel = across(problem, order)
    expected = products(problem, step_size, order) - kernel
    assert_allclose(operator.growth, np.linalg.norm(expected, 2, axis=(1, 2)), atol=1e-11)
    assert operator.transient_growth == operator.growth.max() >= 1
    # An eigenvalue's rounding may be the root of the matrix's, where several coincide.
    radius = np.abs(np.linalg.eigvals(expected[-1])).max()
    assert_allclose(operator.spectral_radius, radius, rtol=1e-4, atol=1e-4)
    assert_allclose(operator.matrix @ kernel, kernel, atol=1e-12)


@given(epochs())
def test_once_settled_an_epoch_ends_smaller_by_the_spectral_radius(epoch):
    problem, order, step_size = epoch
    operator = epoch_operator(problem, step_size, order)
    assert operator.settled_growth.shape == (len(order) + 1,)
    assert_allclose(operator.settled_growth[[0, -1]], [1, operator.spectral_radius], atol=1e-9)
    assert (operator.settled_growth <= operator.growth * (1 + 1e-9)).all()


@given(epochs(), st.floats(0.01, 1))
def test_no_step_grows_up_to_the_threshold_of_the_steepest_batch(epoch, fraction):
    problem, order, _ = epoch
    steepest = np.linalg.eigvalsh(problem.batch_hessians(order)).max()
    operator = epoch_operator(problem, fraction * 2 / steepest, order)
    assert (np.diff(operator.growth) <= 1e-12).all()
    assert_allclose(operator.transient_growth, 1, rtol=1e-12)


def test_a_tiny_step_size_does_not_cost_the_fixed_point_its_digits():
    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(12, 3)), rng.normal(size=12))
    order = batches(range(12), 3)
    distances = [
        np.linalg.norm(epoch_operator(problem, eta, order).fixed_point - problem.minimiser)
        for eta in (1e-10, 1e-9)
    ]
    assert_allclose(distances[1] / distances[0], 10, rtol=1e-4)


def in_fractions(problem, step_size, order):
    """M and b of an epoch without any rounding."""
    to_fractions = np.vectorize(Fraction, otypes=[object])
    eta, d = Fraction(step_size), problem.n_parameters
    rows = to_fractions(problem.features)
    rows = np.column_stack([rows, -to_fractions(problem.targets.numpy().astype(float))])
    affine = to_fractions(np.eye(d + 1))
    for batch in map(np.asarray, order):
        seen = rows[batch] @ affine
        affine[:d] = affine[:d] - 2 * eta / len(batch) * rows[batch][:, :-1].T @ seen
    return affine[:d, :d].astype(float), affine[:d, d].astype(float)


@pytest.mark.parametrize("noise", [0, 1])
def test_what_grows_beyond_double_precision_is_not_lost_in_rounding(noise):
    x = np.linspace(-1, 1, 100)
    y = x + noise * np.random.default_rng(0).normal(size=100)
    problem, order = LeastSquares(np.column_stack([x**2, x]), y), batches(range(100), 1)
    operator = epoch_operator(problem, 2.0, order)
    matrix, offset = in_fractions(problem, 2.0, order)
    assert operator.transient_growth > 1e8
    assert_allclose(operator.matrix, matrix, rtol=1e-9, atol=1e-12)
    assert_allclose(operator(np.zeros(2)), offset, rtol=1e-9, atol=1e-9 * np.abs(offset).max())
    fixed_point = np.linalg.solve(np.eye(2) - matrix, offset)
    assert_allclose(operator.fixed_point, fixed_point, rtol=1e-9)


@given(epochs())
def test_many_digits_and_double_precision_agree_where_both_will_do(epoch):
    problem, order, step_size = epoch
    visits = Visits(problem, order)
    in_double, removed = visits.affine_maps(step_size)
    maps = affine_maps(problem, step_size, [np.asarray(b) for b in order], visits.centre, 50)
    basis, scale = visits.basis, np.abs(in_double).max(initial=1)
    assert_allclose(basis.T @ maps[0][:, :, :-1] @ basis, in_double[:, :, :-1], atol=1e-9 * scale)
    assert_allclose(maps[0][:, :, -1] @ basis, in_double[:, :, -1], atol=1e-9 * scale)
    assert_allclose(basis.T @ maps[1] @ basis, removed, atol=1e-9 * scale)


def test_a_settled_growth_below_rounding_is_refused():
    # One direction grows beyond all digits and is then removed; the other is slow all along.
    problem = LeastSquares([[3.0, 0.0]] * 40 + [[0.5, 0.0]] * 200 + [[0.0, 0.1]], np.zeros(241))
    operator = epoch_operator(problem, 1.0, batches(range(241), 1))
    assert operator.transient_growth > 1e40
    assert_allclose(operator.spectral_radius, 0.98)
    with pytest.raises(ValueError, match=r"cannot tell it from zero.*growth is up to 1.7e\+49"):
        _ = operator.settled_growth


def test_without_features_nothing_moves():
    flat = LeastSquares(np.zeros((3, 2)), np.ones(3))
    operator = epoch_operator(flat, 1.0, batches(range(3), 2))
    assert operator.spectral_radius == 0
    assert operator.transient_growth == 1
    assert_allclose(operator.growth, 0)
    assert_allclose(operator.settled_growth, 0)
    assert_allclose(operator.fixed_point, 0)
    assert_allclose(operator([1.0, 2.0]), [1, 2])


class TestTheSourceNotebooksProblem:
    """What its batches of neighbours do in their given order, at the notebook's step size."""

    def test_the_threshold_lies_near_half_its_step_size(self):
        problem = quadratic_fit()
        order = batches(range(2000), 10)
        threshold = 2 / np.linalg.eigvalsh(problem.batch_hessians(order)).max()
        assert_allclose(threshold / STEP_SIZE, 0.504, atol=5e-4)
        assert epoch_operator(problem, threshold, order).transient_growth < 1 + 1e-10
        assert epoch_operator(problem, 1.05 * threshold, order).transient_growth > 1.05

    def test_the_epoch_contracts_and_yet_the_error_grows_inside_it_ten_thousandfold(self):
        problem = quadratic_fit()
        operator = epoch_operator(problem, STEP_SIZE, batches(range(2000), 10))
        assert operator.spectral_radius < 0.98
        assert operator.transient_growth > 1e4
        # Growth is the product of the first batches' own factors, as if they were aligned.
        curvature = np.linalg.eigvalsh(problem.batch_hessians(batches(range(2000), 10)))[:, -1]
        factors = np.cumprod(np.abs(1 - STEP_SIZE * curvature))
        assert_allclose(operator.transient_growth, factors.max(), rtol=1e-3)
        assert operator.growth[30:].max() < 1.01

    def test_sample_by_sample_it_contracts_after_growth_that_no_double_holds(self):
        # In double precision rounding grew along, and the radius came out as 6.7e53.
        operator = epoch_operator(quadratic_fit(), STEP_SIZE, batches(range(2000), 1))
        assert_allclose(operator.spectral_radius, 0.848883, rtol=1e-5)  # 400 digits, mpmath
        assert_allclose(np.log10(operator.transient_growth), 43.1374, rtol=1e-5)
        assert operator.growth[1000:].max() < 1.2

    def test_there_and_back_removes_what_recurs_and_not_the_worst_case(self):
        problem = quadratic_fit()
        there = batches(range(2000), 10)
        cyclic = epoch_operator(problem, STEP_SIZE, there)
        both_ways = epoch_operator(problem, STEP_SIZE, [*there, *there[::-1]])
        assert_allclose(both_ways.transient_growth, cyclic.transient_growth)
        assert cyclic.settled_growth.max() > 500
        assert both_ways.settled_growth.max() < 3

    def test_batches_that_span_the_range_do_not_grow(self):
        strided = [torch.arange(k, 2000, 200) for k in range(200)]
        operator = epoch_operator(quadratic_fit(), STEP_SIZE, strided)
        assert operator.transient_growth < 1 + 1e-10

    def test_sorted_batches_in_random_order_may_diverge(self):
        problem, order = quadratic_fit(), batches(range(2000), 10)
        rng = np.random.default_rng(0)
        operators = [
            epoch_operator(problem, STEP_SIZE, [order[i] for i in rng.permutation(200)])
            for _ in range(100)
        ]
        assert max(operator.spectral_radius for operator in operators) > 1


def test_far_more_weights_than_samples_take_no_more_room_than_the_samples():
    # Every step's matrix was of d rows: 9 GB for d = 2000 and 300 batches.
    rng = np.random.default_rng(0)
    problem = LeastSquares(rng.normal(size=(6, 40)), rng.normal(size=6))
    order = batches(range(6), 2)
    operator = epoch_operator(problem, 0.01, order, memory=8 * 10 * 6 * 7)
    assert operator.hessians.shape == (3, 6, 6)
    matrix, w = np.eye(40), rng.normal(size=40)
    for hessian in problem.batch_hessians(order):
        matrix = matrix - 0.01 * hessian @ matrix
    assert_allclose(operator.matrix, matrix, atol=1e-12)
    run = train(problem, step_size=0.01, batch_size=2, order="cyclic", max_epochs=1, start=w)
    assert_allclose(operator(w), run.weights, rtol=1e-10)


class TestRefusals:
    def test_what_would_need_too_much_memory_is_said_before_it_is_asked_for(self):
        problem = LeastSquares(np.eye(3), np.ones(3))
        with pytest.raises(ValueError, match=r"batches, or of fewer weights, than 3 and 3, .*GB"):
            epoch_operator(problem, 0.1, [[0], [1], [2]], memory=900)
        assert epoch_operator(problem, 0.1, [[0], [1], [2]], memory=1000).spectral_radius < 1
        with pytest.raises(ValueError, match="memory must be at least 1, got 0"):
            epoch_operator(problem, 0.1, [[0]], memory=0)

    def test_a_problem_that_is_not_quadratic(self):
        p = quadratic_fit()
        other = FiniteSum(p.model, torch.nn.L1Loss(), p.inputs, p.targets)
        with pytest.raises(TypeError, match=r"problem must be a LeastSquares.*got FiniteSum"):
            epoch_operator(other, STEP_SIZE, [[0]])

    @pytest.mark.parametrize("step_size", [0, -1e-4, np.inf, np.nan])
    def test_a_step_size_that_is_not_positive(self, step_size):
        with pytest.raises(ValueError, match="step_size must be positive and finite"):
            epoch_operator(quadratic_fit(), step_size, [[0]])

    def test_a_step_size_past_the_range_of_a_float(self):
        with pytest.raises(ValueError, match=r"matrix to be finite, got 1e\+200"):
            epoch_operator(quadratic_fit(), 1e200, [[0], [1]])

    @pytest.mark.parametrize(
        ("order", "message"),
        [
            ([], "batches must hold at least one batch, got none"),
            ([[]], "batch 0 must be a non-empty vector of sample indices"),
            ([[0], [2000]], "batch 1 must hold indices between 0 and 1999"),
            ([[0.5]], "batch 0 must be a non-empty vector of sample indices"),
        ],
    )
    def test_batches_that_are_none(self, order, message):
        with pytest.raises(ValueError, match=message):
            epoch_operator(quadratic_fit(), STEP_SIZE, order)

    def test_an_epoch_without_a_single_fixed_point(self):
        problem = LeastSquares([[1.0], [1.0]], [0.0, 1.0])  # each step multiplies by −1
        operator = epoch_operator(problem, 1.0, batches(range(2), 1))
        assert operator.spectral_radius == 1
        with pytest.raises(ValueError, match="eigenvalue 1 at step size 1: change the step size"):
            _ = operator.fixed_point

    def test_weights_of_another_shape(self):
        operator = epoch_operator(quadratic_fit(), STEP_SIZE, [[0]])
        for call in (operator, operator.path):
            with pytest.raises(ValueError, match=r"w must have shape \(\.\.\., 3\)"):
                call([1.0, 2.0])


@pytest.mark.parametrize("name", ["matrix", "fixed_point", "growth", "settled_growth"])
def test_what_is_cached_cannot_be_overwritten(name):
    operator = epoch_operator(quadratic_fit(), STEP_SIZE, batches(range(2000), 10))
    with pytest.raises(ValueError, match="read-only"):
        getattr(operator, name)[...] = 0
