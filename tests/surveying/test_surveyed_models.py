"""Surveys of all kinds of models against plain automatic differentiation."""

import contextlib
import copy
import math
import random

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional as F

from sgd_analysis import record, survey
from sgd_analysis.surveying.batches import in_lists
from sgd_analysis.surveying.evaluation import FixedWeights
from tests.surveying.surveyed_models import (
    AT_ONCE,
    CLASS_WEIGHTS,
    N_BATCHES,
    ONE_BY_ONE,
    Embedded,
    Recurrent,
    SavesItsOutput,
    assert_same,
    built,
    flat_gradient,
    normalised,
    plain_loop,
    random_states,
    sequence,
    small_batches,
)


class TestAllKindsOfModels:
    @pytest.mark.parametrize("make", [*AT_ONCE.values(), *ONE_BY_ONE.values()])
    def test_they_agree_with_automatic_differentiation(self, make):
        model, loader, criterion = built(make), small_batches(), nn.MSELoss()
        found = survey(model, criterion, loader)
        for b, (inputs, targets) in enumerate(loader):
            twin = copy.deepcopy(model)
            loss = criterion(twin(inputs), targets)
            assert_allclose(found.loss[b], loss.item(), rtol=1e-12)
            assert_allclose(found.gradient[b], flat_gradient(loss, twin), rtol=1e-10, atol=1e-14)
        with plain_loop():
            assert_same(survey(model, criterion, loader), found, 1e-10, 1e-14)

    @pytest.mark.parametrize(
        ("make", "expected"),
        [(make, [N_BATCHES]) for make in AT_ONCE.values()]
        + [(make, []) for make in ONE_BY_ONE.values()],
    )
    def test_batches_of_one_shape_are_evaluated_at_once_where_it_works(
        self, monkeypatch, make, expected
    ):
        at_once, seen = FixedWeights._all_at_once, []

        def spy(self, inputs, targets):
            raw = at_once(self, inputs, targets)
            seen.extend([] if raw is None else [len(inputs)])
            return raw

        monkeypatch.setattr(FixedWeights, "_all_at_once", spy)
        survey(built(make), nn.MSELoss(), small_batches())
        assert seen == expected

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_any_floating_dtype(self, dtype):
        model = built(sequence(nn.Tanh), dtype)
        found = survey(model, nn.MSELoss(), small_batches(dtype))
        assert found.gradient.dtype == (np.float16 if dtype == torch.float16 else np.float32)
        assert found.loss.dtype == found.full_gradient.dtype == np.float64
        exact = survey(model.double(), nn.MSELoss(), small_batches())
        # A dozen roundings of values of the order of one, of which few cancel.
        eps = 12 * torch.finfo(dtype).eps
        assert_allclose(found.gradient, exact.gradient, rtol=eps, atol=eps)
        assert_allclose(found.loss, exact.loss, rtol=eps)

    def test_parameters_of_two_dtypes(self):
        class Mixed(nn.Sequential):
            def forward(self, inputs):
                return self[1](self[0](inputs).float()).double()

        model = Mixed(nn.Linear(3, 3).double(), nn.Linear(3, 3))
        found = survey(model, nn.MSELoss(), small_batches())
        assert found.gradient.dtype == np.float64
        for b, (inputs, targets) in enumerate(small_batches()):
            gradient = flat_gradient(F.mse_loss(model(inputs), targets), model)
            assert_allclose(found.gradient[b], gradient, rtol=1e-5, atol=1e-7)

    def test_complex_parameters(self):
        class Modulus(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs.to(torch.complex128)).abs()

        model, loader = Modulus(3, 3, dtype=torch.complex128), small_batches()
        found = survey(model, nn.MSELoss(), loader)
        assert found.gradient.dtype == np.complex128
        for b, (inputs, targets) in enumerate(loader):
            parts = torch.autograd.grad(F.mse_loss(model(inputs), targets), model.parameters())
            gradient = torch.cat([part.flatten() for part in parts]).numpy()
            assert_allclose(found.gradient[b], gradient, rtol=1e-10, atol=1e-14)
            assert_allclose(found.batch_gradient_norm[b], np.linalg.norm(gradient), rtol=1e-10)

    def test_inputs_that_are_no_tensors(self):
        class Sum(nn.Linear):
            def forward(self, parts):
                return super().forward(parts["left"] + parts["right"])

        model = Sum(3, 3).double()
        plain = small_batches()
        loader = [({"left": x, "right": x}, y) for x, y in plain]
        found = survey(model, nn.MSELoss(), loader)
        for b, (inputs, targets) in enumerate(plain):
            loss = F.mse_loss(nn.Linear.forward(model, 2 * inputs), targets)
            assert_allclose(found.gradient[b], flat_gradient(loss, model), rtol=1e-10, atol=1e-14)

    def test_several_predictions_for_one_criterion(self):
        class Two(nn.Linear):
            def forward(self, inputs):
                output = super().forward(inputs)
                return output, 2 * output

        model = Two(3, 3).double()
        found = survey(model, lambda two, y: F.mse_loss(two[0] + two[1], y), small_batches())
        loss = F.mse_loss(
            3 * nn.Linear.forward(model, small_batches()[0][0]), small_batches()[0][1]
        )
        assert_allclose(found.gradient[0], flat_gradient(loss, model), rtol=1e-10, atol=1e-14)
        assert_array_equal(found.denominator, [3 * 3] * N_BATCHES + [2 * 3])  # elements
        assert_array_equal(found.n_samples, [3] * N_BATCHES + [2])

    def test_a_penalty_that_the_criterion_adds_is_differentiated_too(self):
        model = built(sequence(nn.Tanh))

        def penalised(predictions, targets):
            squares = sum((p**2).sum() for p in model.parameters())
            return F.mse_loss(predictions, targets) + 0.1 * squares

        found = survey(model, penalised, small_batches())
        for b, (inputs, targets) in enumerate(small_batches()):
            gradient = flat_gradient(penalised(model(inputs), targets), model)
            assert_allclose(found.gradient[b], gradient, rtol=1e-10, atol=1e-14)

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_it_needs_no_gradients_switched_on_around_it(self, context):
        model = built(sequence(nn.Tanh))
        expected = survey(model, nn.MSELoss(), small_batches())
        loader = small_batches()
        with context():
            assert_same(survey(model, nn.MSELoss(), loader), expected, rtol=0, atol=0)
            assert not torch.is_grad_enabled()

    def test_one_process_of_several_does_not_wait_for_the_others(self):
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
        )
        try:
            model = built(sequence(normalised))
            wrapped = nn.parallel.DistributedDataParallel(model)
            expected = survey(model, nn.MSELoss(), small_batches())
            wrapped.forward = None  # which would talk to them
            assert_same(survey(wrapped, nn.MSELoss(), small_batches()), expected, rtol=0, atol=0)
        finally:
            torch.distributed.destroy_process_group()

    def test_a_compiled_model(self):
        model = built(sequence(nn.Tanh))
        expected = survey(model, nn.MSELoss(), small_batches())
        compiled = torch.compile(model, backend="eager")
        assert_same(survey(compiled, nn.MSELoss(), small_batches()), expected, rtol=1e-12)


