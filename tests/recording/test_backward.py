"""Standing in for torch's backward pass, while someone listens and no longer."""

import gc
import weakref

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from tests.recording.loops import Loop, plain

pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class TestStandingInForTorch:
    @pytest.fixture(autouse=True)
    def alone(self):
        gc.collect()  # the recorders that other tests have left open

    def test_the_last_recorder_that_leaves_puts_torchs_own_functions_back(self):
        before = torch.autograd._engine_run_backward, torch.amp.GradScaler.scale
        loop = Loop()
        with loop.record(), loop.record():
            assert torch.autograd._engine_run_backward is not before[0]
        assert (torch.autograd._engine_run_backward, torch.amp.GradScaler.scale) == before

    def test_a_recorder_that_is_not_closed_keeps_nothing_alive(self):
        before = torch.autograd._engine_run_backward
        loop = Loop()
        model = weakref.ref(loop.model)
        loop.record()
        plain(loop)
        del loop
        gc.collect()
        assert model() is None
        assert torch.autograd._engine_run_backward is before

    def test_who_stands_in_meanwhile_stays(self, monkeypatch):
        loop, calls = Loop(), []
        recorder = loop.record()
        ours = torch.autograd._engine_run_backward
        monkeypatch.setattr(
            torch.autograd,
            "_engine_run_backward",
            lambda *args, **kwargs: calls.append(None) or ours(*args, **kwargs),
        )
        plain(loop)
        recorder.close()
        plain(loop)
        assert len(calls) == 2
        assert_array_equal(recorder.history.loss, loop.printed[:1])

    def test_a_pass_that_raises_leaves_no_trace(self):
        loop = Loop()
        with loop.record() as recorder:
            inputs, targets = loop.batch(3)
            loss = loop.loss(inputs, targets)
            loss.register_hook(lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                loss.backward()
            plain(loop)
        assert_array_equal(recorder.history.loss, loop.printed)
        assert_array_equal(recorder.history.n_samples, [10])

    def test_evaluations_that_are_never_differentiated_keep_no_graph_alive(self):
        class Seen(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.kept = kept = nn.Module()
                alive.append(weakref.ref(kept))
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                return gradient

        alive, loop = [], Loop()
        with loop.record():
            for _ in range(5):
                loop.criterion(Seen.apply(loop.model(torch.ones(2, 3))), torch.ones(2, 1))
            gc.collect()
            assert not any(one() for one in alive)
            plain(loop)


def test_a_pass_from_an_edge_of_the_graph_has_its_sizes_and_ends_no_recording():
    loop = Loop()
    recorder = loop.record(steps_per_epoch=2)
    for inputs, targets in [loop.batch(), loop.batch()]:
        loop.optimizer.zero_grad()
        edge = torch.autograd.graph.get_gradient_edge(loop.loss(inputs, targets))
        try:
            torch.autograd.backward([edge])
        except (TypeError, AttributeError) as error:
            pytest.skip(f"this torch makes no pass from an edge: {error}")
        loop.optimizer.step()
    with pytest.warns(UserWarning, match="2 steps .* their loss is nan") as warned:
        recorder.close()
    assert "recording stopped" not in str(warned[0].message)
    assert np.isnan(recorder.history.loss).all()  # the edge does not hold the loss
    assert_array_equal(recorder.history.n_samples, [10, 10])
    assert np.isfinite(recorder.history.gradient).all()
