import copy
import functools
import inspect
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    diverged,
    empirical_risk_below,
    full_gradient_norm_below,
    last_batch_loss_below,
    mean_batch_loss_below,
    no_improvement,
    path_gradient_norm_below,
    quadratic_fit,
    running_loss_below,
    train,
    train_ensemble,
)
from sgd_analysis.orders import ORDERS
from sgd_analysis.stopping import epochs_reached
from sgd_analysis.training.optimizers import ELEMENTWISE
from tests.ensemble.ensembles import (
    ALONG,
    AT_ENDS,
    MOMENTUM,
    OPTIMIZERS,
    assert_equal_bit_for_bit,
    network,
    noisy_line,
)
from tests.problem_strategies import least_squares


def slow_run(problem, order, seed, epochs, batch_size, step_size):
    """SGD on least squares in plain float64, sample by sample; the quantities of each epoch."""
    features, targets = problem.features, problem.targets.double().numpy()
    n_samples, d = features.shape
    w = problem.start.astype(np.float64)
    visits = ORDERS[order](n_samples, batch_size, torch.Generator().manual_seed(seed))
    series = {name: [] for name in ALONG + AT_ENDS}
    for indices in itertools.islice(visits, epochs):
        losses, gradients, sizes = [], [], []
        for first in range(0, n_samples, batch_size):
            batch = indices[first : first + batch_size].tolist()
            residuals = [features[i] @ w - targets[i] for i in batch]
            losses.append(sum(r * r for r in residuals) / len(batch))
            gradient = np.zeros(d)
            for r, i in zip(residuals, batch, strict=True):
                gradient += 2 * r * features[i] / len(batch)
            gradients.append(gradient)
            sizes.append(len(batch))
            w = w - step_size * gradient
        residuals = features @ w - targets
        path = sum(n * g for n, g in zip(sizes, gradients, strict=True)) / n_samples
        series["running_loss"].append(np.dot(sizes, losses) / n_samples)
        series["mean_batch_loss"].append(np.mean(losses))
        series["last_batch_loss"].append(losses[-1])
        series["path_gradient_norm"].append(math.hypot(*path))
        series["empirical_risk"].append(np.mean(residuals**2))
        full = 2 / n_samples * features.T @ residuals
        series["full_gradient_norm"].append(math.hypot(*full))
    return series, w


