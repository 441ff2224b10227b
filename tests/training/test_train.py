import copy
import functools
import itertools
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    last_batch_loss_below,
    loss_gap,
    quadratic_fit,
    record,
    running_loss_below,
    shuffle_once,
    survey,
    train,
)
from sgd_analysis.orders import ORDERS, batches
from sgd_analysis.training import loop
from tests.training.trained_problems import STEP_SIZE, by_hand, mean_of_squares, network_problem


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

    def test_the_notebooks_sub_form_rounds_once_more_and_stops_at_the_same_epoch(self, runs):
        losses, weights = source_notebooks_loop(lambda w, g: w.sub_(STEP_SIZE * g))
        assert len(losses) == 9340
        # Losses of order one, computed in float32 from weights that differ by an ulp where the
        # processor multiplies and adds in one instruction, and not at all elsewhere.
        assert_allclose(losses, runs["by hand"].history.loss, rtol=2e-5)
        assert_allclose(weights, runs["by hand"].weights, rtol=1e-6)


def dataloader_loop(
    problem, optimizer_class, batch_size, shuffle, epochs, seed, loading=None, **options
):
    """The tutorial loop: the oracle for `train`."""
    model = copy.deepcopy(problem.model)
    optimizer = optimizer_class(model.parameters(), **options)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = TensorDataset(problem.inputs, problem.targets)
        loading = {"shuffle": shuffle} if loading is None else loading(data)
        loader = DataLoader(data, batch_size=batch_size, **loading)
        for _ in range(epochs):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = problem.criterion(model(inputs), targets)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    return losses, [p.detach().numpy() for p in model.parameters()]


@pytest.mark.parametrize("order", ["reshuffle", "cyclic"])
@pytest.mark.parametrize(
    ("optimizer", "oracle", "options"),
    [
        ("sgd", torch.optim.SGD, {}),
        (torch.optim.SGD, torch.optim.SGD, {}),
        (torch.optim.Adam, torch.optim.Adam, {}),
        (torch.optim.RMSprop, torch.optim.RMSprop, {}),
        (
            functools.partial(torch.optim.AdamW, betas=(0.5, 0.9)),
            torch.optim.AdamW,
            {"betas": (0.5, 0.9)},
        ),
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


SEEDS_BY_AUTOGRAD = (0, 7, 19)


@pytest.mark.parametrize("seed", range(20))
def test_mini_batches_on_the_source_notebooks_problem_stop_at_epoch_48(seed):
    settings = dict(
        step_size=STEP_SIZE, batch_size=10, max_epochs=50, stop=running_loss_below(0.1), seed=seed
    )
    run = train(quadratic_fit(), **settings, gradient="closed form")
    assert (run.epochs, run.steps) == (48, 9600)
    assert run.history.running_loss[-1] < 0.1 <= run.history.running_loss[:-1].min()
    if seed in SEEDS_BY_AUTOGRAD:
        by_autograd = train(quadratic_fit(), **settings)
        assert (by_autograd.epochs, by_autograd.steps) == (48, 9600)
        # Residuals of about 0.3 are differences of values up to 50, in float32.
        assert_allclose(run.history.running_loss, by_autograd.history.running_loss, rtol=1e-5)
        assert_allclose(run.checkpoints, by_autograd.checkpoints, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("optimizer", "step_size"),
    [(torch.optim.RMSprop, 0.01), (torch.optim.Adam, 0.1), (torch.optim.SGD, STEP_SIZE)],
)
def test_the_source_notebooks_mini_batches_follow_torch_optim_bit_for_bit(
    optimizer, step_size, seed
):
    problem = quadratic_fit()
    run = train(problem, optimizer, step_size=step_size, batch_size=10, max_epochs=4, seed=seed)
    losses, weights = dataloader_loop(
        problem, optimizer, 10, True, epochs=4, seed=seed, lr=step_size
    )
    assert_array_equal(run.history.loss, losses)
    assert_array_equal(run.weights, weights[0])


def test_rmsprop_stops_by_the_loss_of_the_last_batch_as_the_notebooks_loop_does():
    problem, epsilon = quadratic_fit(), 0.01
    losses, _ = dataloader_loop(problem, torch.optim.RMSprop, 10, True, epochs=30, seed=0, lr=0.01)
    last = np.array(losses[199::200])
    assert (last < epsilon).any()
    run = train(
        problem,
        torch.optim.RMSprop,
        step_size=0.01,
        batch_size=10,
        max_epochs=30,
        stop=last_batch_loss_below(epsilon),
    )
    assert run.epochs == 1 + np.argmax(last < epsilon)
    assert run.reason == "last_batch_loss_below(0.01)"


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    ("order", "loading"),
    [
        ("cyclic", {"shuffle": False}),
        ("reshuffle", {"shuffle": True}),
        ("with_replacement", {}),
    ],
)
def test_an_order_gives_the_batches_of_a_dataloader(order, loading, drop_last):
    problem = network_problem(dropout=0.5)

    def options(data):
        sampler = {} if loading else {"sampler": RandomSampler(data, replacement=True)}
        return loading | sampler | {"drop_last": drop_last}

    run = train(
        problem,
        step_size=0.05,
        batch_size=10,
        order=order,
        drop_last=drop_last,
        max_epochs=3,
        seed=9,
    )
    losses, weights = dataloader_loop(
        problem, torch.optim.SGD, 10, None, epochs=3, seed=9, loading=options, lr=0.05
    )
    assert_array_equal(run.history.loss, losses)
    assert_array_equal(run.weights, np.concatenate([w.ravel() for w in weights]))
    assert_array_equal(run.history.n_samples, ([10] * 5 + [3] * (not drop_last)) * 3)


@pytest.mark.parametrize("gradient", ["autograd", "closed form"])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 12, 13])
@pytest.mark.parametrize("order", [*ORDERS, shuffle_once])
def test_every_order_is_followed_batch_by_batch(order, batch_size, drop_last, gradient):
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(13, 2)), rng.normal(size=13)
    run = train(
        LeastSquares(features, targets),
        step_size=0.1,
        batch_size=batch_size,
        order=order,
        drop_last=drop_last,
        max_epochs=3,
        seed=4,
        gradient=gradient,
    )
    visits = ORDERS.get(order, order)(13, batch_size, torch.Generator().manual_seed(4))
    w, losses, sizes = np.zeros(2), [], []
    for indices in itertools.islice(visits, 3):
        for batch in batches(indices, batch_size, drop_last=drop_last):
            batch = batch.numpy()
            residual = features[batch] @ w - targets[batch]
            losses.append((residual**2).mean())
            sizes.append(len(batch))
            w = w - 0.1 * 2 / len(batch) * features[batch].T @ residual
    assert_allclose(run.history.loss, losses, rtol=1e-12)
    assert_array_equal(run.history.n_samples, sizes)
    assert_allclose(run.weights, w, rtol=1e-12)


