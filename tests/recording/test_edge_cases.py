"""Each row of the table of edge cases: a loop that does it, and what must be recorded of it."""

import copy
import io
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from sgd_analysis._criteria import denominator_of

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def network(n_outputs=1, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, n_outputs))


def batches(n, size=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, generator=generator), torch.randn(size, 1, generator=generator))
        for _ in range(n)
    ]


def flat(tensors):
    return torch.cat([torch.zeros(0)] + [t.detach().ravel() for t in tensors]).numpy()


def gradient_of(model):
    return flat([torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])


def backward(model, criterion, batch):
    inputs, targets = batch
    loss = criterion(model(inputs), targets)
    loss.backward()
    return loss.item()


@pytest.fixture
def model():
    return network()


@pytest.fixture
def criterion():
    return nn.MSELoss()


@pytest.fixture
def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def train(model, criterion, optimizer, data):
    """The plain loop; returns its losses and gradients."""
    losses, gradients = [], []
    for batch in data:
        optimizer.zero_grad()
        losses.append(backward(model, criterion, batch))
        gradients.append(gradient_of(model))
        optimizer.step()
    return losses, gradients


def test_the_hooks_return_none(model, criterion, sgd):
    with record(sgd, criterion):
        (forward,) = criterion._forward_hooks.values()
        (before,) = sgd._optimizer_step_pre_hooks.values()
        (after,) = sgd._optimizer_step_post_hooks.values()
        backward(model, criterion, batches(1)[0])
        output = criterion(model(torch.ones(2, 3)), torch.ones(2, 1))
        assert forward(criterion, (output, output), {}, output) is None
        assert before(sgd, (sgd,), {}) is None
        assert after(sgd, (sgd,), {}) is None


class TestClosures:
    def lbfgs(self, model, **options):
        return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=6, **options)

    @pytest.mark.parametrize("as_keyword", [False, True])
    @pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
    def test_of_lbfgs_the_first_evaluation_of_each_step_is_recorded(
        self, model, criterion, as_keyword, line_search
    ):
        optimizer = self.lbfgs(model, line_search_fn=line_search)
        expected, gradients, weights, evaluations = [], [], [], 0
        with record(optimizer, criterion, steps_per_epoch=2, weights=True) as recorder:
            for batch in batches(4):
                is_first = True

                def closure(batch=batch):
                    nonlocal is_first, evaluations
                    optimizer.zero_grad()
                    loss = criterion(model(batch[0]), batch[1])
                    loss.backward()
                    evaluations += 1
                    if is_first:
                        expected.append(loss.item())
                        gradients.append(gradient_of(model))
                        weights.append(flat(model.parameters()))
                        is_first = False
                    return loss

                if as_keyword:
                    optimizer.step(closure=closure)
                else:
                    optimizer.step(closure)
        assert evaluations > 8
        history = recorder.history
        assert_array_equal(history.loss, expected)
        assert_array_equal(history.gradient, gradients)
        assert_array_equal(history.weights, weights)
        assert history.n_epochs == 2

    def test_of_a_closure_that_accumulates_the_whole_first_evaluation_is_recorded(
        self, model, criterion
    ):
        optimizer = self.lbfgs(model)
        data = batches(2) + batches(1, size=2, seed=4)
        firsts = []

        def closure():
            optimizer.zero_grad()
            losses = [backward(model, criterion, batch) for batch in data]
            firsts.append(losses)
            return sum(losses)

        with record(optimizer, criterion) as recorder:
            optimizer.step(closure)
        assert_allclose(recorder.history.loss, [sum(firsts[0])], rtol=1e-12)
        assert_array_equal(recorder.history.n_samples, [12])

    def test_a_closure_that_the_optimizer_does_not_call(self, model, criterion):
        class Deaf(torch.optim.SGD):
            def step(self, closure=None):
                return super().step()

        optimizer = Deaf(model.parameters(), lr=0.1)
        with record(optimizer, criterion) as recorder:
            loss = backward(model, criterion, batches(1)[0])
            optimizer.step(lambda: None)
        assert_array_equal(recorder.history.loss, [loss])

    def test_the_value_of_the_closure_is_what_step_returns(self, model, criterion, sgd):
        with record(sgd, criterion) as recorder:
            loss = sgd.step(lambda: backward(model, criterion, batches(1)[0]))
        assert_array_equal(recorder.history.loss, [loss])


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


