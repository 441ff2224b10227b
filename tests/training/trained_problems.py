"""What the tests of this room train."""

import torch

from sgd_analysis import FiniteSum

STEP_SIZE = 0.0002


def mean_of_squares(predictions, targets):
    return torch.mean((targets - predictions) ** 2)


def by_hand(problem):
    return FiniteSum(problem.model, mean_of_squares, problem.inputs, problem.targets)


def network_problem(dropout=0.0, normalised=False):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(53, 4, generator=generator)
    targets = torch.randint(3, (53,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        between = torch.nn.BatchNorm1d(8) if normalised else torch.nn.Dropout(dropout)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), between, torch.nn.Linear(8, 3)
        )
    return FiniteSum(model, torch.nn.CrossEntropyLoss(), inputs, targets)