@pytest.mark.parametrize("gradient", ["autograd", "closed form"])
def test_without_a_batch_size_an_epoch_is_one_step_over_all_samples(gradient):
    problem = quadratic_fit()
    settings = dict(step_size=STEP_SIZE, max_epochs=3, gradient=gradient)
    run = train(problem, **settings, order="with_replacement")
    whole = train(problem, **settings, order="cyclic", batch_size=2000)
    assert_array_equal(run.history.n_samples, [2000] * 3)
    assert_allclose(run.history.loss, whole.history.loss, rtol=1e-6)


class TestTheHistory:
    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
    def test_it_is_what_a_recorder_attached_to_the_tutorial_loop_records(self, optimizer):
        problem = network_problem(dropout=0.5)
        run = train(problem, optimizer, step_size=0.01, batch_size=10, max_epochs=3, seed=5)
        model = copy.deepcopy(problem.model)
        attached = optimizer(model.parameters(), lr=0.01)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            loader = DataLoader(
                TensorDataset(problem.inputs, problem.targets), batch_size=10, shuffle=True
            )
            with record(attached, problem.criterion, steps_per_epoch=6) as recorder:
                for inputs, targets in itertools.chain.from_iterable([loader] * 3):
                    attached.zero_grad()
                    problem.criterion(model(inputs), targets).backward()
                    attached.step()
        expected = recorder.history
        for name in ("loss", "n_samples", "epoch", "step_size", "gradient", "gradient_norm"):
            assert_array_equal(getattr(run.history, name), getattr(expected, name))
        assert_array_equal(run.history.path_gradient, expected.path_gradient)
        assert run.history.metadata["criteria"] == expected.metadata["criteria"]
        assert run.history.metadata["optimizer"] == optimizer.__name__

    def test_a_criterion_that_is_a_function_is_recorded_as_a_module_is(self):
        p = quadratic_fit()
        settings = dict(step_size=STEP_SIZE, batch_size=10, max_epochs=1)
        module, function = (train(problem, **settings) for problem in (p, by_hand(p)))
        assert_array_equal(module.history.loss, function.history.loss)
        assert_array_equal(module.history.gradient, function.history.gradient)

    def test_an_update_is_the_step_size_times_the_recorded_gradient(self):
        run = train(quadratic_fit(), step_size=STEP_SIZE, max_epochs=5)
        moved = run.checkpoints[:-1] - np.float32(STEP_SIZE) * run.history.gradient
        assert_allclose(run.checkpoints[1:], moved, rtol=1e-6)

    def test_a_later_loop_of_ones_own_can_continue_it(self):
        run = train(network_problem(), step_size=0.1, batch_size=10, max_epochs=2)
        optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
        with record(optimizer, history=run.history) as recorder:
            run.model(torch.ones(1, 4)).sum().backward()
            recorder.observe(1.0, 1)
            optimizer.step()
        assert recorder.history.n_steps == run.steps + 1

    def test_gradients_that_do_not_fit_are_left_out_without_a_warning(self, monkeypatch):
        settings = dict(step_size=0.1, batch_size=10, max_epochs=3)
        whole = train(network_problem(), **settings).history
        bounded = functools.partial(record, memory=9 * whole.gradient[0].nbytes)
        monkeypatch.setattr(loop, "record", bounded)
        history = train(network_problem(), **settings).history
        assert_array_equal(history.gradients.kept, whole.gradient[:9])
        assert_allclose(history.path_gradient_norm, whole.path_gradient_norm, rtol=1e-5)
        with pytest.raises(ValueError, match="kept for the first 9 of these 18 steps only"):
            _ = history.gradient

    def test_ones_own_warnings_still_come_through(self):
        def criterion(predictions, targets):
            warnings.warn("of one's own", stacklevel=1)
            return mean_of_squares(predictions, targets)

        p = quadratic_fit()
        problem = FiniteSum(p.model, criterion, p.inputs, p.targets)
        with pytest.warns(UserWarning, match="of one's own"):
            train(problem, step_size=STEP_SIZE, max_epochs=1)


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


