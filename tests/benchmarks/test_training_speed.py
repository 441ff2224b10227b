"""What `train` takes for the source notebook's runs, as ratios to the notebook's kind of loop."""

import functools

import pytest
import torch
from torch.utils.data import DataLoader

from sgd_analysis import quadratic_fit, running_loss_below, train

STEP_SIZE = 0.0002


def notebooks_loop(points, seed=0, batch_size=10, epsilon=0.1, max_epochs=50):
    """Mini-batches as the source notebook takes them: a loader that collates samples one by one."""
    torch.manual_seed(seed)
    w = torch.zeros(3, requires_grad=True)
    criterion = torch.nn.MSELoss()
    loader = DataLoader(points, batch_size=batch_size, shuffle=True)
    for epoch in range(1, max_epochs + 1):
        total = 0.0
        for batch in loader:
            x, y = batch[:, 0], batch[:, 1]
            loss = criterion(w[0] * x * x + w[1] * x + w[2], y)
            loss.backward()
            with torch.no_grad():
                w.sub_(STEP_SIZE * w.grad)
                w.grad.zero_()
            total += loss.item() * len(batch)
        if total / len(points) < epsilon:
            return epoch
    return None


def gradient_descent_loop(points, epsilon=0.1, max_epochs=10_000):
    """Full batches as the source notebook takes them."""
    w = torch.zeros(3, requires_grad=True)
    x, y = points[:, 0], points[:, 1]
    for epoch in range(1, max_epochs + 1):
        loss = torch.mean((w[0] * x * x + w[1] * x + w[2] - y) ** 2)
        loss.backward()
        with torch.no_grad():
            w.sub_(STEP_SIZE * w.grad)
            w.grad.zero_()
        if loss.item() < epsilon:
            return epoch
    return None


def ways_of_training(loop, **settings):
    problem = quadratic_fit()
    points = torch.stack([problem.inputs, problem.targets], dim=1)
    run = functools.partial(train, problem, stop=running_loss_below(0.1), **settings)
    return {
        "the notebook's loop": lambda: loop(points),
        "torch.optim.SGD": lambda: run(torch.optim.SGD).epochs,
        "sgd": lambda: run().epochs,
        "sgd, closed form": lambda: run(gradient="closed form").epochs,
    }


@pytest.mark.parametrize(
    ("loop", "settings", "epochs", "rounds"),
    [
        pytest.param(notebooks_loop, {"batch_size": 10, "max_epochs": 50}, 48, 15, id="48 epochs"),
        pytest.param(gradient_descent_loop, {"max_epochs": 10_000}, 9340, 5, id="9340 epochs"),
    ],
)
def test_what_a_run_of_the_source_notebook_takes(in_turns, loop, settings, epochs, rounds):
    ways = ways_of_training(loop, step_size=STEP_SIZE, **settings)

    def check(way):
        assert way() == epochs

    runs = {name: functools.partial(check, way) for name, way in ways.items()}
    in_turns(runs, relative_to="the notebook's loop", rounds=rounds)
