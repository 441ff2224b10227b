"""Which sharpness an optimizer's steps bear, against what the optimizers do on quadratics."""

import math

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop

from sgd_analysis import LeastSquares, preconditioned_sharpness, stability_limit

# With an eps far above √v the scaling is constant: 1/eps.
CALM = {"eps": 1.0, "lr": 0.1}
OPTIMIZERS = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.9}),
    (SGD, {"lr": 0.1, "momentum": 0.5, "dampening": 0.2}),
    (SGD, {"lr": 0.1, "dampening": 0.5}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.1, "momentum": 0.3, "weight_decay": 0.4}),
    (RMSprop, CALM),
    (RMSprop, CALM | {"momentum": 0.7, "centered": True}),
    (Adam, CALM),
    (Adam, CALM | {"betas": (0.5, 0.99), "amsgrad": True}),
    (Adam, CALM | {"weight_decay": 1.0}),
    (AdamW, CALM | {"weight_decay": 1e-4}),
    (Adagrad, CALM),
]


def growth(kind, settings, relative):
    """How many times larger the weights are at the end than in the middle.

    Args:
        kind: an optimizer.
        settings: its own.
        relative: the sharpness of the quadratic, decay included, over the limit.
    """
    w = torch.nn.Parameter(torch.full((1,), 1e-100, dtype=torch.float64))
    optimizer = kind([w], **settings)
    coupled = 0.0 if kind is AdamW else settings.get("weight_decay", 0.0)
    curvature = relative * stability_limit(optimizer) - coupled
    sizes = []
    for _ in range(1200):
        w.grad = curvature * w.detach()
        optimizer.step()
        sizes.append(w.abs().item())
    return max(sizes[-100:]) / max(sizes[500:600])


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_steps_on_a_quadratic_grow_above_the_limit_and_shrink_below(kind, settings):
    assert growth(kind, settings, 0.99) < 0.8
    assert growth(kind, settings, 1.01) > 1.25


def test_the_limits_are_those_of_the_books():
    w = [torch.nn.Parameter(torch.ones(1))]
    assert stability_limit(SGD(w, lr=0.5)) == 4
    assert stability_limit(SGD(w, lr=0.5, momentum=0.5)) == 6
    assert stability_limit(SGD(w, lr=0.5, momentum=0.5, nesterov=True)) == 3
    assert stability_limit(RMSprop(w, lr=0.5)) == 4
    assert stability_limit(Adam(w, lr=torch.tensor(0.5))) == pytest.approx(76)
    assert stability_limit(AdamW(w, lr=0.5, betas=(0.5, 0.9))) == 12
    assert stability_limit(SGD(w, lr=0.0)) == math.inf


def test_of_several_groups_it_is_that_of_the_largest_step_size():
    features = np.diag([1.0, 3.0])
    problem = LeastSquares(features, [1.0, 1.0])
    one, other = (torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = one, other

        def forward(self, inputs):
            return inputs @ torch.cat([self.one, self.other])

    groups = [{"params": [one], "lr": 1.9}, {"params": [other], "lr": 0.21}]
    optimizer = SGD(groups, lr=1.0)
    batch = [(problem.inputs, problem.targets)]
    found = preconditioned_sharpness(Two(), problem.criterion, batch, optimizer)
    # The second weight has the curvature 9 and moves by 0.21: 1.89 of 2; the first, 1.9 of 2.
    assert found / stability_limit(optimizer) == pytest.approx(1.9 / 2, rel=0.01)
    groups[1]["lr"] = optimizer.param_groups[1]["lr"] = 0.23
    found = preconditioned_sharpness(Two(), problem.criterion, batch, optimizer)
    assert found / stability_limit(optimizer) == pytest.approx(9 * 0.23 / 2, rel=0.01)


def test_groups_of_several_momenta_have_no_one_limit():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "momentum": m} for m in (0, 0.9)]
    with pytest.raises(ValueError, match="must have one momentum"):
        stability_limit(SGD(groups, lr=0.1))


def test_an_optimizer_that_is_not_known_is_refused():
    weights = [torch.nn.Parameter(torch.ones(1))]
    with pytest.raises(TypeError, match=r"SGD, RMSprop, .*got torch\.optim\.nadam\.NAdam"):
        stability_limit(torch.optim.NAdam(weights))
    with pytest.raises(ValueError, match="must minimise"):
        stability_limit(Adam(weights, maximize=True))
