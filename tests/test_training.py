import copy
import functools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    last_batch_loss_below,
    quadratic_fit,
    running_loss_below,
    train,
)

STEP_SIZE = 0.0002


def mean_of_squares(predictions, targets):
    return torch.mean((targets - predictions) ** 2)


def by_hand(problem):
    return FiniteSum(problem.model, mean_of_squares, problem.inputs, problem.targets)


def source_notebooks_loop(update, epsilon=0.1, max_epochs=10_000):
    """Gradient descent as the source notebook describes it, with the update left open."""
    problem = quadratic_fit()
    x, y = problem.inputs, problem.targets
    w = torch.zeros(3, requires_grad=True)
    losses = []
    for _ in range(max_epochs):
        loss = mean_of_squares(w[0] * x * x + w[1] * x + w[2], y)
        loss.backward()
        with torch.no_grad():
            update(w, w.grad)
            w.grad.zero_()
        losses.append(loss.item())
        if losses[-1] < epsilon:
            break
    return np.array(losses), w.detach().numpy()


@pytest.fixture(scope="module")
def runs():
    """The source notebook's gradient descent in its three forms, each to the end."""
    problem = quadratic_fit()
    settings = dict(step_size=STEP_SIZE, max_epochs=10_000, stop=running_loss_below(0.1))
    return {
        "by hand": train(by_hand(problem), **settings),
        "MSELoss": train(problem, **settings),
        "torch.optim.SGD": train(problem, torch.optim.SGD, **settings),
    }


class TestGradientDescentOfTheSourceNotebook:
    def test_it_stops_at_epoch_9340(self, runs):
        for run in runs.values():
            assert (run.epochs, run.steps, run.converged) == (9340, 9340, True)
            assert run.reason == "running_loss_below(0.1)"
            assert run.history.running_loss[-1] < 0.1 <= run.history.running_loss[-2]

    def test_its_three_forms_have_bit_identical_traces(self, runs):
        for run in runs.values():
            assert_array_equal(run.history.loss, runs["by hand"].history.loss)
            assert_array_equal(run.checkpoints, runs["by hand"].checkpoints)

    def test_it_ends_with_the_weights_the_notebooks_method_gives(self, runs):
        losses, weights = source_notebooks_loop(lambda w, g: w.add_(g, alpha=-STEP_SIZE))
        assert_array_equal(runs["by hand"].history.loss, losses)
        assert_array_equal(runs["by hand"].weights, weights)

    def test_the_notebooks_sub_form_differs_in_the_last_bit_and_stops_at_the_same_epoch(self, runs):
        losses, weights = source_notebooks_loop(lambda w, g: w.sub_(STEP_SIZE * g))
        assert len(losses) == 9340
        assert not np.array_equal(losses, runs["by hand"].history.loss)
        # Losses of order one, computed in float32 from weights that differ by an ulp.
        assert_allclose(losses, runs["by hand"].history.loss, rtol=2e-5)
        assert_allclose(weights, runs["by hand"].weights, rtol=1e-6)


def dataloader_loop(problem, optimizer_class, batch_size, shuffle, epochs, seed, **options):
    """The tutorial loop: the oracle for `train`."""
    model = copy.deepcopy(problem.model)
    optimizer = optimizer_class(model.parameters(), **options)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = TensorDataset(problem.inputs, problem.targets)
        loader = DataLoader(data, batch_size=batch_size, shuffle=shuffle)
        for _ in range(epochs):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = problem.criterion(model(inputs), targets)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    return losses, [p.detach().numpy() for p in model.parameters()]