def test_a_subclass_that_calls_the_step_of_its_parent_is_one_step(model, criterion):
    class Child(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    class Grandchild(Child):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Grandchild(model.parameters(), lr=0.1)
    with record(optimizer, criterion, steps_per_epoch=2) as recorder:
        losses, gradients = train(model, criterion, optimizer, batches(4))
        closure_loss = []
        for batch in batches(2, seed=5):

            def closure(batch=batch):
                optimizer.zero_grad()
                closure_loss.append(backward(model, criterion, batch))

            optimizer.step(closure)
    assert_array_equal(recorder.history.loss, losses + closure_loss)
    assert_array_equal(recorder.history.gradient[:4], gradients)
    assert recorder.history.n_epochs == 3


class Failing(torch.optim.SGD):
    fails = False

    def step(self, closure=None):
        if self.fails:
            raise RuntimeError("no step today")
        return super().step(closure)


def test_an_exception_inside_step_does_not_confuse_the_steps_that_follow(model, criterion):
    optimizer = Failing(model.parameters(), lr=0.1)
    with record(optimizer, criterion, steps_per_epoch=3) as recorder:
        losses, _ = train(model, criterion, optimizer, batches(2))
        optimizer.fails = True
        optimizer.zero_grad()
        failed = backward(model, criterion, batches(1, seed=7)[0])
        with pytest.raises(RuntimeError, match="no step today"):
            optimizer.step()
        optimizer.fails = False
        later, _ = train(model, criterion, optimizer, batches(3, seed=8))
    # Its loss and gradient were seen, so that the step has its row.
    assert_array_equal(recorder.history.loss, [*losses, failed, *later])
    assert recorder.history.n_epochs == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_loop_keeps_what_was_recorded_and_its_hooks_come_off(
    model, criterion, sgd, error
):
    with pytest.raises(error, match="in the middle"), record(sgd, criterion) as recorder:
        losses, gradients = train(model, criterion, sgd, batches(3))
        criterion(model(torch.ones(2, 3)), torch.ones(2, 1)).backward()
        raise error("in the middle")
    assert_array_equal(recorder.history.loss, losses)
    assert_array_equal(recorder.history.gradient, gradients)
    assert not criterion._forward_hooks
    assert not sgd._optimizer_step_pre_hooks
    assert not sgd._optimizer_step_post_hooks


def test_an_interrupted_loop_tells_its_trouble_in_a_note(model, criterion, sgd):
    with pytest.raises(KeyboardInterrupt) as raised, record(sgd):
        train(model, criterion, sgd, batches(3))
        raise KeyboardInterrupt
    assert "From the recorder: the number of samples of 3 steps" in raised.value.__notes__[0]


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


class TestSeveralPasses:
    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_accumulation_gives_the_function_whose_gradient_is_accumulated(
        self, model, criterion, sgd, set_to_none
    ):
        data = list(zip(batches(6), batches(6, size=2, seed=3), strict=True))
        expected, gradients = [], []
        with record(sgd, criterion) as recorder:
            for large, small in data:
                sgd.zero_grad(set_to_none=set_to_none)
                losses = [backward(model, criterion, batch) for batch in (large, small)]
                expected.append(sum(losses))
                gradients.append(gradient_of(model))
                sgd.step()
        assert_allclose(recorder.history.loss, expected, rtol=1e-12)
        assert_array_equal(recorder.history.n_samples, [7] * 6)
        assert_array_equal(recorder.history.gradient, gradients)

    def test_accumulation_counts_a_pass_whose_gradient_is_exactly_zero(self, model, sgd):
        criterion = nn.HingeEmbeddingLoss()
        zero = (torch.zeros(5, 3), torch.full((5, 1), -1.0))

        def push(inputs, targets):
            loss = criterion(model(inputs) + 10 * (targets < 0), targets)
            loss.backward()
            return loss.item()

        with record(sgd, criterion) as recorder:
            sgd.zero_grad()
            assert push(*zero) == 0
            loss = push(torch.ones(5, 3), torch.ones(5, 1))
            sgd.step()
        assert_array_equal(recorder.history.loss, [loss])
        assert_array_equal(recorder.history.n_samples, [10])

    def test_accumulation_that_begins_in_the_middle_of_a_run(self, model, criterion, sgd):
        data = batches(7)
        with record(sgd, criterion) as recorder:
            losses, _ = train(model, criterion, sgd, data[:3])
            for pair in (data[3:5], data[5:]):
                sgd.zero_grad()
                losses.append(sum(backward(model, criterion, batch) for batch in pair))
                sgd.step()
        assert_allclose(recorder.history.loss, losses, rtol=1e-12)
        assert_array_equal(recorder.history.n_samples, [5, 5, 5, 10, 10])

    @pytest.mark.parametrize("from_the_start", [True, False])
    @pytest.mark.parametrize("zero", ["before", "between", "after", "in place"])
    def test_several_losses_of_one_pass_are_added_up(self, model, sgd, from_the_start, zero):
        first, second = nn.MSELoss(), nn.L1Loss()
        expected = []
        with record(sgd, first, second) as recorder:
            if not from_the_start:
                expected += train(model, first, sgd, batches(3))[0]
            for inputs, targets in batches(4):
                predictions = model(inputs)
                if zero == "before":
                    sgd.zero_grad()
                one = first(predictions, targets)
                if zero == "between":
                    sgd.zero_grad()
                two = second(predictions, targets)
                if zero in {"after", "in place"}:
                    sgd.zero_grad(set_to_none=zero == "after")
                (one + two).backward()
                sgd.step()
                expected.append(one.item() + two.item())
        assert_allclose(recorder.history.loss, expected, rtol=1e-6)  # added up in single precision
        assert_array_equal(recorder.history.n_samples, [5] * len(expected))

    @pytest.mark.parametrize("set_to_none", [True, False])
    @pytest.mark.parametrize("after", [0, 3])
    def test_of_two_passes_a_step_sam_uses_the_second(
        self, model, criterion, sgd, set_to_none, after
    ):
        expected, gradients = [], []
        with record(sgd, criterion) as recorder:
            expected, gradients = train(model, criterion, sgd, batches(after))
            for batch in batches(4):
                sgd.zero_grad(set_to_none=set_to_none)
                backward(model, criterion, batch)
                with torch.no_grad():
                    for p in model.parameters():
                        p.add_(p.grad, alpha=0.05)
                    shifts = [0.05 * p.grad for p in model.parameters()]
                sgd.zero_grad(set_to_none=set_to_none)
                expected.append(backward(model, criterion, batch))
                gradients.append(gradient_of(model))
                with torch.no_grad():
                    for p, shift in zip(model.parameters(), shifts, strict=True):
                        p.sub_(shift)
                sgd.step()
        assert_array_equal(recorder.history.loss, expected)
        assert_array_equal(recorder.history.gradient, gradients)

    def test_clearing_the_gradients_before_the_step_leaves_no_loss(self, model, criterion, sgd):
        recorder = record(sgd, criterion)
        backward(model, criterion, batches(1)[0])
        sgd.zero_grad()
        sgd.step()
        with pytest.warns(UserWarning, match="gradients cleared between backward"):
            recorder.close()
        assert np.isnan(recorder.history.loss).all()
        assert_array_equal(recorder.history.gradient_norm, [0])


class TestTwoOptimizers:
    """A criterion that a generator and a discriminator share."""

    def gan(self, style, set_to_none, gradients="auto"):
        generator, discriminator = network(n_outputs=3, seed=1), network(seed=2)
        criterion = nn.BCEWithLogitsLoss()
        of_g = torch.optim.SGD(generator.parameters(), lr=0.1)
        of_d = torch.optim.SGD(discriminator.parameters(), lr=0.1)
        ones, zeros = torch.ones(5, 1), torch.zeros(5, 1)
        losses = {"g": [], "d": []}
        seen = {"g": [], "d": []}
        with record(of_g, criterion) as g, record(of_d, criterion) as d:
            for inputs, _ in batches(5):
                fake = generator(inputs)
                if style == "zero first":
                    discriminator.zero_grad(set_to_none=set_to_none)
                real_loss = criterion(discriminator(inputs), ones)
                if style == "zero first":
                    real_loss.backward()
                fake_loss = criterion(discriminator(fake.detach()), zeros)
                if style == "zero first":
                    fake_loss.backward()
                    losses["d"].append(real_loss.item() + fake_loss.item())
                else:
                    of_d.zero_grad(set_to_none=set_to_none)
                    ((real_loss + fake_loss) / 2).backward()
                    losses["d"].append((real_loss.item() + fake_loss.item()) / 2)
                seen["d"].append(gradient_of(discriminator))
                of_d.step()
                if style == "zero first":
                    generator.zero_grad(set_to_none=set_to_none)
                loss = criterion(discriminator(fake), ones)
                of_g.zero_grad(set_to_none=set_to_none)
                loss.backward()
                losses["g"].append(loss.item())
                seen["g"].append(gradient_of(generator))
                of_g.step()
        return (g.history, d.history), losses, seen

    @pytest.mark.parametrize("style", ["zero first", "zero late"])
    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_each_recorder_takes_the_losses_of_its_own_steps(self, style, set_to_none):
        (g, d), losses, seen = self.gan(style, set_to_none)
        assert_allclose(d.loss, losses["d"], rtol=1e-6)  # added up in single precision
        assert_array_equal(d.n_samples, [10 if style == "zero first" else 5] * 5)
        assert_array_equal(d.gradient, seen["d"])
        assert_allclose(g.loss, losses["g"], rtol=1e-12)
        assert_array_equal(g.gradient, seen["g"])


def test_two_recorders_of_one_loop_are_both_right(model, criterion, sgd):
    with record(sgd, criterion) as outer, record(sgd, criterion, gradients="norms") as inner:
        losses, gradients = train(model, criterion, sgd, batches(4))

        def closure():
            sgd.zero_grad()
            losses.append(backward(model, criterion, batches(1, seed=9)[0]))
            gradients.append(gradient_of(model))

        sgd.step(closure)
    for recorder in (outer, inner):
        assert_array_equal(recorder.history.loss, losses)
        assert_allclose(
            recorder.history.gradient_norm, np.linalg.norm(gradients, axis=1), rtol=1e-6
        )
    assert_array_equal(outer.history.gradient, gradients)


def test_recording_twice_in_a_row_begins_anew(model, criterion, sgd):
    for seed in (1, 2):
        with record(sgd, criterion, steps_per_epoch=3) as recorder:
            losses, _ = train(model, criterion, sgd, batches(3, seed=seed))
        assert_array_equal(recorder.history.loss, losses)
        assert recorder.history.n_epochs == 1


class TestEvaluation:
    @pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
    def test_without_gradients_it_is_ignored(self, model, criterion, sgd, grad_mode):
        losses = []
        with record(sgd, criterion) as recorder:
            for batch in batches(4):
                losses += train(model, criterion, sgd, [batch])[0]
                with grad_mode():
                    criterion(model(batch[0]), batch[1])
        assert_array_equal(recorder.history.loss, losses)

    @pytest.mark.parametrize("every", [1, 3])
    def test_with_gradients_but_without_a_backward_pass_it_is_ignored(
        self, model, criterion, sgd, every
    ):
        losses = []
        with record(sgd, criterion) as recorder:
            for k, batch in enumerate(batches(12)):
                losses += train(model, criterion, sgd, [batch])[0]
                if k % every == 0:
                    criterion(model(batch[0]), batch[1])
        assert_array_equal(recorder.history.loss, losses)


class TestReductions:
    def running_loss(self, criterion, gradients="auto"):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        data = batches(3) + batches(1, size=2)
        with record(optimizer, criterion, steps_per_epoch=4, gradients=gradients) as recorder:
            for inputs, targets in data:
                optimizer.zero_grad()
                criterion(model(inputs), targets).mean().backward()
                optimizer.step()
        return recorder.history

    @pytest.mark.parametrize("reduction", ["sum", "none"])
    def test_the_running_loss_is_that_of_the_mean(self, reduction):
        mean = self.running_loss(nn.MSELoss())
        other = self.running_loss(nn.MSELoss(reduction=reduction))
        assert other.metadata["reduction"] == reduction
        assert_allclose(other.running_loss, mean.running_loss, rtol=1e-6)
        assert_allclose(other.mean_batch_loss, mean.mean_batch_loss, rtol=1e-6)
        assert_array_equal(other.n_samples, mean.n_samples)
        assert_allclose(other.path_gradient, mean.path_gradient, rtol=1e-4, atol=1e-8)

    def test_a_loss_that_is_a_sum_is_recorded_as_the_loop_prints_it(self):
        mean = self.running_loss(nn.MSELoss())
        total = self.running_loss(nn.MSELoss(reduction="sum"))
        assert_allclose(total.loss, mean.loss * [5, 5, 5, 2], rtol=1e-6)
        streamed = self.running_loss(nn.MSELoss(reduction="sum"), gradients="norms")
        assert_allclose(streamed.path_gradient, total.path_gradient, rtol=1e-5, atol=1e-8)

    def test_sums_of_several_passes_are_added_up(self, model, sgd):
        criterion = nn.MSELoss(reduction="sum")
        with record(sgd, criterion) as recorder:
            losses = [backward(model, criterion, batch) for batch in batches(3)]
            sgd.step()
        assert_allclose(recorder.history.loss, [sum(losses)], rtol=1e-12)
        assert_allclose(recorder.history.batch_loss, [sum(losses) / 15], rtol=1e-12)


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


class TestDenominators:
    """The denominator is what makes the size-weighted mean of batch losses that of all samples."""

    def check(self, criterion, predictions, targets, expected, **settings):
        """Record parts of unequal sizes, and compare with the loss of all of them together."""
        shift = nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.SGD([shift], lr=0.0)
        samples = settings.pop("samples", [5, 2])
        with record(optimizer, criterion, steps_per_epoch=2, **settings) as recorder:
            for part in (slice(0, 5), slice(5, None)):
                criterion(predictions[part] + shift, targets[part]).backward()
                optimizer.step()
        assert_allclose(recorder.history.denominator, expected, rtol=1e-6)
        assert_array_equal(recorder.history.n_samples, samples)
        whole = criterion(predictions, targets).item()
        assert_allclose(recorder.history.running_loss, [whole], rtol=1e-5)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_of_class_weights_it_is_their_sum(self, smoothing):
        weight = torch.tensor([1.0, 2.0, 0.5])
        targets = torch.tensor([0, 1, 2, 1, 0, 2, 2])
        criterion = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
        expected = [weight[targets[:5]].sum(), weight[targets[5:]].sum()]
        self.check(criterion, torch.randn(7, 3), targets, expected)

    def test_of_ignored_targets_it_leaves_them_out(self):
        targets = torch.tensor([0, -100, 2, 1, -100, 2, -100])
        self.check(nn.CrossEntropyLoss(), torch.randn(7, 3), targets, [3, 1])
        targets = torch.tensor([0, 1, 2, 1, 1, 2, 1])
        self.check(nn.CrossEntropyLoss(ignore_index=1), torch.randn(7, 3), targets, [2, 1])

    def test_of_class_weights_and_ignored_targets_it_does_both(self):
        weight = torch.tensor([1.0, 2.0, 0.5])
        targets = torch.tensor([0, -100, 2, 1, -100, 2, -100])
        predictions = torch.randn(7, 3).log_softmax(dim=1)
        self.check(nn.NLLLoss(weight=weight), predictions, targets, [3.5, 0.5])

    def test_of_pixels_it_counts_each(self):
        targets = torch.randint(3, (7, 2, 2))
        self.check(nn.CrossEntropyLoss(), torch.randn(7, 3, 2, 2), targets, [20, 8])

    def test_of_probabilities_it_is_the_number_of_samples(self):
        targets = torch.rand(7, 3).softmax(dim=1)
        self.check(nn.CrossEntropyLoss(), torch.randn(7, 3), targets, [5, 2])

    @pytest.mark.parametrize(
        "criterion",
        [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.SmoothL1Loss(), nn.BCEWithLogitsLoss()],
        ids=lambda criterion: type(criterion).__name__,
    )
    def test_of_losses_over_elements_it_is_their_number(self, criterion):
        self.check(criterion, torch.randn(7, 3), torch.rand(7, 3), [15, 6])

    def test_of_kl_divergence_by_batch_it_is_the_number_of_samples(self):
        log = torch.randn(7, 3).log_softmax(dim=1)
        targets = torch.rand(7, 3).softmax(dim=1)
        self.check(nn.KLDivLoss(reduction="batchmean"), log, targets, [5, 2])

    def test_of_a_module_of_ones_own_it_is_the_length_of_the_first_argument(self):
        class Own(nn.Module):
            def forward(self, predictions, targets):
                return (predictions - targets).abs().sum(dim=1).mean()

        self.check(Own(), torch.randn(7, 3), torch.rand(7, 3), [5, 2])

    def test_it_may_be_given_as_a_function_of_the_arguments(self):
        def count(predictions, targets):
            return 3 * len(targets)

        self.check(
            nn.L1Loss(),
            torch.randn(7, 2),
            torch.rand(7, 2),
            [15, 6],
            n_samples=count,
            samples=[15, 6],
        )

    @pytest.mark.parametrize("shapes", [[(6, 4)] * 3, [(6, 4), (1, 4), (6, 1)]])
    def test_of_margins_between_pairs_it_counts_each(self, shapes):
        first, second = (nn.Parameter(torch.randn(shape)) for shape in shapes[:2])
        criterion, optimizer = nn.MarginRankingLoss(), torch.optim.SGD([first, second], 0.1)
        with record(optimizer, criterion) as recorder:
            criterion(first, second, torch.ones(shapes[2])).backward()
            optimizer.step()
        assert_array_equal(recorder.history.denominator, [24])
        assert_array_equal(recorder.history.n_samples, [6])

    @pytest.mark.filterwarnings("ignore:.*divides the total loss by both")
    @pytest.mark.parametrize("name", sorted(LOSSES))
    def test_it_is_the_sum_over_the_mean_of_every_loss_of_torch(self, name):
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

    def test_of_targets_ignored_by_a_loss_with_a_layer_of_its_own_it_leaves_them_out(self):
        if not hasattr(nn, "LinearCrossEntropyLoss"):
            pytest.skip("this torch has no LinearCrossEntropyLoss")
        criterion = nn.LinearCrossEntropyLoss(3, 4, ignore_index=-100)
        optimizer = torch.optim.SGD(criterion.parameters(), 0.1)
        with record(optimizer, criterion) as recorder:
            criterion(torch.randn(6, 3), torch.tensor([0, -100, 1, -100, 2, -100])).backward()
            optimizer.step()
        assert_array_equal(recorder.history.denominator, [3])
        assert_array_equal(recorder.history.n_samples, [6])

    def test_a_function_that_fails_leaves_nan_and_is_reported(self, model, criterion, sgd):
        recorder = record(sgd, criterion, n_samples=lambda predictions: 1)
        losses, _ = train(model, criterion, sgd, batches(2))
        with pytest.warns(UserWarning, match="number of samples of a batch is not known"):
            recorder.close()
        assert_array_equal(recorder.history.loss, losses)
        assert np.isnan(recorder.history.n_samples).all()

    def test_arguments_may_be_given_by_name(self, model, criterion, sgd):
        inputs, targets = batches(1)[0]
        with record(sgd, criterion) as recorder:
            criterion(input=model(inputs), target=targets).backward()
            sgd.step()
        assert_array_equal(recorder.history.n_samples, [5])


class TestCopies:
    def check_inert(self, criterion_copy, recorder):
        before = recorder.history.n_steps
        other = network(seed=3)
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        train(other, criterion_copy, optimizer, batches(2))
        assert recorder.history.n_steps == before

    def test_pickled_or_deep_copied_while_recording(self, model, criterion, sgd):
        with record(sgd, criterion) as recorder:
            train(model, criterion, sgd, batches(1))
            for duplicate in (copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
                self.check_inert(duplicate(criterion), recorder)
                optimizer = duplicate(sgd)
                optimizer.step()
                assert optimizer.state_dict() == sgd.state_dict()
            together = copy.deepcopy({"model": model, "criterion": criterion, "optimizer": sgd})
            train(together["model"], together["criterion"], together["optimizer"], batches(2))
            assert recorder.history.n_steps == 1
            losses, _ = train(model, criterion, sgd, batches(1))
        assert_array_equal(recorder.history.loss[1:], losses)

    def test_a_pickled_criterion_loads_where_the_package_is_not_installed(self, criterion, sgd):
        with record(sgd, criterion):
            pickled = pickle.dumps(criterion)
        assert b"sgd_analysis" not in pickled

    def test_a_checkpoint_with_the_loss_can_be_saved_while_recording(self, model, criterion, sgd):
        with record(sgd, criterion):
            for batch in batches(3):
                loss = criterion(model(batch[0]), batch[1])
                loss.backward()
                file = io.BytesIO()
                torch.save({"model": model, "loss": loss.detach(), "state": sgd.state_dict()}, file)
                assert not loss._backward_hooks
                sgd.step()

    def test_after_closing_nothing_is_left_to_copy(self, model, criterion, sgd):
        with record(sgd, criterion) as recorder:
            train(model, criterion, sgd, batches(1))
        assert not pickle.loads(pickle.dumps(criterion))._forward_hooks
        self.check_inert(copy.deepcopy(criterion), recorder)

    def test_a_recorder_itself_is_not_copied(self, criterion, sgd):
        with record(sgd, criterion) as recorder:
            for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match=r"use recorder\.history"):
                    duplicate(recorder)


class TestCompile:
    @pytest.fixture(autouse=True)
    def fresh(self):
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    def test_a_compiled_model_is_recorded(self, model, criterion, sgd):
        compiled = torch.compile(model, backend="eager")
        with record(sgd, criterion) as recorder:
            losses, gradients = train(compiled, criterion, sgd, batches(3))
        assert_array_equal(recorder.history.loss, losses)
        assert_array_equal(recorder.history.gradient, gradients)

    # torch's own, from the tracing of any function of a tensor that is not a leaf
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_a_compiled_criterion_is_recorded_when_it_is_what_is_given(self, model, criterion, sgd):
        compiled = torch.compile(criterion, backend="eager")
        with record(sgd, compiled) as recorder:
            losses, _ = train(model, compiled, sgd, batches(3))
        assert_array_equal(recorder.history.loss, losses)

    @pytest.mark.filterwarnings("ignore")  # torch's own, from the imports of its compiler
    @pytest.mark.parametrize("what", ["step of the optimizer", "whole step"])
    def test_a_step_that_is_compiled_and_cannot_be_seen_is_reported(
        self, model, criterion, sgd, what
    ):
        recorder = record(sgd, criterion)
        step = torch.compile(sgd.step, backend="eager")

        def whole(inputs, targets):
            loss = criterion(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.sub_(0.1 * gradient)

        for batch in batches(3):
            if what == "whole step":
                torch.compile(whole, backend="eager")(*batch)
            else:
                sgd.zero_grad()
                backward(model, criterion, batch)
                step()
        if recorder.history.n_steps:  # the compiler has left the hooks in
            assert recorder.history.n_steps == 3
            return
        with pytest.warns(UserWarning, match=r"no step of the optimizer.*compile"):
            recorder.close()

    def test_a_scripted_criterion_takes_no_hooks_and_is_refused_with_a_way_out(self, model, sgd):
        class Criterion(nn.Module):
            def forward(self, predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                return (predictions - targets).square().mean()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that scripting is a thing of the past
            scripted = torch.jit.script(Criterion())
        with pytest.raises(TypeError, match=r"takes no hooks.*recorder\.observe"):
            record(sgd, scripted)
        assert not sgd._optimizer_step_pre_hooks
        with record(sgd) as recorder:
            for inputs, targets in batches(2):
                sgd.zero_grad()
                loss = scripted(model(inputs), targets)
                recorder.observe(loss, len(inputs))
                loss.backward()
                sgd.step()
        assert_array_equal(recorder.history.n_samples, [5, 5])

    def test_a_criterion_inside_compiled_code_is_reported(self, model, criterion, sgd):
        compiled = torch.compile(lambda x, y: criterion(model(x), y), backend="eager")

        def step(batch):
            sgd.zero_grad()
            loss = compiled(*batch)
            loss.backward()
            sgd.step()
            return loss.item()

        data = batches(6)
        step(data[0])
        recorder = record(sgd, criterion)
        losses = [step(batch) for batch in data[1:]]
        assert np.isfinite(losses).all()
        with pytest.warns(UserWarning, match=r"number of samples of 5 steps is not known.*observe"):
            recorder.close()
        assert_array_equal(recorder.history.loss, losses)
        assert np.isnan(recorder.history.n_samples).all()
        assert np.isfinite(recorder.history.gradient).all()


class TestOutputs:
    def test_a_criterion_may_return_more_than_its_loss(self, model, sgd):
        class Pair(nn.Module):
            def forward(self, predictions, targets):
                loss = (predictions - targets).square().mean()
                return loss, loss.detach()

        criterion = Pair()
        losses = []
        with record(sgd, criterion) as recorder:
            for inputs, targets in batches(2):
                sgd.zero_grad()
                loss, _ = criterion(model(inputs), targets)
                loss.backward()
                sgd.step()
                losses.append(loss.item())
        assert_array_equal(recorder.history.loss, losses)
        assert_array_equal(recorder.history.n_samples, [5, 5])

    def test_a_loss_that_is_changed_in_place_is_recorded_as_its_gradient_was_taken(
        self, model, criterion, sgd
    ):
        with record(sgd, criterion) as recorder:
            inputs, targets = batches(1)[0]
            loss = criterion(model(inputs), targets)
            loss /= 4
            loss.backward()
            sgd.step()
        assert_array_equal(recorder.history.loss, [loss.item()])
        assert_array_equal(recorder.history.n_samples, [5])

    def test_clipping_shows_in_the_gradient_the_optimizer_is_given(self, model, criterion, sgd):
        with record(sgd, criterion) as recorder:
            backward(model, criterion, batches(1)[0])
            before = nn.utils.clip_grad_norm_(model.parameters(), 0.1).item()
            sgd.step()
        assert before > 0.1
        assert_allclose(recorder.history.gradient_norm, [0.1], rtol=1e-4)


class TestMemory:
    def test_what_does_not_fit_is_streamed_and_what_was_kept_stays(self, model, criterion, sgd):
        memory = 21 * 4 * 10  # ten steps' gradients
        recorder = record(sgd, criterion, steps_per_epoch=4, memory=memory)
        losses, gradients = train(model, criterion, sgd, batches(18))
        with pytest.warns(UserWarning, match="for the first 10 steps, more do not fit"):
            recorder.end_epoch()
        recorder.close()  # it has been said, and is not said again
        history = recorder.history
        assert_array_equal(history.loss, losses)
        assert_array_equal(history.gradients.kept, gradients[:10])
        assert_allclose(history.gradient_norm, np.linalg.norm(gradients, axis=1), rtol=1e-6)
        assert_array_equal(history[:2].gradient, gradients[:8])
        parts = np.split(np.array(gradients, dtype=float), [4, 8, 12, 16])
        paths = np.array([part.mean(axis=0) for part in parts])
        assert_allclose(history.path_gradient_norm, np.linalg.norm(paths, axis=1), rtol=1e-5)
        assert_allclose(history[:2].path_gradient, paths[:2], rtol=1e-5, atol=1e-8)
        assert_allclose(history[-1].path_gradient, paths[-1:], rtol=1e-5, atol=1e-8)
        with pytest.raises(ValueError, match=r"first 10 of these 18.*last epoch.*is \[1\]"):
            _ = history.gradient
        with pytest.raises(ValueError, match=r"path_gradient was kept for the first 10 of these"):
            _ = history.path_gradient

    @pytest.mark.parametrize("weights", [False, True])
    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
    def test_it_stays_within_its_memory_while_it_grows(self, weights):
        code = rf"""
import re, torch
from sgd_analysis import record
weight = torch.nn.Parameter(torch.zeros(250_000))
optimizer = torch.optim.SGD([weight], lr=0.1)

def peak_after(n_steps, memory):
    with record(optimizer, steps_per_epoch=10, memory=memory, weights={weights}) as recorder:
        for _ in range(n_steps):
            optimizer.zero_grad()
            weight.sum().backward()
            recorder.observe(1.0, 1)
            optimizer.step()
    # Unlike ru_maxrss, not that of the process this one was forked from.
    return int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])

bare = peak_after(10, 4 << 20)
print((peak_after(150, 100 << 20) - bare) / (100 << 10))
"""
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
        )
        # Besides the vectors: a block of them, the sum of an epoch, and what the allocator keeps.
        assert 0.8 < float(result.stdout) < 1.15

    def test_what_is_kept_when_parameters_change_is_copied_only_if_there_is_room(
        self, model, criterion, sgd
    ):
        recorder = record(sgd, criterion, memory=21 * 4 * 16)
        train(model, criterion, sgd, batches(9))
        model.double()
        data = [(inputs.double(), targets.double()) for inputs, targets in batches(3)]
        train(model, criterion, sgd, data)
        with pytest.warns(UserWarning, match="kept for the first 9 steps"):
            recorder.close()
        assert recorder.history.gradients.kept.shape == (9, 21)

    def test_the_epoch_of_the_changeover_has_its_path_gradient(self, model, criterion, sgd):
        recorder = record(sgd, criterion, steps_per_epoch=6, memory=21 * 4 * 8)
        _, gradients = train(model, criterion, sgd, batches(12))
        with pytest.warns(UserWarning, match="for the first 8 steps"):
            recorder.close()
        path = np.mean(np.array(gradients[6:], dtype=float), axis=0)
        assert_allclose(recorder.history[1].path_gradient, [path], rtol=1e-5, atol=1e-8)

    def test_no_gradients_are_looked_at_if_none_are_wanted(self, model, criterion, sgd):
        with record(sgd, criterion, gradients="none") as recorder:
            train(model, criterion, sgd, batches(2))
        with pytest.raises(ValueError, match="gradients were not recorded"):
            _ = recorder.history.gradient_norm
        with pytest.raises(ValueError, match=r"weights were not recorded: record\(\.\.\., weights"):
            _ = recorder.history.weights

    def test_a_row_takes_at_most_64_bytes_besides_the_gradient(self, model, criterion, sgd):
        inputs, targets = batches(1)[0]
        recorder = record(sgd, criterion, steps_per_epoch=1000, gradients="none")

        def steps(n):
            for _ in range(n):
                sgd.zero_grad()
                criterion(model(inputs), targets).backward()
                sgd.step()

        ours = tracemalloc.Filter(True, "*/sgd_analysis/*", all_frames=True)
        tracemalloc.start(4)
        taken = []
        for n in (500, 2000):
            steps(n)
            _ = recorder.history  # after it no row waits any more, as 256 at most do
            traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
            taken.append(sum(trace.size for trace in traces))
        tracemalloc.stop()
        recorder.close()
        assert recorder.history.n_steps == 2500
        assert (taken[1] - taken[0]) / 2000 <= 64

    def test_a_model_of_a_hundred_million_parameters_takes_one_more_vector(self):
        code = """
import resource, torch
from sgd_analysis import record
weight = torch.nn.Parameter(torch.zeros(100_000_000))
optimizer = torch.optim.SGD([weight], lr=0.1)

def peak_after_steps(recorder=None):
    for _ in range(4):
        optimizer.zero_grad()
        loss = weight.sum()
        if recorder:
            recorder.observe(loss, 1)
        loss.backward()
        optimizer.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

bare = peak_after_steps()
with record(optimizer, gradients="norms", steps_per_epoch=2) as recorder:
    recorded = peak_after_steps(recorder)
    assert recorder.history.n_epochs == 2
print((recorded - bare) * 1024 / (4 * weight.numel()))
"""
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert float(result.stdout) < 1.1
