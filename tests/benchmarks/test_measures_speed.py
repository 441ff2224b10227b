"""What a survey of 2000 batches of one sample costs, as ratios to one vectorised pass by hand."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import quadratic_fit, survey

N_SAMPLES = 2000


def parabola():
    problem = quadratic_fit()
    return problem.model, problem.criterion, problem.inputs, problem.targets


def small_network():
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
    return model, nn.MSELoss(), torch.randn(N_SAMPLES, 10), torch.randn(N_SAMPLES, 1)


def classifier():
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
    inputs, labels = torch.randn(N_SAMPLES, 20), torch.randint(10, (N_SAMPLES,))
    return model, nn.CrossEntropyLoss(), inputs, labels


class ByHand:
    """Per-sample gradients as the documentation of torch.func makes them."""

    def __init__(self, model, criterion):
        def loss(weights, inputs, targets):
            return criterion(functional_call(model, weights, (inputs,)), targets)

        self._weights = {name: p.detach() for name, p in model.named_parameters()}
        self._each = vmap(grad_and_value(loss), in_dims=(None, 0, 0))

    def gradients(self, inputs, targets):
        return self._each(self._weights, inputs, targets)

    def numbers(self, batches):
        """What a survey holds: losses, gradients, their norms and mean, from a list of batches."""
        gradients, losses = self.gradients(*map(torch.stack, zip(*batches, strict=True)))
        rows = torch.cat([part.flatten(1) for part in gradients.values()], dim=1)
        double = rows.double()
        return losses, rows, torch.linalg.vector_norm(double, dim=1), double.mean(dim=0)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(parabola, id="3 parameters"),
        pytest.param(small_network, id="385 parameters"),
        pytest.param(classifier, id="1994 parameters"),
    ],
)
def test_a_survey_of_single_samples(in_turns, make):
    model, criterion, inputs, targets = make()
    batches = list(zip(inputs.split(1), targets.split(1), strict=True))
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=1)
    stacked = inputs[:, None], targets[:, None]
    by_hand, parameters = ByHand(model, criterion), list(model.parameters())

    def loop():
        for some_inputs, some_targets in batches[: N_SAMPLES // 10]:
            torch.autograd.grad(criterion(model(some_inputs), some_targets), parameters)

    runs = {
        "by hand": lambda: by_hand.numbers(batches),
        "vmap alone, batches already stacked": lambda: by_hand.gradients(*stacked),
        "a tenth of a loop over samples": loop,
        "survey": lambda: survey(model, criterion, batches),
        "survey, gradients not kept": lambda: survey(model, criterion, batches, memory=0),
        "survey of a DataLoader": lambda: survey(model, criterion, loader),
        "iterating that DataLoader": lambda: list(loader),
    }
    in_turns(runs, relative_to="by hand", rounds=60)
