"""What a loss is a mean of, read off its graph, against what its criterion would tell."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sgd_analysis._criteria import batch_size_of, denominator_of
from sgd_analysis._loss_graph import reductions_below

N, C = 6, 4


@pytest.fixture
def predictions():
    torch.manual_seed(0)
    return nn.Linear(3, C)(torch.randn(N, 3))


def sizes(*losses):
    """Return the denominator and the number of samples, None for nothing known."""
    found = reductions_below(losses)
    if not found:
        return None
    return float(found[0].denominator), float(found[0].n_samples)


def classes():
    return torch.randint(C, (N,))


def some_ignored():
    return torch.tensor([0, -100, 2, 3, -100, 1])


def values(*shape):
    return torch.rand(*(shape or (N, C)))


def signs(*shape):
    return values(*shape).sub(0.5).sign()


WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("make", "targets"),
    [
        (nn.CrossEntropyLoss, classes),
        (nn.CrossEntropyLoss, some_ignored),
        (lambda **r: nn.CrossEntropyLoss(weight=WEIGHTS, **r), some_ignored),
        (lambda **r: nn.CrossEntropyLoss(label_smoothing=0.1, **r), some_ignored),
        (lambda **r: nn.CrossEntropyLoss(ignore_index=2, **r), classes),
        (nn.NLLLoss, classes),
        (nn.MSELoss, values),
        (nn.SmoothL1Loss, values),
        (nn.HuberLoss, values),
        (nn.BCEWithLogitsLoss, values),
        (lambda **r: nn.BCEWithLogitsLoss(pos_weight=WEIGHTS, **r), values),
        (nn.SoftMarginLoss, signs),
        (nn.MultiMarginLoss, classes),
        (nn.MultiLabelMarginLoss, lambda: torch.randint(C, (N, C))),
    ],
)
def test_what_the_graph_tells_is_what_the_criterion_tells(predictions, make, targets, reduction):
    criterion, target = make(reduction=reduction), targets()
    loss = criterion(predictions, target)
    (found, *_) = reductions_below([loss])
    assert found.is_sum == (reduction == "sum")
    assert_allclose(float(found.denominator), float(denominator_of(criterion)(predictions, target)))
    assert found.n_samples == batch_size_of(criterion)(predictions, target) == N


@pytest.mark.parametrize(
    ("criterion", "targets"),
    [
        (nn.L1Loss(), values),
        (nn.PoissonNLLLoss(), values),
        (nn.KLDivLoss(reduction="batchmean"), values),
        (nn.CrossEntropyLoss(), lambda: values().softmax(1)),
        (nn.MultiLabelSoftMarginLoss(), values),
        (nn.HingeEmbeddingLoss(), signs),
    ],
)
def test_so_it_is_for_losses_that_are_put_together_of_others(predictions, criterion, targets):
    target = targets()
    expected = [f(criterion)(predictions, target) for f in (denominator_of, batch_size_of)]
    assert sizes(criterion(predictions, target)) == tuple(map(float, expected))


def test_of_images_each_is_a_sample_and_each_pixel_a_target():
    images = torch.randn(2, C, 3, 5, requires_grad=True)
    assert sizes(F.cross_entropy(images, torch.randint(C, (2, 3, 5)))) == (30, 2)
    assert sizes(F.mse_loss(images, torch.zeros_like(images))) == (2 * C * 15, 2)


def test_a_loss_of_one_prediction_is_of_one_sample(predictions):
    assert sizes(F.cross_entropy(predictions[0], torch.tensor(1))) == (1, 1)


class TestWrittenByHand:
    @pytest.mark.parametrize(
        ("loss", "expected"),
        [
            (lambda p: (p - 1).square().mean(), (N * C, N)),
            (lambda p: (p - 1).square().sum(dim=1).mean(), (N, N)),
            (lambda p: (p - 1).square().sum() / N, (N, N)),
            (lambda p: -(p.log_softmax(1) * 0.1).sum() / torch.tensor(N), (N, N)),
            (lambda p: F.cross_entropy(p, classes(), reduction="none").mean(), (N, N)),
            (lambda p: F.triplet_margin_loss(p, p + 1, p.flip(0)), (N, N)),
        ],
    )
    def test_means_are_known_by_what_they_divide_by(self, predictions, loss, expected):
        assert sizes(loss(predictions)) == expected

    def test_factors_penalties_and_casts_do_not_count(self, predictions):
        loss = F.cross_entropy(predictions, classes())
        penalty = nn.Parameter(torch.ones(7)).square().mean()
        expected = (N, N)
        assert sizes(loss / 4) == sizes(-2 * loss) == sizes(loss.double()) == expected
        assert sizes(loss * torch.tensor(1024.0)) == sizes(loss + 0.1 * penalty) == expected

    def test_mixed_targets_and_several_heads_are_about_the_same_samples(self, predictions):
        first, second = (F.cross_entropy(predictions, classes()) for _ in range(2))
        assert sizes(0.7 * first + 0.3 * second) == (N, N)
        assert sizes(torch.stack([first, second]).mean()) == (N, N)
        assert sizes(first, second) == (N, N)

    @pytest.mark.parametrize(
        "together",
        [sum, lambda parts: torch.stack(parts).mean(), lambda parts: parts[0] - parts[1]],
    )
    def test_of_losses_of_different_rows_it_is_not_known_what_they_are_a_mean_of(self, together):
        model = nn.Linear(3, C)
        parts = [F.cross_entropy(model(torch.randn(N, 3)), classes()) for _ in range(3)]
        assert sizes(together(parts)) is None

    def test_heads_on_the_same_features_are_about_the_same_samples(self):
        features = nn.Linear(3, 5)(torch.randn(N, 3)).relu()
        one, other = nn.Linear(5, C)(features), nn.Linear(5, 2)(features.tanh())
        loss = F.cross_entropy(one, classes()) + F.cross_entropy(other, classes() % 2)
        assert sizes(loss) == (N, N)

    @pytest.mark.parametrize(
        "loss",
        [
            lambda p: ((p - 1).square() * (p > 0)).sum() / (p > 0).sum(),  # over a mask
            lambda p: (p - 1).square().sum(),
            lambda p: (p - 1).square().sum() / 4,  # it may be anything
            lambda p: (p - 1).square().sum() + nn.Parameter(torch.ones(7)).mean(),
            lambda p: F.mse_loss(p, p.detach()) + F.cross_entropy(p, some_ignored()),
            lambda p: p.mean() + p[:2].mean(),
            lambda p: torch.stack([p.sum(), p.prod()]).mean(),
            lambda p: p.exp(),
        ],
    )
    def test_nothing_is_guessed(self, predictions, loss):
        assert sizes(loss(predictions)) is None

    def test_a_leaf_and_an_edge_of_the_graph_tell_nothing(self, predictions):
        edge = torch.autograd.graph.get_gradient_edge(predictions.mean())
        assert sizes(torch.ones((), requires_grad=True)) is None
        assert sizes(edge) is None


class TestSequences:
    """How many tokens there are is known, but not whether a row is a sample."""

    B, T = 3, 5

    def check(self, loss, denominator):
        found = sizes(loss)
        assert found[0] == denominator
        assert math.isnan(found[1])

    def test_tokens_are_no_samples(self):
        hidden = nn.Linear(3, C)(torch.randn(self.B, self.T, 3))
        tokens = torch.randint(C, (self.B, self.T))
        tokens[0, :2] = -100
        self.check(F.cross_entropy(hidden.view(-1, C).float(), tokens.view(-1)), 13)

    def test_nor_where_the_hidden_states_are_flattened(self):
        hidden = nn.Embedding(7, 3)(torch.randint(7, (self.B, self.T)))
        decoder = nn.Linear(3, C)
        loss = F.cross_entropy(decoder(hidden.relu().view(-1, 3)), torch.randint(C, (15,)))
        self.check(loss, 15)

    def test_nor_are_rows_that_may_be_time_steps(self):
        outputs, _ = nn.LSTM(3, 1)(torch.randn(self.T, self.B, 3))  # with time first
        target = torch.randn(self.T, self.B)
        self.check(F.mse_loss(outputs, target[..., None]), 15)
        self.check(F.mse_loss(outputs.squeeze(-1), target), 15)
        self.check((outputs.squeeze(-1) - target).abs().mean(), 15)

    def test_classes_along_a_sequence_come_second_so_that_the_first_dimension_is_the_samples(self):
        logits = torch.randn(self.B, C, self.T, requires_grad=True)
        assert sizes(F.cross_entropy(logits, torch.randint(C, (self.B, self.T)))) == (15, 3)

    def test_flattened_images_are_samples(self):
        hidden = nn.Conv2d(1, 2, 3)(torch.randn(self.B, 1, 6, 6)).relu().flatten(1)
        loss = F.cross_entropy(nn.Linear(32, C)(hidden), torch.randint(C, (self.B,)))
        assert sizes(loss) == (3, 3)


class TestItOnlyLooks:
    def test_what_a_checkpoint_has_dropped_is_not_computed_anew(self):
        calls = []

        def loss_of(inputs):
            calls.append(inputs)
            return F.cross_entropy(inputs * 2, torch.tensor([1, 2]))

        inputs = torch.randn(2, C, requires_grad=True)
        loss = checkpoint(loss_of, inputs, use_reentrant=False)
        assert sizes(loss) is None
        assert len(calls) == 1
        loss.backward()

    def test_a_graph_that_is_gone_tells_nothing_and_raises_nothing(self, predictions):
        loss = F.cross_entropy(predictions, classes())
        loss.backward()
        assert sizes(loss) is None

    def test_a_gradient_is_the_same_after_a_look(self):
        weight = torch.randn(3, C, requires_grad=True)
        inputs, targets = torch.randn(N, 3), classes()
        gradients = []
        for looks in (False, True):
            loss = F.cross_entropy(inputs @ weight, targets, reduction="sum")
            if looks:
                assert sizes(loss) == (N, N)
            gradients.append(torch.autograd.grad(loss, weight)[0])
        assert np.array_equal(*(g.numpy() for g in gradients))
