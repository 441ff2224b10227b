"""Models of all kinds to survey, small batches for them, and what to compare surveys with."""

import contextlib
import random
import sys

import numpy as np
import torch
from numpy.testing import assert_allclose
from torch import nn

from sgd_analysis import batches as split
from sgd_analysis import survey
from sgd_analysis.surveying import batches

CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
N_BATCHES = batches._FEWEST_AT_ONCE  # of one shape; a smaller one follows


@contextlib.contextmanager
def one_thread():
    """With more, the threads of these tiny operations wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextlib.contextmanager
def evaluated_at_once(fewest):
    """Surveys that evaluate batches together from that number on."""
    before, batches._FEWEST_AT_ONCE = batches._FEWEST_AT_ONCE, fewest
    try:
        yield
    finally:
        batches._FEWEST_AT_ONCE = before


def plain_loop():
    """Surveys made one batch after the other, whatever the model allows."""
    return evaluated_at_once(sys.maxsize)


def random_states():
    numpy_state = np.random.get_state(legacy=False)
    return (
        torch.get_rng_state().numpy().tobytes(),
        numpy_state["state"]["key"].tobytes(),
        numpy_state["state"]["pos"],
        numpy_state["has_gauss"],
        numpy_state["gauss"],
        random.getstate(),
    )


def everything(model):
    """All of a model that could change, by identity and value."""
    modules = {
        name: {key: id(value) for key, value in vars(module).items()}
        for name, module in model.named_modules()
    }
    tensors = [
        (name, id(t), t._version, t.detach().numpy().tobytes(), t.requires_grad, id(t.grad))
        for name, t in [*model.named_parameters(), *model.named_buffers()]
    ]
    grads = [
        None if p.grad is None else p.grad.to_dense().numpy().tobytes() for p in model.parameters()
    ]
    return modules, tensors, grads, [module.training for module in model.modules()]


def flat_gradient(loss, model):
    """The gradient of a loss by plain automatic differentiation, in double precision."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    dense = [
        torch.zeros_like(p) if part is None else part.to_dense()
        for part, p in zip(parts, parameters, strict=True)
    ]
    return np.concatenate([part.double().numpy().ravel() for part in dense])


def assert_same(one, other, rtol=1e-10, atol=1e-12):
    for name in ("loss", "denominator", "n_samples", "batch_gradient_norm", "gradient"):
        assert_allclose(getattr(one, name), getattr(other, name), rtol, atol, err_msg=name)
    for name in ("full_gradient", "step_gradient", "between_batch_variance", "empirical_risk"):
        assert_allclose(getattr(one, name), getattr(other, name), rtol, atol, err_msg=name)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(2, 2)
        self.first.bias.requires_grad_(False)

    def forward(self, inputs):
        return self.second(torch.tanh(self.first(inputs)))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, inputs):
        return self.one(inputs) if inputs.sum() > 0 else self.other(inputs)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs**3

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class OwnFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, inputs):
        return Cube.apply(self.linear(inputs))


class Recurrent(nn.Module):
    """Torch's recurrent layers hold their parameters a second time, in a list."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def forward(self, inputs):
        return self.lstm(inputs[:, None].expand(-1, 2, -1))[0][:, -1]


class InAList(nn.Module):
    """One that a beginner may write: registered, and used by another name."""

    def __init__(self):
        super().__init__()
        self.weights = [nn.Parameter(torch.randn(3, 3)) for _ in range(2)]
        for i, weight in enumerate(self.weights):
            self.register_parameter(f"weight{i}", weight)

    def forward(self, inputs):
        return inputs @ self.weights[0] @ self.weight1


class Embedded(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.table = nn.Embedding(7, 3, **settings)

    def forward(self, inputs):
        return self.table((inputs[:, 0].abs() * 3).long().clamp(max=6))


class SavesItsOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.n_calls = nn.Linear(3, 3), 0

    def forward(self, inputs):
        self.n_calls += 1
        self.last = self.linear(inputs)
        return self.last


def spectral_norm():
    return nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))


def sequence(*layers):
    return lambda: nn.Sequential(nn.Linear(3, 3), *[layer() for layer in layers], nn.Linear(3, 3))


def normalised():
    return nn.BatchNorm1d(3)


AT_ONCE = {
    "network": sequence(nn.Tanh, nn.ReLU),
    "layer norm": sequence(lambda: nn.LayerNorm(3)),
    "tied, unused and frozen parameters": Tied,
    "embedding": Embedded,
    "output saved in an attribute": SavesItsOutput,
    "batch norm in evaluation mode": lambda: sequence(normalised)().eval(),
    "dropout in evaluation mode": lambda: sequence(nn.Dropout)().eval(),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
    "spectral norm": spectral_norm,
    "spectral norm in evaluation mode": lambda: spectral_norm().eval(),
}
ONE_BY_ONE = {
    "batch norm in training mode": sequence(normalised),
    "branches": Branches,
    "function without a rule for vmap": OwnFunction,
    "recurrent": Recurrent,
    "parameters in a list": InAList,
    "sparse gradients": lambda: Embedded(sparse=True),
    "writes to its weights": lambda: Embedded(max_norm=0.5),
}


def small_batches(dtype=torch.float64, n_batches=N_BATCHES, batch_size=3):
    generator = torch.Generator().manual_seed(1)
    sizes = [batch_size] * n_batches + [2]
    return [
        tuple(torch.randn(size, 3, generator=generator, dtype=dtype) for _ in range(2))
        for size in sizes
    ]


def built(make, dtype=torch.float64):
    torch.manual_seed(0)
    return make().to(dtype)


def loader_of(problem, indices):
    return [(problem.inputs[batch], problem.targets[batch]) for batch in indices]


def survey_of(problem, indices, **settings):
    return survey(problem.model, problem.criterion, loader_of(problem, indices), **settings)


def one_by_one(n_samples):
    return split(range(n_samples), 1)


def from_gradients(gradients, n_samples=None):
    """A survey of given gradients, by way of a model whose loss is linear: ∇f_b = g_b."""
    gradients = torch.as_tensor(np.asarray(gradients, dtype=float))
    sizes = [1] * len(gradients) if n_samples is None else n_samples
    model = nn.Linear(gradients.shape[1], 1, bias=False).double()
    loader = [
        (g.expand(size, -1), torch.zeros(size, 1)) for g, size in zip(gradients, sizes, strict=True)
    ]
    return survey(model, lambda predictions, targets: (predictions - targets).mean(), loader)


def sample_gradients(problem, w):
    residuals = problem.features @ w - problem.targets.numpy()
    return 2 * residuals[:, None] * problem.features
