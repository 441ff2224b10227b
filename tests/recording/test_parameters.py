"""Parameters that are frozen, tied, grouped, added or converted."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import backward, batches, flat, gradient_of, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class TestParameters:
    def test_one_without_a_gradient_and_a_frozen_one_hold_zeros(self, criterion):
        model = nn.ModuleDict({"used": nn.Linear(3, 1), "unused": nn.Linear(2, 1)})
        model["used"].bias.requires_grad_(False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with record(optimizer, criterion) as recorder:
            backward(model["used"], criterion, batches(1)[0])
            optimizer.step()
        gradient = recorder.history.gradient
        assert_array_equal(gradient, [gradient_of(model)])
        assert_array_equal(gradient[0, 3:], np.zeros(4))

    def test_one_that_is_unfrozen_later_keeps_its_place(self, model, criterion, sgd):
        model[0].requires_grad_(False)
        with record(sgd, criterion) as recorder:
            _, frozen = train(model, criterion, sgd, batches(2))
            model[0].requires_grad_(True)
            _, free = train(model, criterion, sgd, batches(2, seed=3))
        assert_array_equal(recorder.history.gradient, frozen + free)
        assert recorder.history.gradient[:2, :16].max() == 0

    @pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
    def test_tied_ones_are_recorded_once(self, criterion):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
                self.second.weight = self.first.weight

            def forward(self, inputs):
                return self.second(torch.tanh(self.first(inputs))).sum(dim=1, keepdim=True)

        model = Tied()
        twice = [p for layer in (model.first, model.second) for p in layer.parameters()]
        for parameters in (list(model.parameters()), twice):
            optimizer = torch.optim.SGD(parameters, lr=0.1)
            with record(optimizer, criterion) as recorder:
                optimizer.zero_grad()
                backward(model, criterion, batches(1)[0])
                optimizer.step()
            assert_array_equal(recorder.history.gradient, [gradient_of(model)])

    def test_several_groups_have_a_step_size_each(self, model, criterion):
        groups = [{"params": model[2].parameters()}, {"params": model[0].parameters(), "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
        with record(optimizer, criterion, steps_per_epoch=2) as recorder:
            for _ in range(2):
                _, gradients = train(model, criterion, optimizer, batches(2))
                scheduler.step()
        step_sizes = [[0.1, 0.5]] * 2 + [[0.05, 0.25]] * 2
        assert_array_equal(recorder.history.step_size, step_sizes)
        in_group_order = np.concatenate([gradients[-1][16:], gradients[-1][:16]])
        assert_array_equal(recorder.history.gradient[-1], in_group_order)

    @pytest.mark.parametrize("settings", [{}, {"gradients": "norms"}])
    def test_a_group_that_is_added_later_is_seen(self, model, criterion, settings):
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        with record(optimizer, criterion, steps_per_epoch=2, weights=True, **settings) as recorder:
            _, before = train(model, criterion, optimizer, batches(2))
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
            after = []
            for batch in batches(2, seed=3):
                model.zero_grad()
                backward(model, criterion, batch)
                after.append(gradient_of(model))
                optimizer.step()
        history = recorder.history
        assert_array_equal(history.step_size, [[0.1, np.nan]] * 2 + [[0.1, 0.01]] * 2)
        # Before it was added, its parameters were not moved: their gradient counts as zero.
        first = [np.concatenate([g[16:], np.zeros(16)]) for g in before]
        then = [np.concatenate([g[16:], g[:16]]) for g in after]
        assert_allclose(history.gradient_norm, np.linalg.norm(first + then, axis=1), rtol=1e-6)
        assert np.isnan(history.weights[:2, 5:]).all()
        assert np.isfinite(history.weights[2:]).all()
        assert_allclose(history[-1].path_gradient, [np.mean(then, axis=0)], rtol=1e-5)
        if not settings:
            assert_array_equal(history.gradient, first + then)

    def test_step_sizes_that_are_tensors(self, model, criterion):
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.25))
        with record(optimizer, criterion) as recorder:
            train(model, criterion, optimizer, batches(2))
            optimizer.param_groups[0]["lr"].fill_(0.5)
            train(model, criterion, optimizer, batches(1))
        assert_array_equal(recorder.history.step_size, [[0.25], [0.25], [0.5]])

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [(torch.float64, "float64"), (torch.bfloat16, "float32"), (torch.float16, "float16")],
    )
    def test_gradients_come_in_the_dtype_of_the_parameters(self, criterion, dtype, expected):
        model = nn.Linear(3, 1).to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = [(x.to(dtype), y.to(dtype)) for x, y in batches(3)]
        for gradients in ("auto", "norms"):
            with record(optimizer, criterion, steps_per_epoch=3, gradients=gradients) as recorder:
                seen = []
                for batch in data:
                    optimizer.zero_grad()
                    backward(model, criterion, batch)
                    seen.append(flat([p.grad.double() for p in model.parameters()]))
                    optimizer.step()
            history = recorder.history
            assert_allclose(history.gradient_norm, np.linalg.norm(seen, axis=1), rtol=1e-6)
            if gradients == "auto":
                assert history.gradient.dtype == expected
                assert_array_equal(history.gradient, seen)

    def test_a_model_made_double_in_the_middle_is_recorded_so_from_there_on(
        self, model, criterion, sgd
    ):
        with record(sgd, criterion) as recorder:
            _, single = train(model, criterion, sgd, batches(2))
            model.double()
            data = [(inputs.double(), targets.double()) for inputs, targets in batches(2, seed=3)]
            _, double = train(model, criterion, sgd, data)
        gradient = recorder.history.gradient
        assert gradient.dtype == np.float64
        assert_array_equal(gradient[:2], np.array(single, dtype=float))
        assert_array_equal(gradient[2:], double)

    @pytest.mark.parametrize("gradients", ["auto", "norms"])
    def test_norms_of_gradients_whose_squares_overflow(self, gradients):
        weight = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        with record(optimizer, gradients=gradients, steps_per_epoch=1) as recorder:
            (1e20 * weight).sum().backward()
            recorder.observe(1.0, 1)
            optimizer.step()
        assert_allclose(recorder.history.gradient_norm, [np.sqrt(2) * 1e20], rtol=1e-6)
        assert_allclose(recorder.history.path_gradient_norm, [np.sqrt(2) * 1e20], rtol=1e-6)

    def test_complex_ones(self):
        weight = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for gradients in ("auto", "norms"):
            with record(optimizer, gradients=gradients) as recorder:
                recorder.observe(1.0, 1)
                optimizer.zero_grad()
                weight.abs().square().sum().backward()
                expected = np.linalg.norm(weight.grad.numpy())
                optimizer.step()
            assert_allclose(recorder.history.gradient_norm, [expected], rtol=1e-6)
