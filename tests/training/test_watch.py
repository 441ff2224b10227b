"""Rules end a run in the epoch in which they first hold."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import (
    FiniteSum,
    LeastSquares,
    empirical_risk_below,
    full_gradient_norm_below,
    last_batch_loss_below,
    mean_batch_loss_below,
    no_improvement,
    path_gradient_norm_below,
    running_loss_below,
    train,
)
from tests.training.trained_problems import network_problem


def full_pass(model, problem):
    """The global loss and its gradient, on a copy: nothing of the model can change."""
    model = copy.deepcopy(model)
    loss = problem.criterion(model(problem.inputs), problem.targets)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), torch.cat([g.ravel() for g in gradient]).numpy()


def slow_series(problem, step_size, batch_size, epochs, seed):
    """Each quantity that a rule may look at, epoch by epoch, from the tutorial loop."""
    model = copy.deepcopy(problem.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=step_size)
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = TensorDataset(problem.inputs, problem.targets)
        loader = DataLoader(data, batch_size=batch_size, shuffle=True)
        for _ in range(epochs):
            losses, sizes, gradients = [], [], []
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = problem.criterion(model(inputs), targets)
                loss.backward()
                losses.append(loss.item())
                sizes.append(len(targets))
                gradients.append(torch.cat([p.grad.ravel() for p in model.parameters()]).numpy())
                optimizer.step()
            risk, gradient = full_pass(model, problem)
            rows.append(
                {
                    "running_loss": np.average(losses, weights=sizes),
                    "mean_batch_loss": np.mean(losses),
                    "last_batch_loss": losses[-1],
                    "empirical_risk": risk,
                    "full_gradient_norm": np.linalg.norm(gradient),
                    "path_gradient_norm": np.linalg.norm(
                        np.average(gradients, axis=0, weights=sizes)
                    ),
                }
            )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


RULE_SETTINGS = dict(step_size=0.05, batch_size=10, seed=3)


@pytest.fixture(scope="module", params=["network", "autograd", "closed form"])
def case(request):
    if request.param == "network":
        problem = network_problem(normalised=True)
        problem = FiniteSum(
            problem.model.double(),
            problem.criterion,
            problem.inputs.double(),
            problem.targets,
        )
    else:
        rng = np.random.default_rng(0)
        features = rng.normal(size=(53, 3))
        problem = LeastSquares(features, features @ [1, -2, 0.5] + rng.normal(size=53))
    gradient = "closed form" if request.param == "closed form" else "autograd"
    return problem, gradient, slow_series(problem, epochs=12, **RULE_SETTINGS)


class TestStopping:
    """Each rule on noisy least squares and on a network, in double precision, with a ragged tail.

    A threshold just above the least value of a dozen epochs must end the run in that epoch, and
    one just below it must not.
    """

    RULES = (
        running_loss_below,
        mean_batch_loss_below,
        last_batch_loss_below,
        empirical_risk_below,
        full_gradient_norm_below,
        path_gradient_norm_below,
    )

    @pytest.mark.parametrize("rule", RULES)
    def test_a_rule_ends_the_run_in_the_epoch_in_which_it_first_holds(self, case, rule):
        problem, gradient, series = case
        values = series[rule.__name__.removesuffix("_below")]
        epoch = 1 + np.argmin(values)
        assert epoch > 1  # or the rule would not have had to wait
        stop = rule(values.min() * (1 + 1e-9))
        run = train(problem, **RULE_SETTINGS, max_epochs=12, stop=stop, gradient=gradient)
        assert (run.epochs, run.converged, run.reason) == (epoch, True, stop.name)
        assert len(run.checkpoints) == epoch + 1
        assert run.history.n_steps == run.steps == 6 * epoch
        assert_array_equal(run.weights, run.checkpoints[-1])

    @pytest.mark.parametrize("rule", RULES)
    def test_a_rule_that_never_holds_does_not_end_the_run(self, case, rule):
        problem, gradient, series = case
        values = series[rule.__name__.removesuffix("_below")]
        stop = rule(values.min() * (1 - 1e-9))
        run = train(problem, **RULE_SETTINGS, max_epochs=12, stop=stop, gradient=gradient)
        assert (run.epochs, run.converged, run.reason) == (12, False, "max_epochs")

    @pytest.mark.parametrize("quantity", ["running_loss", "full_gradient_norm"])
    def test_no_improvement_ends_the_run_when_its_patience_does(self, case, quantity):
        problem, gradient, series = case
        best, waited, expected = np.inf, 0, None
        for epoch, value in enumerate(series[quantity], start=1):
            waited = 0 if value <= best - 0.01 else waited + 1
            best = min(best, value)
            if waited == 2:
                expected = epoch
                break
        stop = no_improvement(2, tolerance=0.01, quantity=quantity)
        run = train(problem, **RULE_SETTINGS, max_epochs=12, stop=stop, gradient=gradient)
        assert expected is not None
        assert (run.epochs, run.reason) == (expected, stop.name)

    def test_the_recorded_path_gradient_is_the_one_the_rule_saw(self, case):
        problem, gradient, series = case
        run = train(problem, **RULE_SETTINGS, max_epochs=12, gradient=gradient)
        assert_allclose(run.history.path_gradient_norm, series["path_gradient_norm"], rtol=1e-10)

    def test_looking_at_all_samples_changes_nothing_of_the_run(self):
        # Batch normalisation updates its buffers in every forward pass.
        settings = dict(step_size=0.05, batch_size=10, max_epochs=4)
        stop = empirical_risk_below(1e-9) | full_gradient_norm_below(1e-9)
        plain, watched = (
            train(network_problem(normalised=True), **settings, stop=rule) for rule in (None, stop)
        )
        assert_array_equal(watched.checkpoints, plain.checkpoints)
        assert_array_equal(watched.history.loss, plain.history.loss)
        for (name, buffer), other in zip(
            watched.model.named_buffers(), plain.model.buffers(), strict=True
        ):
            assert torch.equal(buffer, other), name

    @pytest.mark.parametrize("rule", [empirical_risk_below, full_gradient_norm_below])
    def test_the_global_loss_of_a_model_that_draws_random_numbers_is_refused(self, rule):
        problem = network_problem(dropout=0.5)
        settings = dict(step_size=0.05, batch_size=10, max_epochs=2, stop=rule(1e-9))
        state = torch.random.get_rng_state()
        with pytest.raises(ValueError, match=r"draws random numbers.*call model.eval\(\)") as error:
            train(problem, **settings)
        run = error.value.run
        assert (run.steps, run.epochs, len(run.checkpoints)) == (6, 0, 1)
        assert torch.equal(torch.random.get_rng_state(), state)
        problem.model.eval()
        assert train(problem, **settings).epochs == 2

    def test_a_part_that_takes_no_part_in_the_loss_adds_nothing_to_the_norm(self):
        model = torch.nn.ModuleDict(
            {"used": torch.nn.Linear(1, 1), "unused": torch.nn.Linear(1, 1)}
        )
        model.forward = model["used"].forward
        problem = FiniteSum(model, torch.nn.MSELoss(), torch.ones(4, 1), torch.zeros(4, 1))
        run = train(problem, step_size=0.2, max_epochs=99, stop=full_gradient_norm_below(1e-3))
        assert run.converged
