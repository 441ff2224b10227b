"""A survey leaves the model, the recording and all random states as they were, to the bit."""

import contextlib
import copy
import random
import types

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import record, survey
from sgd_analysis.surveying import batches
from tests.surveying.surveyed_models import (
    AT_ONCE,
    N_BATCHES,
    ONE_BY_ONE,
    Embedded,
    Recurrent,
    SavesItsOutput,
    built,
    evaluated_at_once,
    everything,
    normalised,
    random_states,
    sequence,
    small_batches,
)

DROPS = sequence(nn.Dropout)


class Noisy(torch.utils.data.Dataset):
    """Its transforms draw from all three generators."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        noise = random.random() + np.random.normal() + torch.rand(3, dtype=torch.float64)
        return index + noise, noise


class TestNothingChanges:
    @pytest.mark.parametrize("shuffle", [True, False])
    def test_random_states_with_a_loader_that_draws(self, shuffle):
        model = built(sequence(nn.Tanh))
        np.random.normal()  # so that the second of a pair waits in numpy's state
        before = random_states()
        found = survey(model, nn.MSELoss(), DataLoader(Noisy(), batch_size=5, shuffle=shuffle))
        assert random_states() == before
        assert_array_equal(found.denominator, [15, 15, 6])

    def test_a_models_own_generator_though_an_interrupt_ends_the_draws(self):
        class Draws(nn.Linear):
            n_drawn, held = 0, None

            def forward(self, inputs):
                Draws.n_drawn += 1
                if Draws.n_drawn == 3:
                    raise KeyboardInterrupt
                return super().forward(inputs) * torch.rand(1, generator=self.held)

        model = built(lambda: Draws(3, 3))
        model.held = torch.Generator().manual_seed(4)
        before = model.held.get_state()
        with pytest.raises(KeyboardInterrupt):
            survey(model, nn.MSELoss(), small_batches(), draws=8)
        assert torch.equal(model.held.get_state(), before)

    def test_a_loaders_own_generator(self):
        data = TensorDataset(torch.arange(8.0).reshape(8, 1), torch.zeros(8, 1))

        def orders(*, with_survey):
            loader = DataLoader(
                data, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(3)
            )
            for _ in range(3):
                if with_survey:
                    survey(nn.Linear(1, 1), nn.MSELoss(), loader)
                yield [batch[0].flatten().tolist() for batch in loader]

        assert list(orders(with_survey=True)) == list(orders(with_survey=False))

    @pytest.mark.parametrize("draws", [None, 2])
    @pytest.mark.parametrize("make", [*AT_ONCE.values(), *ONE_BY_ONE.values(), DROPS])
    @pytest.mark.parametrize("error", [None, ArithmeticError, KeyboardInterrupt])
    def test_the_model(self, monkeypatch, make, error, draws):
        monkeypatch.setattr(batches, "_MOST_AT_ONCE", N_BATCHES)
        model = built(make)
        inputs, targets = small_batches()[0]
        F.mse_loss(model(inputs), targets).backward()
        before, states = everything(model), random_states()

        def loader():
            yield from small_batches()
            if error:
                raise error

        with pytest.raises(error) if error else contextlib.nullcontext():
            survey(model, nn.MSELoss(), loader(), draws=draws or (2 if make is DROPS else None))
        assert everything(model) == before
        assert random_states() == states

    def test_an_error_within_the_model_leaves_all_as_it_was_and_is_raised_as_it_is(self):
        class Breaks(SavesItsOutput):
            def forward(self, inputs):
                if len(inputs) == 2:
                    self.eval()
                    raise ArithmeticError("two samples")
                return super().forward(inputs)

        model = built(Breaks)
        before = everything(model)
        with pytest.raises(ArithmeticError, match="two samples"):
            survey(model, nn.MSELoss(), small_batches())
        assert everything(model) == before

    def test_running_statistics_are_the_same_for_every_batch_and_stay(self):
        model = built(sequence(normalised))
        with torch.no_grad():
            model[1].running_mean.fill_(0.7)
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        found = survey(model, nn.MSELoss(), small_batches())
        for name, buffer in model.named_buffers():
            assert torch.equal(buffer, before[name])
        backwards = survey(model, nn.MSELoss(), small_batches()[::-1])
        assert_array_equal(found.loss, backwards.loss[::-1])

    @pytest.mark.parametrize("start", [0, [0], {"n": 0}, torch.zeros(()), np.zeros(1), "object"])
    @pytest.mark.parametrize("fewest", [2, 1000])
    @pytest.mark.parametrize("draws", [None, 2])
    def test_what_a_model_counts_is_the_same_for_every_batch_and_stays(self, start, fewest, draws):
        """Case 38: a counter leaked from batch to batch."""

        class Counts(nn.Linear):
            def __init__(self):
                super().__init__(3, 3)
                self.n = types.SimpleNamespace(n=0) if start == "object" else copy.copy(start)

            def forward(self, inputs):
                outputs = super().forward(inputs) * (1 + self.count())
                if isinstance(self.n, int):
                    self.n += 1
                elif isinstance(self.n, types.SimpleNamespace):
                    self.n.n += 1
                elif isinstance(self.n, dict):
                    self.n["n"], self.n["more"] = self.n["n"] + 1, [1]
                elif isinstance(self.n, list):
                    self.n.append(1)
                    self.n[0] += 1
                else:
                    self.n += 1
                return outputs

            def count(self):
                n = getattr(self.n, "n", self.n)
                n = n["n"] if isinstance(n, dict) else n
                return float(n[0] if isinstance(n, (list, np.ndarray)) else n)

        model, (batch, *_) = built(Counts), small_batches()
        kept, before = model.n, copy.deepcopy(vars(model)["n"])
        expected = F.mse_loss(nn.Linear.forward(model, batch[0]), batch[1]).item()
        with evaluated_at_once(fewest):
            found = survey(model, nn.MSELoss(), [batch] * 5, draws=draws)
        assert_allclose(found.loss, expected, rtol=1e-14)
        assert model.n is kept and model.n == before

    def test_a_criterion_that_counts_is_the_same_for_every_batch_and_stays(self):
        class Counts:
            def __init__(self):
                self.seen = []

            def __call__(self, predictions, targets):
                self.seen.append(1)
                return F.mse_loss(predictions, targets) * len(self.seen)

        model, criterion = built(sequence(nn.Tanh)), Counts()
        found = survey(model, criterion, [small_batches()[0]] * 5)
        assert np.ptp(found.loss) == 0 and criterion.seen == []

    def test_weights_that_a_forward_pass_writes_to_are_the_same_for_every_batch(self):
        model = built(lambda: Embedded(max_norm=0.5))
        found = survey(model, nn.MSELoss(), small_batches())
        backwards = survey(model, nn.MSELoss(), small_batches()[::-1])
        assert_array_equal(found.loss, backwards.loss[::-1])

    def test_a_survey_between_a_forward_pass_and_its_backward_pass(self):
        model = built(sequence(normalised))
        inputs, targets = small_batches()[0]
        twin = copy.deepcopy(model)
        loss = F.mse_loss(model(inputs), targets)
        survey(model, nn.MSELoss(), small_batches())
        loss.backward()
        F.mse_loss(twin(inputs), targets).backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)

    def test_hooks_on_the_criterion_and_on_gradients_do_not_see_it(self):
        model, criterion, seen = built(sequence(nn.Tanh)), nn.MSELoss(), []
        criterion.register_forward_hook(lambda *_: seen.append("forward"))
        criterion.register_forward_pre_hook(lambda *_: seen.append("pre"))
        for p in model.parameters():
            p.register_hook(lambda _: seen.append("gradient"))
            p.register_post_accumulate_grad_hook(lambda _: seen.append("accumulated"))
        survey(model, criterion, small_batches())
        assert seen == []

    @pytest.mark.parametrize("make", [sequence(nn.Tanh), sequence(normalised), Recurrent])
    @pytest.mark.parametrize("where", ["before", "forward", "backward", "step", "inside"])
    def test_a_recorder_does_not_see_it(self, make, where):
        def history(where):
            model, criterion = built(make), nn.MSELoss()
            if where == "inside":  # the recorder's criterion is a part of the surveyed one
                whole = nn.Sequential(criterion)
                surveyed = whole[0].__call__
            else:
                surveyed = criterion
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            loader = small_batches(n_batches=4)

            def at(place):
                if where in (place, "inside"):
                    with evaluated_at_once(fewest=2):
                        survey(model, surveyed, loader)

            with record(optimizer, criterion, steps_per_epoch=len(loader)) as recorder:
                at("before")
                for _ in range(2):
                    for inputs, targets in loader:
                        optimizer.zero_grad()
                        loss = criterion(model(inputs), targets)
                        at("forward")
                        loss.backward()
                        at("backward")
                        optimizer.step()
                        at("step")
            return recorder.history, model

        (expected, one), (found, other) = history(None), history(where)
        for name in ("loss", "n_samples", "epoch", "gradient", "gradient_norm"):
            assert_array_equal(getattr(found, name), getattr(expected, name))
        for p, q in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(p, q)
