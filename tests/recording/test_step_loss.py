"""The loss of a step where its criteria sum, or where their means are asked for."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import Loop

pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class TestSums:
    """A criterion that sums, and a loop that divides, or does not."""

    @pytest.mark.parametrize("gradients", ["auto", "norms"])
    @pytest.mark.parametrize("divided", [True, False])
    @pytest.mark.parametrize("penalty", [0.0, 0.1])
    def test_a_division_in_the_loop_is_not_made_twice(self, gradients, divided, penalty):
        loop, mean = Loop(nn.MSELoss(reduction="sum")), nn.MSELoss()
        seen, means = [], []
        with loop.record(steps_per_epoch=3, gradients=gradients) as recorder:
            for size in (5, 5, 2):
                inputs, targets = loop.batch(size)
                loop.optimizer.zero_grad()
                means.append(mean(loop.model(inputs), targets).item())
                loss = loop.loss(inputs, targets) / (size if divided else 1)
                loss = loss + penalty * loop.model[0].weight.square().sum()
                loss.backward()
                seen.append(loop.gradient().astype(float) * (size if divided else 1))
                loop.step(loss)
        history = recorder.history
        assert_array_equal(history.loss, loop.printed)
        assert_array_equal(history.denominator, [5, 5, 2])
        path = np.sum(seen, axis=0) / 12
        assert_allclose(history.path_gradient_norm, [np.linalg.norm(path)], rtol=1e-5)
        assert_allclose(history[-1].path_gradient, [path], rtol=1e-4, atol=1e-7)
        if not penalty:
            assert_allclose(history.batch_loss, means, rtol=1e-5)
            expected = np.average(means, weights=[5, 5, 2])
            assert_allclose(history.running_loss, [expected], rtol=1e-5)

    def test_a_scaler_does_not_change_that(self):
        loop = Loop(nn.MSELoss(reduction="sum"))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with loop.record(steps_per_epoch=2) as recorder:
            for _ in range(2):
                loop.optimizer.zero_grad()
                loss = loop.loss(*loop.batch()) / 10
                scaler.scale(loss).backward()
                scaler.step(loop.optimizer)
                scaler.update()
                loop.printed.append(loss.item())
        assert_array_equal(recorder.history.loss, loop.printed)
        assert_allclose(recorder.history.divisor, [1, 1])


class TestWhatTheCriteriaSay:
    def test_is_recorded_where_it_is_asked_for(self):
        loop = Loop()
        with loop.record(loss="criteria", steps_per_epoch=2) as recorder:
            said = []
            for _ in range(2):
                loop.optimizer.zero_grad()
                losses = [loop.loss(*loop.batch(size)) for size in (9, 1)]
                whole = [loss / 2 + 0.1 * loop.model[0].weight.abs().sum() for loss in losses]
                for loss in whole:
                    loss.backward()
                said.append(np.average([loss.item() for loss in losses], weights=[9, 1]))
                loop.step(*whole)
        assert_allclose(recorder.history.loss, said, rtol=1e-12)
        assert_allclose(recorder.history.objective, loop.printed, rtol=1e-12)

    def test_of_sums_it_is_the_mean(self):
        loop = Loop(nn.MSELoss(reduction="sum"))
        with loop.record(loss="criteria", steps_per_epoch=1) as recorder:
            loss = loop.loss(*loop.batch())
            (loss / 7).backward()
            loop.step(loss / 7)
        assert_allclose(recorder.history.loss, [loss.item() / 10], rtol=1e-12)
        assert_allclose(recorder.history.running_loss, [loss.item() / 10], rtol=1e-12)

    def test_needs_a_criterion(self):
        with pytest.raises(ValueError, match=r'"criteria" together with at least one.*0 criteria'):
            record(Loop().optimizer, loss="criteria")
        with pytest.raises(ValueError, match=r"loss must be .*got 'criterion'"):
            Loop().record(loss="criterion")
