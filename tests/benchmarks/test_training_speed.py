"""What `train` takes for the source notebook's runs, as ratios to the notebook's kind of loop.

    python -m pytest tests/benchmarks --benchmark-only -s

The ways take turns, in an order drawn anew each round, so that whatever else the machine does
meets all of them; a ratio is that of the medians over the rounds.
"""

import functools
import random
import statistics
import time

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


@pytest.fixture
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize(
    ("loop", "settings", "epochs", "rounds"),
    [
        pytest.param(notebooks_loop, {"batch_size": 10, "max_epochs": 50}, 48, 15, id="48 epochs"),
        pytest.param(gradient_descent_loop, {"max_epochs": 10_000}, 9340, 5, id="9340 epochs"),
    ],
)
def test_what_a_run_of_the_source_notebook_takes(
    benchmark, one_thread, loop, settings, epochs, rounds
):
    ways = ways_of_training(loop, step_size=STEP_SIZE, **settings)
    seconds = {name: [] for name in ways}

    def take_turns():
        for name in random.sample(list(ways), len(ways)):
            start = time.perf_counter()
            assert ways[name]() == epochs
            seconds[name].append(time.perf_counter() - start)

    take_turns()  # imports, and the first use of everything
    for times in seconds.values():
        times.clear()
    benchmark.pedantic(take_turns, rounds=rounds)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        benchmark.extra_info[f"{name}, milliseconds"] = round(1e3 * median, 1)
        ratio = median / medians["the notebook's loop"]
        benchmark.extra_info[f"{name} / the notebook's loop"] = round(ratio, 4)
    print("\n", *benchmark.extra_info.items(), sep="\n  ")
