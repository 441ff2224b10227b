"""One step, one vote: what a loop descends whose batches differ in size or in weight."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from sgd_analysis import batches, survey
from tests.problem_strategies import least_squares
from tests.surveying.surveyed_models import built, flat_gradient

RARE = torch.tensor([0.2, 1.0, 8.0], dtype=torch.float64)


def model():
    return built(lambda: nn.Linear(3, 3))


def classes(n=120, seed=1):
    """Samples of which few are of the last class, which most of the weight is given to."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), n, True, generator=generator)
    inputs = torch.randn(n, 3, generator=generator) + F.one_hot(targets, 3)
    return inputs.double(), targets


def cut(data, size):
    return list(zip(*(part.split(size) for part in data), strict=True))


def slow(losses, of):
    """The plain mean of the gradients of some losses, one after the other."""
    return np.mean([flat_gradient(loss, of) for loss in losses], axis=0)


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


class TestClassWeights:
    def test_cancel_in_batches_of_one(self):
        """Each mean divides by its own weights: the loop descends the loss without any."""
        net, data = model(), classes()
        found = survey(net, nn.CrossEntropyLoss(RARE), cut(data, 1))
        unweighted = flat_gradient(F.cross_entropy(net(data[0]), data[1]), net)
        assert_allclose(found.step_gradient, unweighted, rtol=1e-10, atol=1e-14)
        weighted = flat_gradient(F.cross_entropy(net(data[0]), data[1], RARE), net)
        assert_allclose(found.full_gradient, weighted, rtol=1e-10, atol=1e-14)
        assert_allclose(found.step_alignment, cosine(unweighted, weighted), rtol=1e-10)
        assert found.step_alignment < 0.8

    @pytest.mark.parametrize("size", [1, 4, 7, 40])
    def test_count_in_larger_batches_as_far_as_each_has_all_classes(self, size):
        net, criterion = model(), nn.CrossEntropyLoss(RARE)
        loader = cut(classes(), size)
        found = survey(net, criterion, loader)
        descended = slow([criterion(net(x), y) for x, y in loader], net)
        assert_allclose(found.step_gradient, descended, rtol=1e-10, atol=1e-14)
        assert_allclose(found.step_alignment, cosine(descended, found.full_gradient), rtol=1e-10)

    def test_come_into_their_own_with_the_batch_size(self):
        found = [
            survey(model(), nn.CrossEntropyLoss(RARE), cut(classes(seed=seed), size)).step_alignment
            for size in (1, 4, 40, 120)
            for seed in range(20)
        ]
        by_size = np.reshape(found, (4, 20)).mean(axis=1)
        assert (np.diff(by_size) > 0).all()
        assert_allclose(by_size[-1], 1, rtol=1e-12)


class TestUnequalSizes:
    @pytest.mark.parametrize("tail", [1, 5, 20])
    def test_a_ragged_tail_has_the_vote_of_a_whole_batch(self, tail):
        net, data = model(), classes(100 + tail)
        loader = cut(data, 20)
        found = survey(net, nn.CrossEntropyLoss(), loader)
        descended = slow([F.cross_entropy(net(x), y) for x, y in loader], net)
        assert_allclose(found.step_gradient, descended, rtol=1e-10, atol=1e-14)
        assert (found.step_alignment < 1 - 1e-12) == (tail < 20)

    def test_unequal_ranks_descend_the_mean_over_the_ranks(self):
        """As DDP averages the gradients of the ranks' own batches."""
        net, (inputs, targets) = model(), classes(9)
        parts = [(inputs[:6], targets[:6]), (inputs[6:], targets[6:])]
        found = survey(net, nn.CrossEntropyLoss(), parts)
        by_rank = [flat_gradient(F.cross_entropy(net(x), y), net) for x, y in parts]
        assert_allclose(found.step_gradient, (by_rank[0] + by_rank[1]) / 2, rtol=1e-10)
        assert_allclose(found.full_gradient, (2 * by_rank[0] + by_rank[1]) / 3, rtol=1e-10)

    def test_padding_makes_micro_batches_unequal_whose_tensors_are_not(self):
        net, (inputs, targets) = model(), classes(40)
        targets = targets.masked_fill(torch.arange(40) % 10 > torch.arange(40) // 4, -100)
        parts = cut((inputs, targets), 10)
        found = survey(net, nn.CrossEntropyLoss(), parts)
        assert len(set(found.denominator)) > 1 == len(set(found.n_samples))
        descended = slow([F.cross_entropy(net(x), y) for x, y in parts], net)
        assert_allclose(found.step_gradient, descended, rtol=1e-10, atol=1e-14)
        assert found.step_alignment < 1 - 1e-6

    def test_a_batch_of_padding_alone_has_no_vote(self):
        net, (inputs, targets) = model(), classes(30)
        parts = [*cut((inputs, targets), 10), (inputs[:10], torch.full((10,), -100))]
        found = survey(net, nn.CrossEntropyLoss(), parts)
        assert_allclose(found.step_gradient, found.full_gradient, rtol=1e-10)


@given(st.data(), least_squares(max_samples=9))
@settings(max_examples=40)
def test_equal_batches_step_along_the_full_gradient(data, problem):
    sizes = [size for size in range(1, problem.n_samples + 1) if problem.n_samples % size == 0]
    w = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=problem.n_parameters)
    found = problem.survey(w, batches(range(problem.n_samples), data.draw(st.sampled_from(sizes))))
    scale = np.abs(found.gradient).max()
    assert_allclose(found.step_gradient, found.full_gradient, rtol=1e-10, atol=1e-10 * scale)
    if found.full_gradient_norm > 1e-6 * scale:
        assert_allclose(found.step_alignment, 1, rtol=1e-6)
