"""How much faster many replicas train at once than one after another, as ratios.

One after another means a loop by hand that records nothing, on 16 replicas: what it takes is
proportional to their number. All of it runs in one thread: what counts is the processor's time.
"""

import copy
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


@pytest.mark.parametrize(
    ("gradient", "n_replicas", "rounds"), [("closed form", 4096, 7), ("autograd", 1024, 3)]
)
def test_many_replicas_against_one_after_another(in_turns, gradient, n_replicas, rounds):
    problem = quadratic_fit()
    matrix = LeastSquares(problem.features.astype(np.float32), problem.targets)

    def at_once():
        train_ensemble(
            problem, range(n_replicas), step_size=STEP_SIZE, batch_size=BATCH_SIZE,
            max_epochs=EPOCHS, gradient=gradient,
        )  # fmt: skip

    def one_by_one(problem):
        for seed in range(16):
            bare_loop(problem, seed)

    runs = {
        "at once": at_once,
        "one by one": lambda: one_by_one(problem),
        "one by one, features @ w": lambda: one_by_one(matrix),
    }
    per = {name: n_replicas / 16 for name in runs if name != "at once"}
    in_turns(runs, relative_to="at once", rounds=rounds, per=per, clock=time.process_time)
