"""A replica is the same whatever is trained beside it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import train_ensemble
from sgd_analysis.ensemble.replicas import n_autograd, n_closed_form
from tests.ensemble.ensembles import (
    OPTIMIZERS,
    assert_equal_bit_for_bit,
    network,
    noisy_line,
)


class TestReplicasDoNotDependOnEachOther:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_in_closed_form_chunks_of_any_size_give_the_same_bits(self, dtype, optimizer):
        problem = noisy_line(dtype=dtype)
        assert n_closed_form(problem, 4, memory=1) == 64 < n_closed_form(problem, 4, memory=1 << 20)
        settings = dict(step_size=0.02, batch_size=4, max_epochs=2, checkpoints=True)
        settings["gradient"] = "closed form"
        together = train_ensemble(problem, range(150), optimizer, **settings)
        in_chunks = train_ensemble(problem, range(150), optimizer, memory=1, **settings)
        assert_equal_bit_for_bit(in_chunks, together)
        for r in (0, 70, 149):
            alone = train_ensemble(problem, [r], optimizer, **settings)
            assert_equal_bit_for_bit(alone, together, [r])

    @pytest.mark.parametrize("criterion", [nn.MSELoss(), nn.CrossEntropyLoss()])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_by_autograd_chunks_that_hold_64_give_the_same_bits(self, dtype, criterion):
        problem = network(criterion, dtype)
        settings = dict(step_size=0.02, batch_size=4, max_epochs=2, checkpoints=True)
        memory = 300_000
        assert n_autograd(problem, 4, memory) in (64, 128)
        together = train_ensemble(problem, range(150), torch.optim.Adam, **settings)
        in_chunks = train_ensemble(problem, range(150), torch.optim.Adam, memory=memory, **settings)
        assert_equal_bit_for_bit(in_chunks, together)
        alone = train_ensemble(problem, [70], torch.optim.Adam, **settings)
        assert_equal_bit_for_bit(alone, together, [70])

    def test_by_autograd_one_at_a_time_agrees_to_rounding(self):
        problem = network(nn.MSELoss())
        assert n_autograd(problem, 4, memory=1) == 1
        settings = dict(step_size=0.02, batch_size=4, max_epochs=2)
        together = train_ensemble(problem, range(4), **settings)
        one_by_one = train_ensemble(problem, range(4), memory=1, **settings)
        assert_allclose(one_by_one.weights, together.weights, rtol=1e-12)
        assert_allclose(one_by_one.empirical_risk, together.empirical_risk, rtol=1e-12)

    def test_equal_seeds_give_equal_replicas_and_others_differ(self):
        ensemble = train_ensemble(
            noisy_line(), [4, 9, 4], step_size=0.05, max_epochs=2, batch_size=10
        )
        assert_array_equal(ensemble.weights[0], ensemble.weights[2])
        assert (ensemble.weights[0] != ensemble.weights[1]).all()

    def test_seeds_come_from_any_iterable(self):
        settings = dict(step_size=0.05, max_epochs=2, batch_size=10)
        seeds = [0, 1, 2**63 - 1]
        expected = train_ensemble(noisy_line(), seeds, **settings)
        for given_seeds in (iter(seeds), np.array(seeds), tuple(seeds)):
            ensemble = train_ensemble(noisy_line(), given_seeds, **settings)
            assert_array_equal(ensemble.weights, expected.weights)
            assert_array_equal(ensemble.seeds, seeds)