def network_problem(dropout=0.0):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(53, 4, generator=generator)
    targets = torch.randint(3, (53,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(8, 3)
        )
    return FiniteSum(model, torch.nn.CrossEntropyLoss(), inputs, targets)


@pytest.mark.parametrize("order", ["reshuffle", "cyclic"])
@pytest.mark.parametrize(
    ("optimizer", "oracle", "options"),
    [
        ("sgd", torch.optim.SGD, {}),
        (torch.optim.SGD, torch.optim.SGD, {}),
        (torch.optim.Adam, torch.optim.Adam, {}),
        (functools.partial(torch.optim.SGD, momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_train_equals_the_tutorial_loop_bit_for_bit(order, optimizer, oracle, options):
    problem = network_problem(dropout=0.5)
    run = train(
        problem, optimizer, step_size=0.01, batch_size=10, order=order, max_epochs=3, seed=5
    )
    losses, weights = dataloader_loop(
        problem, oracle, 10, order == "reshuffle", epochs=3, seed=5, lr=0.01, **options
    )
    assert_array_equal(run.history.loss, losses)
    assert_array_equal(run.weights, np.concatenate([w.ravel() for w in weights]))
    assert_array_equal(run.history.n_samples, [10, 10, 10, 10, 10, 3] * 3)
    assert (run.epochs, run.steps) == (3, 18)


def test_mini_batches_on_the_source_notebooks_problem_stop_at_epoch_48():
    run = train(
        quadratic_fit(),
        step_size=STEP_SIZE,
        batch_size=10,
        max_epochs=50,
        stop=running_loss_below(0.1),
    )
    assert (run.epochs, run.steps) == (48, 9600)


def test_training_leaves_the_problem_and_the_random_state_alone():
    problem = network_problem(dropout=0.5)
    start, state = problem.start, torch.random.get_rng_state()
    train(problem, step_size=0.1, batch_size=7, max_epochs=2)
    assert_array_equal(problem.start, start)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    settings = dict(step_size=0.1, batch_size=7, max_epochs=2)
    first, same = (train(network_problem(0.5), **settings, seed=3) for _ in range(2))
    other = train(network_problem(0.5), **settings, seed=4)
    assert_array_equal(first.history.loss, same.history.loss)
    assert not np.array_equal(first.history.loss, other.history.loss)


def test_checkpoints_hold_the_start_and_the_weights_after_each_epoch():
    problem = quadratic_fit()
    run = train(problem, step_size=STEP_SIZE, max_epochs=4, start=[1, 2, 3])
    assert_array_equal(run.checkpoints[0], [1, 2, 3])
    assert_array_equal(run.checkpoints[-1], run.weights)
    # Each batch's loss is the one before its own update, in float32.
    assert_allclose(run.history.loss, problem.empirical_risk(run.checkpoints[:-1]), rtol=1e-5)


def test_a_step_size_may_depend_on_the_step():
    problem = quadratic_fit()
    etas = []

    def step_size(k):
        return STEP_SIZE / (k + 1)

    for optimizer in ("sgd", torch.optim.SGD):
        run = train(problem, optimizer, step_size=step_size, batch_size=1000, max_epochs=2)
        assert_allclose(run.history.step_size[:, 0], STEP_SIZE / np.arange(1, 5))
        etas.append(run.weights)
    assert_array_equal(*etas)


def test_parameters_that_take_no_part_in_the_loss_are_left_alone():
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(1, 1), "unused": torch.nn.Linear(1, 1)})
    model.forward = model["used"].forward
    problem = FiniteSum(model, torch.nn.MSELoss(), torch.ones(4, 1), torch.zeros(4, 1))
    run = train(problem, step_size=0.1, max_epochs=2)
    assert_array_equal(run.weights[2:], problem.start[2:])
    assert not np.array_equal(run.weights[:2], problem.start[:2])


@pytest.mark.parametrize("source", ["an array", "the minimiser", "a checkpoint"])
def test_training_in_float64_does_not_write_to_the_start_it_was_given(source):
    problem = LeastSquares(np.eye(3), np.ones(3))
    before = train(problem, step_size=0.1, max_epochs=3)
    given = {
        "an array": np.full(3, 2.0),
        "the minimiser": problem.minimiser,
        "a checkpoint": before.checkpoints[1],
    }[source]
    copy_of_start = given.copy()
    run = train(problem, step_size=0.1, max_epochs=3, start=given)
    assert_array_equal(given, copy_of_start)
    assert_array_equal(run.checkpoints[0], copy_of_start)


def test_parameters_of_several_dtypes_keep_them():
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.in_single = torch.nn.Parameter(torch.zeros(1))
            self.in_double = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, inputs):
            return inputs * self.in_single * self.in_double

    problem = FiniteSum(Mixed(), torch.nn.MSELoss(), torch.ones(2), torch.ones(2).double())
    run = train(problem, step_size=0.1, max_epochs=1, start=[1.0, 0.5])
    assert [p.dtype for p in run.model.parameters()] == [torch.float32, torch.float64]


def test_training_works_inside_no_grad():
    with torch.no_grad():
        run = train(quadratic_fit(), step_size=STEP_SIZE, max_epochs=2)
    assert run.history.loss[1] < run.history.loss[0]


def test_an_order_of_ones_own_decides_what_each_batch_holds():
    def backwards(n_samples, batch_size, generator):
        while True:
            yield torch.arange(n_samples - 1, -1, -1)

    problem = LeastSquares(np.ones((4, 1)), [1.0, 2.0, 3.0, 4.0])
    run = train(problem, step_size=1e-12, batch_size=2, max_epochs=1, order=backwards)
    assert_allclose(run.history.loss, [(16 + 9) / 2, (4 + 1) / 2])


class TestWhatWasRecordedIsKept:
    """Whatever ends a run by an exception finds its first five steps in the exception."""

    def check(self, error):
        assert error.value.run.history.n_steps == 5
        assert error.value.run.history.n_epochs == 2
        assert len(error.value.run.checkpoints) == 3
        assert any("5 steps" in note for note in error.value.__notes__)

    def test_after_an_interrupt(self):
        calls = iter(range(100))

        def interrupted(predictions, targets):
            if next(calls) == 5:
                raise KeyboardInterrupt
            return mean_of_squares(predictions, targets)

        p = quadratic_fit()
        problem = FiniteSum(p.model, interrupted, p.inputs, p.targets)
        with pytest.raises(KeyboardInterrupt) as error:
            train(problem, step_size=STEP_SIZE, batch_size=1000, max_epochs=50)
        self.check(error)
        assert error.value.run.reason == "KeyboardInterrupt"

    def test_after_a_step_size_that_is_not_a_number(self):
        def step_size(k):
            return STEP_SIZE if k < 5 else float("nan")

        with pytest.raises(ValueError, match="step_size must be positive and finite") as error:
            train(quadratic_fit(), step_size=step_size, batch_size=1000, max_epochs=50)
        self.check(error)

    def test_after_an_order_that_ends(self):
        def two_epochs(n_samples, batch_size, generator):
            yield from [torch.arange(n_samples)] * 2

        with pytest.raises(ValueError, match="it ended after 2 epochs") as error:
            train(quadratic_fit(), step_size=1e-5, batch_size=1000, max_epochs=50, order=two_epochs)
        assert error.value.run.epochs == 2


class TestTheEndOfARun:
    def test_out_of_epochs(self):
        run = train(quadratic_fit(), step_size=STEP_SIZE, max_epochs=3, stop=running_loss_below(1))
        assert (run.epochs, run.converged, run.reason) == (3, False, "max_epochs")
        assert repr(run) == "Run('max_epochs' after 3 epochs, 3 steps)"

    def test_the_rule_that_held_is_the_reason(self):
        rules = running_loss_below(1e-9) | last_batch_loss_below(100)
        run = train(quadratic_fit(), step_size=STEP_SIZE, max_epochs=50, stop=rules)
        assert (run.converged, run.reason) == (True, "last_batch_loss_below(100)")

    def test_a_step_size_past_the_limit_ends_as_diverged_with_all_that_was_recorded(self):
        problem = quadratic_fit()
        run = train(problem, step_size=1.2 * problem.largest_stable_step_size, max_epochs=1000)
        assert (run.converged, run.reason) == (False, "diverged")
        assert run.epochs == run.steps == run.history.n_steps - 1
        assert np.isfinite(run.history.loss[:-1]).all()
        assert not np.isfinite(run.history.loss[-1])
        assert len(run.checkpoints) == run.epochs + 1
        assert np.isfinite(run.checkpoints[:-1]).all()
        assert_array_equal(run.weights, run.checkpoints[-1])

    def test_a_run_that_diverges_within_an_epoch_keeps_the_finished_ones(self):
        problem = LeastSquares(np.ones((40, 1), "f"), np.zeros(40, "f"))
        run = train(problem, step_size=20, batch_size=10, max_epochs=50, start=[1.0])
        assert run.reason == "diverged"
        assert run.history.n_epochs == run.epochs == run.history.epoch[-1]
        assert len(run.history.running_loss) == run.epochs

    def test_just_below_the_limit_the_loss_falls_and_just_above_it_the_run_diverges(self):
        problem = quadratic_fit()
        limit = problem.largest_stable_step_size
        below = train(problem, step_size=0.98 * limit, max_epochs=1000)
        above = train(problem, step_size=1.02 * limit, max_epochs=1000)
        assert below.reason == "max_epochs"
        assert np.diff(below.history.loss).max() < 0
        assert above.reason == "diverged"

    def test_a_weight_that_is_not_finite_ends_the_run_as_diverged_and_not_as_converged(self):
        # The square root of zero: the loss is 0, its gradient is not a number.
        p = LeastSquares([[1.0]], [1.0])
        problem = FiniteSum(p.model, lambda a, b: mean_of_squares(a, b).sqrt(), p.inputs, p.targets)
        stop = running_loss_below(0.1)
        run = train(problem, step_size=0.1, max_epochs=5, start=[1.0], stop=stop)
        assert (run.converged, run.reason) == (False, "diverged")
        assert (run.epochs, run.steps) == (1, 1)

    def test_a_step_size_past_the_range_of_the_weights_ends_as_diverged(self):
        for optimizer in ("sgd", torch.optim.SGD):
            run = train(quadratic_fit(), optimizer, step_size=1e38, max_epochs=5)
            assert run.reason == "diverged"


class TestProgress:
    @pytest.mark.parametrize("variable", [None, "CI", "TQDM_DISABLE"])
    def test_the_bar_shows_the_running_loss_unless_it_is_switched_off(self, variable):
        # In a process of its own, because tqdm reads its switch when it is imported.
        code = (
            "from sgd_analysis import quadratic_fit, train\n"
            f"train(quadratic_fit(), step_size={STEP_SIZE}, max_epochs=2, progress=True)"
        )
        environment = {k: v for k, v in os.environ.items() if k not in {"CI", "TQDM_DISABLE"}}
        environment |= {variable: "1"} if variable else {}
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("running loss" in result.stderr) == (variable is None)
        assert result.stdout == ""

    def test_it_is_silent_by_default(self, capsys):
        train(quadratic_fit(), step_size=STEP_SIZE, max_epochs=2)
        assert capsys.readouterr() == ("", "")


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"step_size": 0}, "step_size must be positive and finite, got 0"),
            ({"step_size": -1.0}, "step_size must be positive and finite, got -1.0"),
            ({"step_size": np.nan}, "step_size must be positive and finite, got nan"),
            ({"step_size": lambda k: -1.0}, "step_size must be positive and finite, got -1.0"),
            ({"batch_size": 0}, r"between 1 and 2000 \(the number of samples\), got 0"),
            ({"batch_size": 2001}, r"between 1 and 2000 \(the number of samples\), got 2001"),
            ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
            ({"optimizer": "sgdd"}, "optimizer must be \"sgd\", a class .* got 'sgdd'"),
            ({"order": "sorted"}, r"order must be one of \['cyclic', 'indep.*got 'sorted'"),
            ({"start": [1.0, 2.0]}, r"start must have shape \(3,\)"),
            ({"start": [1.0, 2.0, np.inf]}, "start must be finite"),
            ({"seed": -1}, "seed must be between 0 and .* got -1"),
        ],
    )
    def test_a_value_out_of_range(self, change, message):
        with pytest.raises(ValueError, match=message):
            train(quadratic_fit(), **{"step_size": STEP_SIZE, "max_epochs": 1} | change)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"step_size": "0.1"}, "step_size must be a number, got '0.1' of type str"),
            ({"batch_size": 2.5}, "batch_size must be an integer, got 2.5 of type float"),
            ({"max_epochs": None}, "max_epochs must be an integer, got None"),
            ({"max_epochs": True}, "max_epochs must be an integer, got True"),
            ({"seed": 1.5}, "seed must be an integer, got 1.5"),
            ({"optimizer": torch.optim.LBFGS}, "one update from one gradient, got LBFGS"),
            ({"optimizer": torch.nn.Linear}, "optimizer must be"),
            ({"optimizer": torch.optim.SGD([torch.ones(1)], lr=1)}, "train makes its own copy"),
            ({"order": 3}, "order must be one of .* got 3"),
            ({"stop": 0.1}, r"a stopping rule such as running_loss_below\(0.1\), got 0.1"),
            ({"problem": torch.ones(3)}, "problem must be a FiniteSum or a LeastSquares"),
        ],
    )
    def test_a_value_of_the_wrong_kind(self, change, message):
        settings = {"problem": quadratic_fit(), "step_size": STEP_SIZE, "max_epochs": 1}
        with pytest.raises(TypeError, match=message):
            train(**settings | change)

    def test_a_criterion_that_returns_one_loss_a_sample(self):
        problem = quadratic_fit()
        many = FiniteSum(problem.model, torch.sub, problem.inputs, problem.targets)
        with pytest.raises(ValueError, match=r"must return a scalar.*got shape \(2000,\)"):
            train(many, step_size=STEP_SIZE, max_epochs=1)

    @pytest.mark.parametrize(
        ("criterion", "message"),
        [
            (lambda a, b: 1.0, "must return a scalar tensor, .* got 1.0"),
            (lambda a, b: mean_of_squares(a, b).detach(), "got one without a gradient"),
        ],
    )
    def test_a_criterion_that_cannot_be_differentiated(self, criterion, message):
        p = quadratic_fit()
        with pytest.raises(ValueError, match=message):
            train(
                FiniteSum(p.model, criterion, p.inputs, p.targets),
                step_size=STEP_SIZE,
                max_epochs=1,
            )

    def test_predictions_that_would_broadcast_against_the_targets(self):
        problem = FiniteSum(
            torch.nn.Linear(2, 1), mean_of_squares, torch.ones(20, 2), torch.ones(20)
        )
        with pytest.raises(ValueError, match=r"same shape, got \(20, 1\) and \(20,\): reshape"):
            train(problem, step_size=0.1, max_epochs=1)