class TestSizes:
    """The weights of the mean are those of the recorder, on the same batches."""

    @pytest.mark.parametrize(
        "criterion",
        [
            nn.CrossEntropyLoss(),
            nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
            nn.CrossEntropyLoss(ignore_index=1),
            nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=1),
            nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=1, reduction="sum"),
            nn.MSELoss(),
            nn.MSELoss(reduction="sum"),
            nn.KLDivLoss(reduction="batchmean"),
        ],
    )
    @pytest.mark.parametrize("loop", [plain_loop, contextlib.nullcontext])
    def test_they_are_those_of_the_history(self, criterion, loop):
        model = built(lambda: nn.Linear(3, 3))
        loader = small_batches(batch_size=4)
        if isinstance(criterion, nn.CrossEntropyLoss):
            labels = torch.tensor([0, 1, 2, 2])
            loader = [(x, labels.roll(b)[: len(x)]) for b, (x, _) in enumerate(loader)]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with record(optimizer, criterion, steps_per_epoch=len(loader)) as recorder:
            for inputs, targets in loader:
                optimizer.zero_grad()
                criterion(model(inputs), targets).backward()
                optimizer.step()
        history = recorder.history
        with loop():
            found = survey(model, criterion, loader)
        assert_allclose(found.denominator, history.denominator, rtol=1e-12)
        assert_array_equal(found.n_samples, history.n_samples)
        assert_array_equal(found.n_samples, [4] * N_BATCHES + [2])
        assert_allclose(found.loss, history.batch_loss, rtol=1e-12)
        assert_allclose(found.empirical_risk, history.running_loss[0], rtol=1e-12)
        assert_allclose(found.full_gradient, history.path_gradient[0], rtol=1e-10, atol=1e-14)
        # All samples in one batch: the same mean, if the criterion takes one at all.
        whole = [tuple(torch.cat(parts) for parts in zip(*loader, strict=True))]
        assert_allclose(survey(model, criterion, whole).loss[0], found.empirical_risk, rtol=1e-10)

    def test_a_batch_whose_targets_are_all_ignored_counts_for_nothing(self):
        model, criterion = built(lambda: nn.Linear(3, 3)), nn.CrossEntropyLoss(ignore_index=1)
        inputs = torch.randn(3, 4, 3, dtype=torch.float64)
        labels = torch.tensor([[0, 1, 2, 2], [1, 1, 1, 1], [1, 0, 0, 2]])
        loader = list(zip(inputs, labels, strict=True))
        found, without = (survey(model, criterion, loader[::step]) for step in (1, 2))
        assert_array_equal(found.denominator, [3, 0, 3])
        assert np.isnan(found.loss[1])
        for name in ("empirical_risk", "full_gradient", "mean_batch_gradient_norm", "alignment"):
            assert_allclose(getattr(found, name), getattr(without, name), rtol=1e-12)
        with pytest.raises(ValueError, match="at least one sample that counts, got 1 batches"):
            survey(model, criterion, loader[1:2])

    def test_a_function_counts_what_it_is_told(self):
        model = built(lambda: nn.Linear(3, 3))
        found = survey(
            model, F.mse_loss, small_batches(), n_samples=lambda _, targets: targets.numel()
        )
        assert_array_equal(found.denominator, [9] * N_BATCHES + [6])
        with pytest.raises(ValueError, match="n_samples must give numbers >= 0, got"):
            survey(model, F.mse_loss, small_batches(), n_samples=lambda *_: math.nan)


