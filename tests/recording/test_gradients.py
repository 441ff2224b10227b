"""The gradients that a step is given: sparse ones, and those of mixed precision."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import backward, batches, flat, gradient_of, network

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class TestMixedPrecision:
    """On the CPU in bfloat16 and with a GradScaler, whose overflow is made by an infinite input."""

    def loop(self, optimizer_class, overflow_at, **settings):
        model, criterion = network(), nn.MSELoss()
        optimizer = optimizer_class(model.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        losses, gradients = [], []
        with record(optimizer, criterion, **settings) as recorder:
            for k, (inputs, targets) in enumerate(batches(6)):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    predictions = model(inputs)
                if k == overflow_at:
                    predictions = predictions * 1e30
                loss = criterion(predictions.float(), targets)
                (scale := scaler.scale(loss)).backward()
                losses.append(loss.item())
                gradients.append(gradient_of(model) / (scale / loss).item())
                scaler.step(optimizer)
                scaler.update()
        return recorder.history, np.array(losses), np.array(gradients)

    def test_unfused_the_gradient_is_unscaled_and_an_overflow_leaves_no_row(self):
        history, losses, gradients = self.loop(torch.optim.SGD, overflow_at=2)
        made = [0, 1, 3, 4, 5]
        assert_array_equal(history.loss, losses[made])
        assert_allclose(history.gradient, gradients[made], rtol=1e-6)
        assert not history.skipped.any()

    @pytest.mark.usefixtures("summed")
    @pytest.mark.parametrize("settings", [{}, {"gradients": "norms"}, {"memory": 21 * 4 * 4}])
    def test_fused_the_gradient_is_unscaled_and_an_overflow_is_a_row_marked_as_skipped(
        self, settings
    ):
        def fused(parameters):
            return torch.optim.SGD(parameters, lr=0.01, fused=True)

        context = (
            pytest.warns(UserWarning, match="do not fit into memory=")
            if "memory" in settings
            else (warnings.catch_warnings())
        )
        with context:
            history, losses, gradients = self.loop(fused, 2, steps_per_epoch=6, **settings)
        assert_array_equal(history.loss, losses)
        assert_array_equal(history.skipped, [False, False, True, False, False, False])
        made = ~history.skipped
        norms = np.where(made, np.linalg.norm(gradients.astype(float), axis=1), np.nan)
        assert_allclose(history.gradient_norm, norms, rtol=1e-5)
        if not settings:
            assert_allclose(history.gradient[made], gradients[made], rtol=1e-6)
            assert np.isnan(history.gradient[2]).all()
        assert_allclose(history.path_gradient[0], gradients[made].mean(axis=0), rtol=1e-4)

    def test_fused_after_unscale_the_gradient_is_not_divided_again(self, model, criterion):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with record(optimizer, criterion) as recorder:
            inputs, targets = batches(1)[0]
            scaler.scale(criterion(model(inputs), targets)).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            scaler.step(optimizer)
        assert norm > 0.01
        assert_allclose(recorder.history.gradient_norm, [0.01], rtol=1e-4)


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("settings", [{}, {"gradients": "norms"}])
def test_sparse_gradients(settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 3, sparse=True), nn.Flatten(), nn.Linear(6, 1))
    embedding, linear = model[0], model[2]
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = []
    with record(optimizer, criterion, steps_per_epoch=3, **settings) as recorder:
        for k in range(3):
            optimizer.zero_grad()
            tokens = torch.tensor([[1, 1], [k, 6], [1, k]])  # several times: not coalesced
            criterion(model(tokens), torch.ones(3, 1)).backward()
            assert embedding.weight.grad.is_sparse
            assert not embedding.weight.grad.is_coalesced()
            gradients.append(
                flat([embedding.weight.grad.to_dense(), linear.weight.grad, linear.bias.grad])
            )
            optimizer.step()
    history = recorder.history
    assert_allclose(history.gradient_norm, np.linalg.norm(gradients, axis=1), rtol=1e-6)
    assert_allclose(history.path_gradient, [np.mean(gradients, axis=0)], rtol=1e-5, atol=1e-8)
    if not settings:
        assert_array_equal(history.gradient, gradients)


def test_clipping_shows_in_the_gradient_the_optimizer_is_given(model, criterion, sgd):
    with record(sgd, criterion) as recorder:
        backward(model, criterion, batches(1)[0])
        before = nn.utils.clip_grad_norm_(model.parameters(), 0.1).item()
        sgd.step()
    assert before > 0.1
    assert_allclose(recorder.history.gradient_norm, [0.1], rtol=1e-4)
