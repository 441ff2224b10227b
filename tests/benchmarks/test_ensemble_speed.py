"""How much faster many replicas train at once than one after another, as ratios.

    python -m pytest tests/benchmarks/test_ensemble_speed.py --benchmark-only -s

Both take turns, so that whatever else the machine does meets both; a ratio is that of the medians
over the rounds, in seconds of one processor, since all of it runs in one thread. One after another
means a loop by hand that records nothing, on 16 replicas: what it takes is proportional to their
number.
"""

import copy
import random
import statistics
import time

import numpy as np
import pytest
import torch

from sgd_analysis import LeastSquares, quadratic_fit, reshuffle, train_ensemble

STEP_SIZE, BATCH_SIZE, EPOCHS = 2e-4, 10, 48


def bare_loop(problem, seed):
    """Stochastic gradient descent on one replica, and nothing else."""
    model, criterion = copy.deepcopy(problem.model), torch.nn.MSELoss()
    (w,) = model.parameters()
    order = reshuffle(problem.n_samples, BATCH_SIZE, torch.Generator().manual_seed(seed))
    for _ in range(EPOCHS):
        indices = next(order)
        for inputs, targets in zip(
            problem.inputs[indices].split(BATCH_SIZE),
            problem.targets[indices].split(BATCH_SIZE),
            strict=True,
        ):
            w.grad = None
            criterion(model(inputs), targets).backward()
            with torch.no_grad():
                w.add_(w.grad, alpha=-STEP_SIZE)
    return w.detach().numpy()


@pytest.fixture
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def seconds(function, *args, **options):
    start = time.process_time()
    function(*args, **options)
    return time.process_time() - start


@pytest.mark.parametrize(
    ("gradient", "n_replicas", "rounds"), [("closed form", 4096, 7), ("autograd", 1024, 3)]
)
def test_many_replicas_against_one_after_another(
    benchmark, one_thread, gradient, n_replicas, rounds
):
    problem = quadratic_fit()
    matrix = LeastSquares(problem.features.astype(np.float32), problem.targets)
    taken = {"at once": [], "one by one": [], "one by one, features @ w": []}

    def at_once(n=n_replicas):
        train_ensemble(
            problem, range(n), step_size=STEP_SIZE, batch_size=BATCH_SIZE, epochs=EPOCHS,
            gradient=gradient,
        )  # fmt: skip

    def one_by_one(problem):
        return n_replicas / 16 * sum(seconds(bare_loop, problem, seed) for seed in range(16))

    def take_turns():
        for name in random.sample(list(taken), len(taken)):
            taken[name].append(
                seconds(at_once)
                if name == "at once"
                else one_by_one(matrix if "features" in name else problem)
            )

    at_once(64)  # imports, and the first use of everything
    benchmark.pedantic(take_turns, rounds=rounds)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, median in medians.items():
        benchmark.extra_info[f"{name}, seconds"] = round(median, 2)
        benchmark.extra_info[f"{name} / at once"] = round(median / medians["at once"], 1)
    print("\n", *benchmark.extra_info.items(), sep="\n  ")