class TestDraws:
    """Models that draw random numbers, averaged over seeded draws."""

    def test_dropout_against_all_of_its_masks(self):
        """Four units that are kept or not: sixteen masks, and everything is a mean over them."""
        torch.manual_seed(0)
        first, last = nn.Linear(3, 4).double(), nn.Linear(4, 3).double()
        model = nn.Sequential(first, nn.Dropout(0.5), last)
        inputs, targets = torch.randn(1, 3).double(), torch.randn(1, 3).double()
        losses, gradients = [], []
        for mask in np.ndindex(2, 2, 2, 2):
            loss = F.mse_loss(last(first(inputs) * 2 * torch.tensor(mask)), targets)
            losses.append(loss.item())
            gradients.append(flat_gradient(loss, model))
        found = survey(model, nn.MSELoss(), [(inputs, targets)], draws=1000)
        error = np.std(losses) / 1000**0.5
        assert_allclose(found.standard_error, error, rtol=0.1)  # of 1000 draws
        assert abs(found.empirical_risk - np.mean(losses)) < 4 * error
        errors = np.std(gradients, axis=0) / 1000**0.5
        assert (abs(found.full_gradient - np.mean(gradients, axis=0)) <= 4.5 * errors).all()
        evaluated = survey(copy.deepcopy(model).eval(), nn.MSELoss(), [(inputs, targets)])
        silent = evaluated.empirical_risk
        assert_allclose(found.noise, found.empirical_risk - silent, rtol=1e-12)
        assert_allclose(found.noise_error, found.standard_error, rtol=1e-12)
        assert found.draws == 1000 and evaluated.draws == 0
        assert "± " in repr(found) and "± " not in repr(evaluated)

    def test_the_error_shrinks_with_draws_and_batches_have_their_own(self):
        model, loader = built(sequence(nn.Dropout)), small_batches(n_batches=4)
        few, many = (survey(model, nn.MSELoss(), loader, draws=n) for n in (16, 256))
        assert_allclose(few.standard_error / many.standard_error, 4, rtol=0.25)
        assert abs(few.empirical_risk - many.empirical_risk) < 4 * few.standard_error
        twice = survey(model, nn.MSELoss(), [loader[0], loader[0]], draws=16)
        assert twice.loss[0] != twice.loss[1]  # or errors of batches would add up, not average

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_a_seed_gives_the_same_survey(self, reduction):
        model, criterion = built(sequence(nn.Dropout)), nn.MSELoss(reduction=reduction)
        one, same, other = (
            survey(model, criterion, small_batches(), draws=4, seed=seed) for seed in (1, 1, 2)
        )
        assert_same(one, same, rtol=0, atol=0)
        assert (one.noise, one.standard_error) == (same.noise, same.standard_error)
        assert one.empirical_risk != other.empirical_risk
        mean = survey(model, nn.MSELoss(), small_batches(), draws=4, seed=1)
        assert_same(one, mean)
        assert_allclose(
            [one.noise, one.standard_error, one.noise_error],
            [mean.noise, mean.standard_error, mean.noise_error],
        )

    @pytest.mark.parametrize("make", [sequence(nn.Tanh), sequence(normalised), Recurrent])
    def test_what_draws_nothing_is_what_it_is_without(self, make):
        model, loader = built(make), small_batches(n_batches=5)
        found = survey(model, nn.MSELoss(), loader, draws=4)
        assert_same(found, survey(model, nn.MSELoss(), loader), rtol=1e-12)
        assert found.standard_error == found.noise == found.noise_error == 0

    @pytest.mark.parametrize(
        "draw", [torch.rand, lambda _: np.random.rand(), lambda _: random.random()]
    )
    def test_all_generators_are_seeded_and_left_alone(self, draw):
        class Draws(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs) * (1 + self.training * float(draw(1)))

        model, before = built(lambda: Draws(3, 3)), random_states()
        found = survey(model, nn.MSELoss(), small_batches(), draws=4)
        assert random_states() == before
        draw(1)
        again = survey(model, nn.MSELoss(), small_batches(), draws=4)
        assert_same(found, again, rtol=0, atol=0)
        assert found.noise > 0 < found.noise_error

    @pytest.mark.parametrize(
        "generator",
        [torch.Generator, lambda: np.random.default_rng(0), np.random.RandomState, random.Random],
    )
    def test_generators_that_the_model_holds_are_seeded_and_left_alone(self, generator):
        class Draws(nn.Linear):
            def __init__(self):
                super().__init__(3, 3)
                self.held = [generator()]

            def forward(self, inputs):
                held = self.held[0]
                drawn = (
                    torch.rand(1, generator=held)
                    if generator is torch.Generator
                    else (held.random() if hasattr(held, "random") else held.rand())
                )
                return super().forward(inputs) * (1 + float(drawn))

        model = built(Draws)
        with pytest.raises(ValueError, match="draws random numbers"):
            survey(model, nn.MSELoss(), small_batches(n_batches=3))
        found = survey(model, nn.MSELoss(), small_batches(n_batches=3), draws=4)
        again = survey(model, nn.MSELoss(), small_batches(n_batches=3), draws=4)
        assert_same(found, again, rtol=0, atol=0)
        assert found.standard_error > 0

    def test_a_loader_that_draws_is_not_reseeded(self, monkeypatch):
        monkeypatch.setattr("sgd_analysis.surveying.batches._MOST_AT_ONCE", 1)
        model, given = built(sequence(nn.Dropout)), []

        def loader():
            for _ in range(3):
                inputs = torch.randn(4, 3, dtype=torch.float64)
                given.append(inputs)
                yield inputs, inputs

        torch.manual_seed(5)
        survey(model, nn.MSELoss(), loader(), draws=2)
        for inputs in given:
            assert torch.equal(inputs, torch.randn(4, 3, dtype=torch.float64))

    def test_what_is_drawn_in_evaluation_mode_too_is_no_noise_of_training(self):
        class Draws(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs) * (1 + torch.rand(()))

        found = survey(built(lambda: Draws(3, 3)), nn.MSELoss(), small_batches(), draws=8)
        assert found.standard_error > 0 == found.noise == found.noise_error

    def test_only_the_modules_that_draw_are_put_in_evaluation_mode(self):
        class Functional(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.linear = nn.BatchNorm1d(3), nn.Linear(3, 3)

            def forward(self, inputs):
                return self.linear(F.dropout(self.norm(inputs), 0.5, self.training))

        model = built(Functional)
        found = survey(model, nn.MSELoss(), small_batches(), draws=8)
        quiet = copy.deepcopy(model)
        quiet.training = False  # not its batch norm
        without = survey(quiet, nn.MSELoss(), small_batches())
        assert_allclose(found.noise, found.empirical_risk - without.empirical_risk, rtol=1e-10)
        assert math.isnan(without.noise) and without.couples

    @pytest.mark.parametrize(
        ("make", "is_known"),
        [
            (sequence(nn.Tanh, normalised), True),
            (sequence(nn.Dropout), False),
            (sequence(lambda: nn.Dropout(0.0)), True),
            (sequence(lambda: nn.RReLU()), False),
            (SavesItsOutput, True),
        ],
    )
    def test_a_survey_in_evaluation_mode_knows_what_it_does_not_know(self, make, is_known):
        found = survey(built(make).eval(), nn.MSELoss(), small_batches())
        assert found.noise == 0 if is_known else math.isnan(found.noise)

    def test_numbers_that_are_none(self):
        model = built(sequence(nn.Dropout))
        for draws in (-1, 0, 1):
            with pytest.raises(ValueError, match=f"draws must be at least 2, got {draws}"):
                survey(model, nn.MSELoss(), small_batches(), draws=draws)
        with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
            survey(model, nn.MSELoss(), small_batches(), draws=2, seed=-1)


class TestCoupling:
    """Whether it matters which samples share a batch."""

    class OwnNorm(nn.Linear):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            return outputs - outputs.mean(dim=0)

    @pytest.mark.parametrize(
        ("make", "couples"),
        [
            (sequence(nn.Tanh), False),
            (sequence(normalised), True),
            (lambda: sequence(normalised)().eval(), False),
            (sequence(lambda: nn.BatchNorm1d(3, track_running_stats=False)), True),
            (lambda: TestCoupling.OwnNorm(3, 3), True),
            (SavesItsOutput, False),
            (lambda: Embedded(max_norm=0.5), False),
        ],
    )
    def test_it_is_found_out_where_a_loader_shuffles(self, make, couples):
        parts = map(torch.cat, zip(*small_batches(n_batches=5), strict=True))
        data = torch.utils.data.TensorDataset(*parts)
        for shuffle in (True, False):
            loader = torch.utils.data.DataLoader(data, batch_size=6, shuffle=shuffle)
            found = survey(built(make), nn.MSELoss(), loader)
            assert found.may_reorder == shuffle
            if shuffle:
                assert found.couples == couples

    def test_a_criterion_may_couple_too(self):
        def spread(predictions, targets):
            return F.mse_loss(predictions, targets) + predictions.std(dim=0).sum()

        loader = iter(small_batches(batch_size=6))
        assert survey(built(sequence(nn.Tanh)), spread, loader).couples


class TestMemory:
    def test_what_is_not_kept_is_still_summed_up(self):
        model, loader = built(sequence(nn.Tanh)), small_batches()
        whole = survey(model, nn.MSELoss(), loader)
        for memory in (0, whole.gradient.nbytes - 1):
            found = survey(model, nn.MSELoss(), loader, memory=memory)
            for name in ("loss", "batch_gradient_norm", "full_gradient", "between_batch_variance"):
                assert_array_equal(getattr(found, name), getattr(whole, name))
            with pytest.raises(
                ValueError,
                match=r"33 batches by 24 parameters did not fit.*give survey\(\) a larger memory=",
            ):
                _ = found.gradient
        exactly = survey(model, nn.MSELoss(), loader, memory=whole.gradient.nbytes)
        assert_array_equal(exactly.gradient, whole.gradient)

    def test_batches_come_in_as_many_as_the_workspace_holds(self, monkeypatch):
        monkeypatch.setattr("sgd_analysis.surveying.batches._WORKSPACE", 10_000)
        model, loader = built(sequence(nn.Tanh)), small_batches(n_batches=20)
        weights = FixedWeights(model, nn.MSELoss(), None)
        lengths = [len(some) for some in in_lists(loader, weights.row_bytes)]
        assert 1 < max(lengths) < 10 and sum(lengths) == 21
        with plain_loop():
            expected = survey(model, nn.MSELoss(), loader)
        assert_same(survey(model, nn.MSELoss(), loader), expected)

    def test_few_batches_of_worker_processes_are_held_at_a_time(self):
        class WithWorkers(list):
            num_workers = 2

        weights = FixedWeights(nn.Linear(3, 3).double(), nn.MSELoss(), None)
        loader = WithWorkers(small_batches(n_batches=199))
        assert [len(some) for some in in_lists(loader, weights.row_bytes)] == [64, 64, 64, 8]

    def test_few_batches_are_evaluated_one_by_one(self, monkeypatch):
        monkeypatch.setattr(FixedWeights, "_all_at_once", None)
        model = built(sequence(nn.Tanh))
        survey(model, nn.MSELoss(), small_batches(n_batches=N_BATCHES - 1))
        with pytest.raises(TypeError, match="NoneType"):
            survey(model, nn.MSELoss(), small_batches())

    def test_shapes_may_change_from_batch_to_batch(self):
        model, generator = built(sequence(nn.Tanh)), torch.Generator().manual_seed(5)
        loader = [
            tuple(torch.randn(size, 3, generator=generator, dtype=torch.float64) for _ in range(2))
            for size in (2, 2, 3, 1, 1, 1, 4, 2, 2)
        ]
        with plain_loop():
            expected = survey(model, nn.MSELoss(), loader)
        assert_same(survey(model, nn.MSELoss(), loader), expected)


class TestRefusals:
    @pytest.mark.parametrize("loop", [plain_loop, contextlib.nullcontext])
    @pytest.mark.parametrize(
        "draw", [torch.rand, lambda _: np.random.normal(), lambda _: random.random()]
    )
    @pytest.mark.parametrize("drawn_in", ["model", "criterion"])
    def test_random_numbers_in_the_forward_pass(self, draw, drawn_in, loop):
        class Draws(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs) * (1 + draw(1))

        def noisy(predictions, targets):
            return F.mse_loss(predictions, targets) * (1 + float(draw(1)))

        model = (Draws if drawn_in == "model" else nn.Linear)(3, 3).double()
        criterion = nn.MSELoss() if drawn_in == "model" else noisy
        before = random_states()
        with loop(), pytest.raises(ValueError, match=r"draws random numbers.*model\.eval\(\)"):
            survey(model, criterion, small_batches())
        assert random_states() == before

    def test_dropout_in_training_mode_and_the_way_out(self):
        model = built(sequence(nn.Dropout))
        with pytest.raises(
            ValueError,
            match=r"\(in '1'\), as dropout in training mode.*give draws=64.*call model\.eval\(\)"
            r".*only the modules that draw",
        ):
            survey(model, nn.MSELoss(), small_batches())
        assert survey(model.eval(), nn.MSELoss(), small_batches()).empirical_risk > 0

    @pytest.mark.parametrize(
        ("model", "criterion", "loader", "message"),
        [
            (F.relu, nn.MSELoss(), [], "model must be a torch.nn.Module, got function"),
            (nn.Linear(3, 3), "mse", [], "criterion must be callable.*got str"),
            (nn.Linear(3, 3), nn.MSELoss(), 3, "loader must be an iterable of batches.*got int"),
            (nn.Linear(3, 3), nn.MSELoss(), [(torch.ones(2, 3),)], "pairs.*got 1 items"),
        ],
    )
    def test_other_kinds(self, model, criterion, loader, message):
        with pytest.raises(TypeError, match=message):
            survey(model, criterion, loader)

    def test_numbers_that_are_none(self):
        model = nn.Linear(3, 3).double()
        with pytest.raises(ValueError, match="memory must be at least 0, got -1"):
            survey(model, nn.MSELoss(), small_batches(), memory=-1)
        with pytest.raises(TypeError, match=r"memory must be an integer, got 1\.5"):
            survey(model, nn.MSELoss(), small_batches(), memory=1.5)
        with pytest.raises(TypeError, match=r"n_samples must be a function of.*got 3"):
            survey(model, nn.MSELoss(), small_batches(), n_samples=3)

    @pytest.mark.parametrize("loop", [plain_loop, contextlib.nullcontext])
    def test_a_model_that_returns_its_own_loss_does_not_say_of_how_many_samples(self, loop):
        """Case 10: each batch counted as one sample."""

        class OwnLoss(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs).square().sum() / 7

        model = built(lambda: OwnLoss(3, 3))
        with loop():
            with pytest.raises(
                ValueError, match=r"one number a batch.*give n_samples=, a function"
            ):
                survey(model, lambda loss, _: loss, small_batches())
            found = survey(
                model, lambda loss, _: loss, small_batches(), n_samples=lambda _, y: len(y)
            )
        plain = survey(
            nn.Sequential(nn.Linear(3, 3)).double().requires_grad_(),
            nn.MSELoss(),
            [(x, 0 * y) for x, y in small_batches()],
        )
        assert_array_equal(found.denominator, plain.n_samples)
        assert_array_equal(found.n_samples, plain.n_samples)

    @pytest.mark.parametrize("outputs", [dict, lambda **parts: list(parts.values())])
    def test_outputs_without_a_length_and_no_targets_do_not_either(self, outputs):
        class Outputs(nn.Linear):
            def forward(self, inputs):
                return outputs(loss=super().forward(inputs).square().sum() / 7)

        def criterion(found, _):
            return found["loss"] if isinstance(found, dict) else found[0]

        loader = [(x, None) for x, _ in small_batches()]
        with pytest.raises(ValueError, match="give n_samples="):
            survey(built(lambda: Outputs(3, 3)), criterion, loader)

    def test_one_element_is_one_element(self):
        class Single(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs).squeeze()

        model = built(lambda: Single(3, 1))
        loader = [(torch.ones(1, 3).double(), torch.tensor(y).double()) for y in (0.0, 1.0)]
        assert_array_equal(survey(model, nn.MSELoss(), loader).denominator, [1, 1])

    def test_what_is_kept_where_a_survey_cannot_put_it_back(self):
        calls = []

        def criterion(predictions, targets):
            calls.append(1)
            return F.mse_loss(predictions, targets) * len(calls)

        model = built(sequence(nn.Tanh))
        with pytest.raises(ValueError, match=r"first batch had the loss .* from call to call"):
            survey(model, criterion, small_batches())

    def test_no_batch(self):
        with pytest.raises(ValueError, match="at least one sample that counts, got 0 batches"):
            survey(nn.Linear(3, 3), nn.MSELoss(), [])

    def test_a_model_with_nothing_to_train(self):
        with pytest.raises(ValueError, match="model has no parameter with requires_grad=True"):
            survey(nn.Linear(3, 3).requires_grad_(False), nn.MSELoss(), small_batches())

    @pytest.mark.parametrize("loop", [plain_loop, contextlib.nullcontext])
    def test_losses_that_are_none(self, loop):
        model = nn.Linear(3, 3).double()
        with loop():
            with pytest.raises(ValueError, match=r"one number as a tensor.*got shape \(3, 3\)"):
                survey(model, nn.MSELoss(reduction="none"), small_batches())
            with pytest.raises(ValueError, match=r"one number as a tensor.*got 1\.5"):
                survey(model, lambda *_: 1.5, small_batches())
            with pytest.raises(ValueError, match=r"depends on the weights.*remove \.detach\(\)"):
                survey(model, lambda p, y: F.mse_loss(p.detach(), y), small_batches())