def test_a_step_size_function_is_asked_once_a_step():
    asked = []
    train(
        quadratic_fit(),
        step_size=lambda k: asked.append(k) or STEP_SIZE,
        batch_size=1000,
        max_epochs=3,
        stop=running_loss_below(1e-9),
    )
    assert asked == list(range(6))


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

    @pytest.mark.parametrize("gradient", ["autograd", "closed form"])
    def test_after_an_order_that_ends(self, gradient):
        def two_epochs(n_samples, batch_size, generator):
            yield from [torch.arange(n_samples)] * 2

        with pytest.raises(ValueError, match="it ended after 2 epochs") as error:
            train(
                quadratic_fit(),
                step_size=1e-5,
                batch_size=1000,
                max_epochs=50,
                order=two_epochs,
                gradient=gradient,
            )
        run = error.value.run
        assert (run.epochs, run.steps, len(run.checkpoints)) == (2, 4, 3)
        assert_array_equal(run.weights, run.checkpoints[-1])

    @pytest.mark.parametrize("gradient", ["autograd", "closed form"])
    def test_before_the_first_step(self, gradient):
        def no_epoch(n_samples, batch_size, generator):
            yield from ()

        with pytest.raises(ValueError, match="it ended after 0 epochs") as error:
            train(
                quadratic_fit(),
                step_size=1e-5,
                batch_size=10,
                max_epochs=50,
                order=no_epoch,
                gradient=gradient,
            )
        run = error.value.run
        assert (run.epochs, run.steps, run.history.n_steps) == (0, 0, 0)
        assert_array_equal(run.checkpoints, [[0, 0, 0]])


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

    @pytest.mark.parametrize("gradient", ["autograd", "closed form"])
    @pytest.mark.parametrize("optimizer", ["sgd", torch.optim.SGD])
    def test_a_step_size_past_the_range_of_the_weights_ends_as_diverged(self, optimizer, gradient):
        run = train(quadratic_fit(), optimizer, step_size=1e38, max_epochs=5, gradient=gradient)
        assert run.reason == "diverged"

    def test_a_loss_that_is_not_finite_leads_to_no_update_and_has_its_gradient_recorded(self):
        problem = LeastSquares(np.ones((40, 1), "f"), np.zeros(40, "f"))
        momentum = functools.partial(torch.optim.SGD, momentum=0.5)
        run = train(problem, momentum, step_size=20, batch_size=10, max_epochs=50, start=[1.0])
        assert run.reason == "diverged"
        assert np.isfinite(run.weights).all()
        assert run.history.gradient.shape == (run.steps + 1, 1)


def test_a_batch_counts_for_as_much_as_its_criterion_divides_by():
    """So that a run of several outputs and a survey of its samples agree on their number."""
    rng = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(50, 3, generator=rng), torch.randn(50, 2, generator=rng)
    problem = FiniteSum(torch.nn.Linear(3, 2), torch.nn.MSELoss(), inputs, targets)
    run = train(problem, step_size=0.1, batch_size=8, max_epochs=2)
    assert_array_equal(run.history[0].denominator, [16] * 6 + [4])
    assert_array_equal(run.history[0].n_samples, [8] * 6 + [2])
    data = list(zip(inputs.split(8), targets.split(8), strict=True))
    gap = loss_gap(run.history[-1], survey(run.model, problem.criterion, data))
    parts = gap.weighting + gap.drift + gap.mode
    assert_allclose(gap.mean_batch_loss - gap.empirical_risk, parts, rtol=1e-12, atol=1e-15)