@pytest.mark.parametrize("gradient", ["closed form", "autograd"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_quantity_is_that_of_a_slow_loop(order, gradient):
    problem, seeds = noisy_line(), [5, 0, 11]
    ensemble = train_ensemble(
        problem, seeds, step_size=0.05, batch_size=4, order=order, max_epochs=3, gradient=gradient
    )
    for row, seed in enumerate(seeds):
        series, weights = slow_run(problem, order, seed, 3, 4, 0.05)
        for name, values in series.items():
            assert_allclose(getattr(ensemble, name)[row], values, rtol=1e-12, err_msg=name)
        assert_allclose(ensemble.weights[row], weights, rtol=1e-12)
    assert_array_equal(ensemble.seeds, seeds)
    assert (ensemble.n_replicas, ensemble.epochs, ensemble.weights.shape) == (3, 3, (3, 3))


@settings(deadline=None, max_examples=25)
@given(
    problem=least_squares(),
    order=st.sampled_from(sorted(ORDERS)),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
)
def test_random_problems_of_any_shape_are_trained_as_by_a_slow_loop(
    problem, order, batch_size, seed
):
    batch_size = min(batch_size, problem.n_samples)
    steepest = 2 * (problem.features**2).sum(axis=1).max()
    settings = dict(batch_size=batch_size, order=order, max_epochs=2, step_size=1 / steepest)
    series, weights = slow_run(problem, order, seed, 2, batch_size, 1 / steepest)
    for gradient in ("closed form", "autograd"):
        ensemble = train_ensemble(problem, [seed], gradient=gradient, **settings)
        # Losses may go down to nothing: as accurate as those the run begins with.
        scale = 1e-12 * np.max(series["mean_batch_loss"])
        for name in ("running_loss", "mean_batch_loss", "last_batch_loss", "empirical_risk"):
            assert_allclose(getattr(ensemble, name)[0], series[name], rtol=1e-10, atol=scale)
        assert_allclose(ensemble.weights[0], weights, rtol=1e-10, atol=1e-12)


BATCHES = {
    "all samples": {},
    "a ragged tail": {"batch_size": 5},  # of 23 samples: the last batch has 3
    "the tail dropped": {"batch_size": 5, "drop_last": True},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gradient", ["autograd", "closed form"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
def test_a_replica_is_the_run_that_train_makes_with_its_seed(
    batches, order, optimizer, gradient, dtype
):
    problem, seeds = noisy_line(dtype=dtype), [3, 1]
    settings = dict(step_size=0.02, max_epochs=3, order=order, gradient=gradient) | batches
    ensemble = train_ensemble(problem, seeds, optimizer, checkpoints=True, **settings)
    # Sums over a batch may be taken in another order: some ulps of float32.
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    for row, seed in enumerate(seeds):
        run = train(problem, optimizer, seed=seed, **settings)
        history = run.history
        assert_allclose(ensemble.checkpoints[row], run.checkpoints, rtol=rtol, atol=rtol / 10)
        assert_allclose(ensemble.weights[row], run.weights, rtol=rtol, atol=rtol / 10)
        assert_allclose(ensemble.running_loss[row], history.running_loss, rtol=rtol)
        assert_allclose(ensemble.mean_batch_loss[row], history.mean_batch_loss, rtol=rtol)
        assert_allclose(
            ensemble.path_gradient_norm[row], history.path_gradient_norm, rtol=10 * rtol
        )
    assert ensemble.weights.dtype == dtype


def test_the_defaults_are_those_of_train():
    # With batches of ten for one and all samples for the other it was 26/2.6/2.4.
    problem = quadratic_fit()
    ensemble = train_ensemble(problem, [0], step_size=2e-4, max_epochs=3)
    run = train(problem, step_size=2e-4, seed=0, max_epochs=3)
    assert_allclose(ensemble.running_loss[0], run.history.running_loss, rtol=1e-5)
    assert_allclose(ensemble.running_loss[0], [333.1, 105.7, 93.7], rtol=1e-2)


def test_what_train_and_train_ensemble_both_take_has_one_name_and_one_default():
    one, many = (inspect.signature(f).parameters for f in (train, train_ensemble))
    assert one.keys() - many.keys() == {"stop", "seed"}
    assert many.keys() - one.keys() == {"seeds", "checkpoints", "memory"}
    shared = [name for name in one if name in many]
    assert shared == [name for name in many if name in one]
    for name in shared:
        assert one[name] == many[name]


@pytest.mark.parametrize("batch_size", [4, 23])
def test_targets_that_are_ignored_weigh_nothing_as_in_train(batch_size):
    problem = network(nn.CrossEntropyLoss(ignore_index=3))
    settings = dict(step_size=0.1, max_epochs=2, batch_size=batch_size)
    ensemble = train_ensemble(problem, range(3), **settings)
    for seed in range(3):
        run = train(problem, seed=seed, stop=empirical_risk_below(1e-9), **settings)
        history = run.history
        assert len(set(history.n_samples)) > 1 or batch_size == 23
        assert_allclose(ensemble.weights[seed], run.weights, rtol=1e-12)
        assert_allclose(ensemble.running_loss[seed], history.running_loss, rtol=1e-12)
        assert_allclose(ensemble.path_gradient_norm[seed], history.path_gradient_norm, rtol=1e-12)
        with torch.no_grad():
            risk = problem.criterion(run.model(problem.inputs), problem.targets).item()
        assert_allclose(ensemble.empirical_risk[seed, -1], risk, rtol=1e-12)


VARIANTS = {
    "Nesterov and decay": functools.partial(
        torch.optim.SGD, momentum=0.8, nesterov=True, weight_decay=0.1
    ),
    "AMSGrad": functools.partial(torch.optim.Adam, amsgrad=True, betas=(0.8, 0.9)),
    "centered": functools.partial(torch.optim.RMSprop, centered=True, momentum=0.5),
    "foreach": functools.partial(torch.optim.Adam, foreach=True),
    "maximize": functools.partial(torch.optim.SGD, maximize=True),
} | {cls.__name__: cls for cls in ELEMENTWISE}


@pytest.mark.parametrize("optimizer", VARIANTS.values(), ids=VARIANTS)
def test_every_elementwise_optimizer_steps_each_replica_as_it_steps_one_alone(optimizer):
    settings = dict(step_size=0.01, batch_size=4)
    line, net = noisy_line(), network(nn.MSELoss())
    for problem, gradient in ((line, "closed form"), (line, "autograd"), (net, "autograd")):
        ensemble = train_ensemble(
            problem, range(3), optimizer, max_epochs=3, gradient=gradient, **settings
        )
        for seed in range(3):
            run = train(problem, optimizer, max_epochs=3, seed=seed, **settings)
            assert_allclose(ensemble.weights[seed], run.weights, rtol=1e-12, atol=1e-14)


def test_every_optimizer_of_torch_is_elementwise_or_refused():
    classes = {
        cls
        for cls in vars(torch.optim).values()
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)
    } - {torch.optim.Optimizer}
    for cls in classes - set(ELEMENTWISE):
        with pytest.raises(ValueError, match=rf"own gradients alone; got {cls.__name__}"):
            train_ensemble(noisy_line(), [0], cls, step_size=0.1, max_epochs=1)
    assert set(ELEMENTWISE) < classes


class TestNetworks:
    @pytest.mark.parametrize("order", ["reshuffle", "independent"])
    @pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
    @pytest.mark.parametrize("criterion", [nn.MSELoss(), nn.CrossEntropyLoss()])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_each_replica_is_trained_as_it_is_alone(self, dtype, criterion, optimizer, order):
        problem = network(criterion, dtype, activation=nn.ReLU)
        settings = dict(step_size=0.01, batch_size=10, order=order)
        ensemble = train_ensemble(problem, range(3), optimizer, max_epochs=2, **settings)
        # float32: matrix products of a batch of matrices may sum up in another order.
        rtol = 1e-12 if dtype == torch.float64 else 1e-4
        for seed in range(3):
            run = train(problem, optimizer, max_epochs=2, seed=seed, **settings)
            history = run.history
            assert_allclose(ensemble.weights[seed], run.weights, rtol=rtol, atol=rtol / 100)
            assert_allclose(ensemble.running_loss[seed], history.running_loss, rtol=rtol)
            assert_allclose(ensemble.mean_batch_loss[seed], history.mean_batch_loss, rtol=rtol)
            assert_allclose(ensemble.last_batch_loss[seed], history.loss[[2, 5]], rtol=rtol)
            with torch.no_grad():
                risk = criterion(run.model(problem.inputs), problem.targets).item()
            assert_allclose(ensemble.empirical_risk[seed, -1], risk, rtol=rtol)

    def test_the_path_gradient_is_the_way_gone_over_step_size_and_number_of_steps(self):
        problem = network(nn.MSELoss(), n_samples=20)
        ensemble = train_ensemble(
            problem, range(3), step_size=0.1, batch_size=5, max_epochs=4, checkpoints=True
        )
        way = np.linalg.norm(np.diff(ensemble.checkpoints, axis=1), axis=2)
        assert_allclose(ensemble.path_gradient_norm, way / (0.1 * 4), rtol=1e-12)

    def test_a_frozen_parameter_stays_and_an_unused_one_is_left_alone(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.used = nn.Parameter(torch.ones(3, 1, dtype=torch.float64))
                self.frozen = nn.Parameter(torch.ones((), dtype=torch.float64))
                self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
                self.frozen.requires_grad_(False)

            def forward(self, inputs):
                return self.frozen * inputs @ self.used

        inputs = torch.randn(23, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        problem = FiniteSum(Model(), nn.MSELoss(), inputs, inputs[:, :1])
        # Weight decay would move a parameter whose gradient is 0 instead of none.
        decay = functools.partial(torch.optim.SGD, weight_decay=0.5)
        settings = dict(step_size=0.1, batch_size=10, max_epochs=2)
        ensemble = train_ensemble(problem, range(2), decay, **settings)
        for seed in range(2):
            run = train(problem, decay, seed=seed, **settings)
            assert_allclose(ensemble.weights[seed], run.weights, rtol=1e-12)
        assert_array_equal(ensemble.weights[:, 3:], np.ones((2, 2)))

    def test_batch_norm_in_evaluation_mode_is_trained_as_it_is_alone(self):
        problem = network(nn.MSELoss())
        model = nn.Sequential(problem.model, nn.BatchNorm1d(4, dtype=torch.float64)).eval()
        problem = FiniteSum(model, problem.criterion, problem.inputs, problem.targets)
        settings = dict(step_size=0.1, batch_size=10, max_epochs=2)
        ensemble = train_ensemble(problem, range(2), **settings)
        run = train(problem, seed=1, **settings)
        assert_allclose(ensemble.weights[1], run.weights, rtol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", torch.optim.RMSprop, torch.optim.Adam])
def test_the_source_notebooks_runs_are_equal_to_rounding(optimizer):
    problem = quadratic_fit()
    step_size = 2e-4 if optimizer == "sgd" else 0.01
    settings = dict(step_size=step_size, batch_size=10, max_epochs=5)
    ensemble = train_ensemble(problem, [7, 3], optimizer, **settings)
    run = train(problem, optimizer, seed=3, **settings)
    # Five epochs are too few for rounding to be amplified.
    assert_allclose(ensemble.weights[1], run.weights, rtol=1e-5)
    assert_allclose(ensemble.running_loss[1], run.history.running_loss, rtol=1e-5)
    assert_allclose(ensemble.last_batch_loss[1], run.history.loss[199::200], rtol=1e-3)


def test_the_source_notebooks_48_epochs_are_those_of_each_of_256_seeds():
    ensemble = train_ensemble(
        quadratic_fit(),
        range(256),
        step_size=2e-4,
        max_epochs=48,
        batch_size=10,
        gradient="closed form",
    )
    assert_array_equal(ensemble.epochs_to(running_loss_below(0.1)), np.full(256, 48))


class TestDivergence:
    @staticmethod
    def start_with_one_that_diverges():
        """A steep sample that only some of the seeds meet twice in a row, and then explode."""
        features, targets = np.ones((12, 1)), np.zeros(12)
        features[0] = 1e80
        problem = LeastSquares(features, targets)
        return problem, dict(step_size=0.1, batch_size=1, order="with_replacement", max_epochs=4)

    @pytest.mark.parametrize("gradient", ["closed form", "autograd"])
    def test_a_replica_that_diverges_leaves_the_others_as_they_are(self, gradient):
        problem, settings = self.start_with_one_that_diverges()
        start = np.array([1e-60])
        settings |= dict(gradient=gradient, start=start, checkpoints=True)
        ensemble = train_ensemble(problem, range(30), **settings)
        finite = np.isfinite(ensemble.weights[:, 0])
        assert 0 < finite.sum() < 30
        others = train_ensemble(problem, np.flatnonzero(finite), **settings)
        assert_equal_bit_for_bit(others, ensemble, finite)

    @pytest.mark.parametrize("gradient", ["closed form", "autograd"])
    def test_it_has_nan_in_all_that_comes_after(self, gradient):
        problem, settings = self.start_with_one_that_diverges()
        settings |= dict(start=[1e-60], checkpoints=True, gradient=gradient)
        ensemble = train_ensemble(problem, range(30), **settings)
        del settings["checkpoints"]
        ends = set()
        for seed in range(30):
            run = train(problem, seed=seed, **settings)
            n = run.epochs
            ends.add(n)
            assert_allclose(ensemble.checkpoints[seed, : n + 1], run.checkpoints, rtol=1e-12)
            assert_allclose(ensemble.running_loss[seed, :n], run.history.running_loss, rtol=1e-12)
            if run.reason == "diverged":
                assert not np.isfinite(ensemble.running_loss[seed, n])
                assert np.isnan(ensemble.weights[seed]).all()
                assert np.isnan(ensemble.checkpoints[seed, n + 1 :]).all()
                for name in ALONG:
                    assert np.isnan(getattr(ensemble, name)[seed, n + 1 :]).all()
                for name in AT_ENDS:
                    assert np.isnan(getattr(ensemble, name)[seed, n:]).all()
        assert len(ends) > 2
        without = train_ensemble(problem, range(30), **settings)
        assert_array_equal(np.isnan(without.weights), np.isnan(ensemble.weights))

    def test_the_epoch_it_diverged_in_is_found_and_no_later_epoch_counts(self):
        problem = LeastSquares([[1.0], [1.0]], [0.0, 0.0])
        ensemble = train_ensemble(
            problem, range(2), step_size=1e80, batch_size=1, max_epochs=6, start=[1.0]
        )
        assert_array_equal(ensemble.epochs_to(diverged()), [2, 2])
        assert_array_equal(ensemble.epochs_to(epochs_reached(3)), [np.nan, np.nan])
        assert_array_equal(ensemble.epochs_to(epochs_reached(2)), [2, 2])
        assert_array_equal(ensemble.epochs_to(no_improvement(3)), [np.nan, np.nan])
        assert repr(ensemble) == "Ensemble(2 replicas, 6 epochs, 2 diverged)"


@pytest.fixture(scope="module")
def ensemble():
    return train_ensemble(noisy_line(), range(12), step_size=0.02, batch_size=4, max_epochs=30)


class TestEpochsTo:
    @pytest.mark.parametrize(
        "rule",
        [
            running_loss_below(1.24),
            mean_batch_loss_below(1.23),
            last_batch_loss_below(0.5),
            no_improvement(3),
            no_improvement(2, 0.01, "last_batch_loss"),
            running_loss_below(1e-9) | last_batch_loss_below(0.3),
        ],
        ids=repr,
    )
    def test_it_is_where_train_stops(self, ensemble, rule):
        found = ensemble.epochs_to(rule)
        settings = dict(step_size=0.02, batch_size=4, max_epochs=30, stop=rule)
        for seed in range(12):
            run = train(noisy_line(), seed=seed, **settings)
            expected = run.epochs if run.converged else np.nan
            assert_array_equal(found[seed], expected)
        assert np.isfinite(found).any()

    @pytest.mark.parametrize(
        ("rule", "quantity"),
        [
            (empirical_risk_below(1.227), "empirical_risk"),
            (full_gradient_norm_below(0.05), "full_gradient_norm"),
            (path_gradient_norm_below(0.05), "path_gradient_norm"),
        ],
    )
    def test_it_is_the_first_epoch_below_a_threshold(self, ensemble, rule, quantity):
        epsilon = float(rule.name.split("(")[1][:-1])
        for row, found in zip(getattr(ensemble, quantity), ensemble.epochs_to(rule), strict=True):
            assert found == next(e for e, value in enumerate(row, start=1) if value < epsilon)

    def test_it_is_nan_where_the_rule_never_holds(self, ensemble):
        never = ensemble.epochs_to(running_loss_below(1e-9))
        assert never.dtype == np.float64
        assert_array_equal(never, np.full(12, np.nan))
        assert_array_equal(ensemble.epochs_to(epochs_reached(7)), np.full(12, 7))

    def test_what_was_not_recorded_is_named(self):
        ensemble = train_ensemble(network(nn.MSELoss()), range(2), step_size=0.1, max_epochs=2)
        assert ensemble.full_gradient_norm is None
        with pytest.raises(
            ValueError, match=r"recorded, running_loss, mean_batch_loss, .*needs ful"
        ):
            ensemble.epochs_to(running_loss_below(0.1) | full_gradient_norm_below(0.1))

    def test_what_is_not_a_rule_is_refused(self, ensemble):
        with pytest.raises(TypeError, match=r"rule must be a stopping rule .*, got 0.1"):
            ensemble.epochs_to(0.1)


def test_decreasing_step_sizes_are_a_function_of_the_step():
    settings = dict(step_size=lambda step: 0.1 / (1 + step), batch_size=4)
    for optimizer in ("sgd", MOMENTUM):
        ensemble = train_ensemble(noisy_line(), range(70), optimizer, max_epochs=3, **settings)
        run = train(noisy_line(), optimizer, max_epochs=3, seed=69, **settings)
        assert_allclose(ensemble.weights[69], run.weights, rtol=1e-12)


def test_a_step_size_function_is_asked_once_a_step_and_checked():
    asked = []

    def step_size(step):
        asked.append(step)
        return 0.1 if step < 5 else -1

    with pytest.raises(ValueError, match="step_size must be positive and finite, got -1"):
        train_ensemble(noisy_line(), range(3), step_size=step_size, max_epochs=2, batch_size=4)
    assert asked == list(range(6))


@pytest.mark.parametrize("gradient", ["closed form", "autograd"])
def test_a_full_batch_makes_one_step_an_epoch(gradient):
    settings = dict(step_size=0.05, batch_size=None, start=[1.0, -2.0, 0.5])
    ensemble = train_ensemble(noisy_line(), range(2), max_epochs=4, gradient=gradient, **settings)
    run = train(noisy_line(), max_epochs=4, **settings)
    assert_allclose(ensemble.running_loss, [run.history.loss] * 2, rtol=1e-12)
    assert_allclose(ensemble.weights, [run.weights] * 2, rtol=1e-12)


def test_checkpoints_run_from_the_start_to_the_end():
    settings = dict(step_size=0.05, max_epochs=4, batch_size=10, start=[1, 2, 3])
    ensemble = train_ensemble(noisy_line(), range(3), checkpoints=True, **settings)
    assert ensemble.checkpoints.shape == (3, 5, 3)
    assert_array_equal(ensemble.checkpoints[:, 0], [[1, 2, 3]] * 3)
    assert_array_equal(ensemble.checkpoints[:, -1], ensemble.weights)
    risk = noisy_line().empirical_risk(ensemble.checkpoints[:, 1:])
    assert_allclose(ensemble.empirical_risk, risk, rtol=1e-14)
    assert train_ensemble(noisy_line(), [0], step_size=0.05, max_epochs=1).checkpoints is None


@pytest.mark.parametrize("make", [noisy_line, lambda: network(nn.MSELoss())])
def test_the_random_state_and_the_model_are_left_alone(make):
    problem = make()
    before, model = torch.get_rng_state(), copy.deepcopy(problem.model.state_dict())
    train_ensemble(problem, range(3), step_size=0.05, max_epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    for name, value in problem.model.state_dict().items():
        assert torch.equal(value, model[name])
    assert all(parameter.grad is None for parameter in problem.model.parameters())


def test_an_ensemble_says_how_large_it_is():
    ensemble = train_ensemble(noisy_line(), range(3), step_size=0.05, max_epochs=2)
    assert repr(ensemble) == "Ensemble(3 replicas, 2 epochs, 0 diverged)"


@pytest.mark.parametrize(("environment", "shown"), [({}, True), ({"CI": "1"}, False)])
def test_the_progress_bar_is_shown_when_wanted_and_never_in_ci(environment, shown):
    code = (
        "from sgd_analysis import LeastSquares, train_ensemble\n"
        "line = LeastSquares([[1.0]] * 4, [1.0] * 4)\n"
        "train_ensemble(line, range(3), step_size=0.1, max_epochs=5, batch_size=2, progress=True)"
    )
    inherited = {k: v for k, v in os.environ.items() if k not in ("CI", "TQDM_DISABLE")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ("15/15" in done.stderr) == shown


class Branches(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) if inputs.sum() > 0 else -super().forward(inputs)


NOT_A_LINE = FiniteSum(nn.Linear(2, 1), nn.MSELoss(), torch.ones(12, 2), torch.ones(12, 1))


def with_model(model):
    return FiniteSum(model, nn.MSELoss(), torch.ones(12, 2), torch.ones(12, 1))


@pytest.mark.parametrize(
    ("problem", "change", "error", "message"),
    [
        ("line", {}, TypeError, "problem must be a FiniteSum or a LeastSquares, got str"),
        (None, {"optimizer": "adam"}, ValueError, "optimizer must be \"sgd\", .*got 'adam'"),
        (None, {"optimizer": nn.Linear}, TypeError, 'optimizer must be "sgd"'),
        (None, {"seeds": []}, ValueError, "seeds must hold at least one seed, got none"),
        (None, {"seeds": 7}, TypeError, r"seeds must be integers, .*range\(1024\), got 7"),
        (None, {"seeds": [0, -1]}, ValueError, r"seeds\[1\] must be between 0 and .*, got -1"),
        (None, {"seeds": [0.5]}, TypeError, r"seeds\[0\] must be an integer, got 0.5"),
        (None, {"step_size": 0}, ValueError, "step_size must be positive and finite, got 0"),
        (None, {"batch_size": 24}, ValueError, r"between 1 and 23 \(the number of samples\)"),
        (None, {"batch_size": 0}, ValueError, r"between 1 and 23 \(the number of samples\)"),
        (None, {"max_epochs": 0}, ValueError, "max_epochs must be at least 1, got 0"),
        (None, {"memory": 0}, ValueError, "memory must be at least 1, got 0"),
        (None, {"order": "random"}, ValueError, "order must be one of .*, got 'random'"),
        (None, {"start": [1.0]}, ValueError, r"start must have shape \(3,\)"),
        (None, {"start": [np.nan] * 3}, ValueError, "start must be finite"),
        (
            None,
            {"gradient": "exact"},
            ValueError,
            r'gradient must be "autograd" or "closed form", got .exact',
        ),
        (NOT_A_LINE, {"gradient": "closed form"}, ValueError, "needs a LeastSquares.*FiniteSum"),
        (
            with_model(nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))),
            {},
            ValueError,
            r"torch.vmap .* no random numbers \(dropout in training mode\)",
        ),
        (
            with_model(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))),
            {},
            ValueError,
            r"torch.vmap .* no buffers that change \(batch norm in training mode\)",
        ),
        (with_model(Branches(2, 1)), {}, ValueError, "torch.vmap .* no Python branches on values"),
        (
            FiniteSum(nn.Linear(2, 1), nn.MSELoss(), torch.ones(12, 2), torch.ones(12)),
            {},
            ValueError,
            r"predictions and targets must have the same shape, got \(12, 1\) and \(12,\)",
        ),
        (
            FiniteSum(
                nn.Linear(2, 1), lambda p, y: (p - y) ** 2, torch.ones(12, 2), torch.ones(12, 1)
            ),
            {},
            ValueError,
            r"criterion must return a scalar tensor, .* got shape \(12, 1\)",
        ),
        (
            FiniteSum(
                nn.Linear(2, 1),
                lambda p, y: (p.detach() - y).square().mean(),
                torch.ones(12, 2),
                torch.ones(12, 1),
            ),
            {},
            ValueError,
            "criterion must return a loss that depends on the weights",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(problem, change, error, message):
    problem = noisy_line() if problem is None else problem
    with pytest.raises(error, match=message):
        train_ensemble(problem, **({"seeds": range(2), "step_size": 0.1, "max_epochs": 2} | change))
