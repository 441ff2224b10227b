"""What a criterion's mean divides by, by the criterion."""

import pytest
import torch
from torch import nn

from sgd_analysis._criteria import denominator_of


def classes(generator, *shape):
    return torch.randint(3, shape, generator=generator)


def numbers(generator, *shape):
    return torch.rand(shape, generator=generator) + 0.1


def signs(generator, *shape):
    return torch.randint(2, shape, generator=generator) * 2.0 - 1


# For each of torch's losses that can sum what it averages: its arguments, and its settings.
LOSSES = {
    "MSELoss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4))],
    "L1Loss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4))],
    "SmoothL1Loss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4))],
    "HuberLoss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4))],
    "BCELoss": lambda g: [(numbers(g, 6, 4) / 2, numbers(g, 6, 4) / 2)],
    "BCEWithLogitsLoss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4))],
    "SoftMarginLoss": lambda g: [(numbers(g, 6, 4), signs(g, 6, 4))],
    "HingeEmbeddingLoss": lambda g: [(numbers(g, 6, 4), signs(g, 6, 4))],
    "PoissonNLLLoss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4))],
    "GaussianNLLLoss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4), numbers(g, 6, 1))],
    "KLDivLoss": lambda g: [(numbers(g, 6, 4).log(), numbers(g, 6, 4))],
    "MarginRankingLoss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4), signs(g, 6, 4))],
    "CosineEmbeddingLoss": lambda g: [(numbers(g, 6, 4), numbers(g, 6, 4), signs(g, 6))],
    "TripletMarginLoss": lambda g: [tuple(numbers(g, 6, 2, 4) for _ in range(3))],
    "TripletMarginWithDistanceLoss": lambda g: [tuple(numbers(g, 6, 4) for _ in range(3))],
    "MultiMarginLoss": lambda g: [(numbers(g, 6, 3), classes(g, 6))],
    "MultiLabelMarginLoss": lambda g: [(numbers(g, 6, 3), classes(g, 6, 3))],
    "MultiLabelSoftMarginLoss": lambda g: [(numbers(g, 6, 3), (signs(g, 6, 3) + 1) / 2)],
    "CrossEntropyLoss": lambda g: [(numbers(g, 6, 3, 2), classes(g, 6, 2)), {"ignore_index": 1}],
    "NLLLoss": lambda g: [(-numbers(g, 6, 3), classes(g, 6)), {"ignore_index": 1}],
    "LinearCrossEntropyLoss": lambda g: [
        (numbers(g, 6, 5), classes(g, 6)),
        {"in_features": 5, "num_classes": 3, "ignore_index": 1},
    ],
}


@pytest.mark.filterwarnings("ignore:.*divides the total loss by both")
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_denominator_is_the_sum_over_the_mean_of_every_loss_of_torch(name):
    if not hasattr(nn, name):
        pytest.skip(f"this torch has no {name}")
    generator = torch.Generator().manual_seed(0)
    arguments, *settings = LOSSES[name](generator)
    settings = settings[0] if settings else {}
    losses = {}
    for reduction in ("mean", "sum"):
        torch.manual_seed(0)  # of the losses that have weights
        losses[reduction] = getattr(nn, name)(reduction=reduction, **settings)
    mean, total = (losses[how](*arguments).item() for how in ("mean", "sum"))
    assert denominator_of(losses["mean"])(*arguments) == pytest.approx(total / mean, rel=1e-5)
