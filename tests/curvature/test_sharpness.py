"""The largest eigenvalue of D H, against dense matrices made by plain automatic differentiation."""

import contextlib
import copy
import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.func import functional_call, grad, jacrev
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import LeastSquares, preconditioned_sharpness, record
from sgd_analysis.curvature import largest_eigenvalue
from tests.surveying.surveyed_models import (
    AT_ONCE,
    CLASS_WEIGHTS,
    ONE_BY_ONE,
    built,
    everything,
    loader_of,
    normalised,
    random_states,
    sequence,
    small_batches,
)

EXACT = {"tolerance": 1e-7}  # the error of an eigenvalue is of the order of its square
NETWORK, DROPS = sequence(nn.Tanh), sequence(nn.Dropout)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, inputs):
        sequence = self.linear(inputs)[:, None, None].expand(-1, 1, 4, -1)
        return F.scaled_dot_product_attention(sequence, sequence, sequence)[:, 0, 0]


# Of which torch 2.13 gets the second derivatives wrong, on the CPU.
WEIGHT_NORM = AT_ONCE["weight norm"]
MODELS = [*AT_ONCE.values(), *ONE_BY_ONE.values(), Attention]


class Product(torch.autograd.Function):
    """Its second derivative by the first and the second factor is another one than the reverse."""

    @staticmethod
    def forward(ctx, one, other):
        ctx.save_for_backward(one, other)
        return one * other

    @staticmethod
    def backward(ctx, gradient):
        one, other = ctx.saved_tensors
        return gradient * other, (gradient * one).detach()


class Wrong(nn.Linear):
    def forward(self, inputs):
        return Product.apply(super().forward(inputs), self.bias)


def dense_hessian(model, batches, denominators, criterion=None):
    """The Hessian of the batches' mean, each batch by itself, over the trainable parameters."""
    hessians = [one_hessian(copy.deepcopy(model), *batch, criterion) for batch in batches]
    return np.average(hessians, axis=0, weights=denominators)


def one_hessian(model, inputs, targets, criterion):
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient_of(value):
        parts = [None] * len(parameters)
        if value.requires_grad:
            parts = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
        dense = [
            torch.zeros_like(p) if part is None else part.to_dense()
            for part, p in zip(parts, parameters, strict=True)
        ]
        return torch.cat([part.flatten() for part in dense])

    with sdpa_kernel(SDPBackend.MATH):
        gradient = gradient_of((criterion or nn.MSELoss())(model(inputs), targets))
        return torch.stack([gradient_of(entry) for entry in gradient]).detach().numpy()


def largest(matrix, diagonal=1.0):
    root = np.sqrt(diagonal) * np.ones(len(matrix))
    return np.linalg.eigvalsh(root[:, None] * matrix * root)[-1]


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).numpy()


def trained(optimizer, model, batches, n_steps=3, criterion=None):
    """Take some steps."""
    for inputs, targets in itertools.islice(itertools.cycle(batches), n_steps):
        optimizer.zero_grad()
        (criterion or nn.MSELoss())(model(inputs), targets).backward()
        optimizer.step()


def least_squares():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(11, 4)) * [1, 2, 3, 0.5]
    return LeastSquares(features, generator.normal(size=11))


def sharpness(model, batches, optimizer=None, criterion=None, **settings):
    optimizer = optimizer or SGD(model.parameters(), lr=0.1)
    settings = EXACT | settings
    return preconditioned_sharpness(
        model, criterion or nn.MSELoss(), batches, optimizer, **settings
    )


class TestOfLeastSquares:
    def test_without_a_scaling_it_is_the_largest_eigenvalue_of_the_hessian(self):
        problem = least_squares()
        loader = loader_of(problem, [[0, 1, 2, 3], [4, 5, 6, 7, 8], [9, 10]])
        for momentum in (0.0, 0.9):
            optimizer = SGD(problem.model.parameters(), lr=0.1, momentum=momentum)
            found = sharpness(problem.model, loader, optimizer)
            assert_allclose(found, problem.eigenvalues[-1], rtol=1e-12)

    @pytest.mark.parametrize("weight_decay", [0.0, 0.7])
    @pytest.mark.parametrize(
        ("kind", "settings"),
        [
            (SGD, {"momentum": 0.9, "nesterov": True}),
            (SGD, {"momentum": 0.9, "dampening": 0.5}),
            (RMSprop, {}),
            (RMSprop, {"centered": True, "alpha": 0.9}),
            (RMSprop, {"momentum": 0.8, "eps": 1e-2}),
            (Adam, {}),
            (Adam, {"betas": (0.8, 0.9), "amsgrad": True}),
            (AdamW, {"eps": 1e-2}),
            (Adagrad, {"lr_decay": 0.1}),
        ],
    )
    @pytest.mark.parametrize("n_steps", [1, 7])
    def test_the_scaling_is_what_the_last_step_multiplied_by(
        self, kind, settings, weight_decay, n_steps
    ):
        problem = least_squares()
        (w,) = problem.model.parameters()
        torch.nn.init.normal_(w, generator=torch.Generator().manual_seed(0))
        optimizer = kind([w], lr=0.01, weight_decay=weight_decay, **settings)
        batches = [(problem.inputs, problem.targets)]
        trained(optimizer, problem.model, batches, n_steps - 1)
        before, kept = flat([w]), copy.deepcopy(optimizer.state[w])
        trained(optimizer, problem.model, batches, 1)
        coupled = 0.0 if kind is AdamW else weight_decay
        gradient = w.grad.numpy() + coupled * before
        moved = (flat([w]) - before) / -0.01
        state = optimizer.state[w]
        if kind is SGD:
            scaling = np.ones(4)
        elif "momentum" in settings:
            past = settings["momentum"] * kept.get("momentum_buffer", torch.zeros(4)).numpy()
            scaling = (moved - past) / gradient
        elif kind in (Adam, AdamW):
            moved -= (kind is AdamW) * weight_decay * before
            scaling = moved / state["exp_avg"].numpy()
        else:
            scaling = moved / gradient
        expected = largest(problem.hessian + coupled * np.eye(4), scaling)
        assert_allclose(sharpness(problem.model, batches, optimizer), expected, rtol=1e-10)

    def test_groups_of_several_step_sizes_are_relative_to_the_largest(self):
        model = built(NETWORK)
        batches = small_batches(n_batches=2)
        first, second = model[0].parameters(), model[2].parameters()
        optimizer = SGD([{"params": first, "lr": 0.02}, {"params": second, "lr": 0.1}], lr=1.0)
        hessian = dense_hessian(model, batches, [9, 9, 6])
        expected = largest(hessian, np.repeat([0.2, 1.0], 12))
        assert_allclose(sharpness(model, batches, optimizer), expected, rtol=1e-10)
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # a warm-up's first step
        assert_allclose(sharpness(model, batches, optimizer), largest(hessian), rtol=1e-10)

    def test_a_linear_loss_has_none(self):
        model = built(lambda: nn.Linear(3, 3))
        criterion = lambda predictions, targets: (predictions - targets).mean()  # noqa: E731
        assert sharpness(model, small_batches(), criterion=criterion) == 0


class TestOfNetworks:
    @pytest.mark.parametrize("make", [make for make in MODELS if make != WEIGHT_NORM])
    def test_it_is_that_of_the_dense_hessian_with_ragged_batches(self, make):
        model, batches = built(make), small_batches(n_batches=2)
        expected = largest(dense_hessian(model, batches, [9, 9, 6]))
        assert_allclose(sharpness(model, batches), expected, rtol=1e-8)

    def test_it_is_that_of_torchs_own_hessian_with_adams_scaling(self):
        model, batches = built(NETWORK), small_batches(n_batches=5)
        optimizer = Adam(model.parameters(), lr=0.01)
        trained(optimizer, model, batches, n_steps=40)
        inputs, targets = map(torch.cat, zip(*batches, strict=True))
        names, parameters = zip(*model.named_parameters(), strict=True)

        def risk(w):
            parts = w.split([p.numel() for p in parameters])
            shaped = (part.view_as(p) for part, p in zip(parts, parameters, strict=True))
            called = functional_call(model, dict(zip(names, shaped, strict=True)), (inputs,))
            return F.mse_loss(called, targets)

        whole = jacrev(grad(risk))(torch.from_numpy(flat(parameters))).numpy()
        v = flat(optimizer.state[p]["exp_avg_sq"] for p in parameters) / (1 - 0.999**40)
        expected = largest(whole, 1 / ((1 - 0.9**40) * (np.sqrt(v) + 1e-8)))
        assert_allclose(sharpness(model, batches, optimizer), expected, rtol=1e-10)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("is_function", [False, True])
    def test_class_weights_and_ignored_targets_count_as_in_a_survey(self, reduction, is_function):
        model, settings = built(NETWORK), {"weight": CLASS_WEIGHTS, "ignore_index": -1}
        classes = [torch.tensor(c) for c in ([0, 1, 2, 2], [1, -1, 0, -1], [-1], [2, 2, 0])]
        inputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(2)).double()
        batches = list(zip(inputs.split([4, 4, 1, 3]), classes, strict=True))
        if is_function:

            def criterion(logits, targets):
                return F.cross_entropy(logits, targets, reduction=reduction, **settings)

        else:
            criterion = nn.CrossEntropyLoss(reduction=reduction, **settings)
        found = sharpness(model, batches, criterion=criterion)
        counted = [batches[0], batches[1], batches[3]]
        # A sum is divided by the number of its targets that count.
        of_mean, of_sum = [7.2, 1.2, 6.2], [4, 2, 3]
        mean = nn.CrossEntropyLoss(**settings)
        expected = dense_hessian(model, counted, of_mean, mean)
        if reduction == "sum":
            expected = expected * sum(of_mean) / sum(of_sum)
        assert_allclose(found, largest(expected), rtol=1e-10)

    def test_a_batch_norm_in_training_mode_normalises_each_batch_by_itself(self):
        model, batches = built(sequence(normalised)), small_batches(n_batches=4)
        found = sharpness(model, batches)
        together = sharpness(model, [tuple(map(torch.cat, zip(*batches, strict=True)))])
        assert abs(found - together) > 0.01 * together
        model.eval()
        assert_allclose(
            sharpness(model, batches),
            sharpness(model, [tuple(map(torch.cat, zip(*batches, strict=True)))]),
            rtol=1e-10,
        )

    def test_a_loader_that_shuffles_gives_the_same_batches_in_each_pass(self):
        model = built(sequence(normalised))
        data = TensorDataset(*map(torch.cat, zip(*small_batches(n_batches=4), strict=True)))
        loader = DataLoader(data, batch_size=4, shuffle=True)
        torch.manual_seed(3)
        found = sharpness(model, loader)
        assert_allclose(found, sharpness(model, list(loader)), rtol=1e-10)

    def test_a_model_that_returns_its_loss(self):
        class OwnLoss(nn.Linear):
            def forward(self, inputs, targets):
                return F.mse_loss(super().forward(inputs), targets)

        model, batches = built(lambda: OwnLoss(3, 3)), small_batches(n_batches=2)
        plain = nn.Linear(3, 3).double()
        plain.load_state_dict(model.state_dict())
        optimizer = SGD(model.parameters(), lr=0.1)
        found = preconditioned_sharpness(model, None, batches, optimizer, **EXACT)
        assert_allclose(found, sharpness(plain, batches), rtol=1e-10)

    def test_of_a_compiled_model_it_is_that_of_the_model_within(self):
        model, batches = built(NETWORK), small_batches(n_batches=2)
        compiled = torch.compile(model, backend="aot_eager")  # of one derivative, as "inductor"
        assert sharpness(compiled, batches) == sharpness(model, batches)

    def test_in_single_precision_it_is_as_good_as_its_tolerance(self):
        model, batches = built(NETWORK, torch.float32), small_batches(torch.float32, n_batches=4)
        double = copy.deepcopy(model).double()
        expected = sharpness(double, [(x.double(), y.double()) for x, y in batches])
        found = sharpness(model, batches, tolerance=1e-4)
        assert_allclose(found, expected, rtol=1e-5)

    def test_the_largest_is_meant_and_not_the_largest_in_modulus(self):
        model = built(lambda: nn.Linear(3, 3))
        scale = torch.tensor([1.0, -9.0, 0.2])

        def criterion(predictions, targets):
            return ((predictions - targets) ** 2 * scale).mean()

        batches = small_batches(n_batches=2)
        eigenvalues = np.linalg.eigvalsh(dense_hessian(model, batches, [3, 3, 2], criterion))
        assert eigenvalues[-1] < -2 * eigenvalues[0] / 3
        n = {"n_samples": lambda predictions, targets: len(targets)}
        assert_allclose(
            sharpness(model, batches, criterion=criterion, **n), eigenvalues[-1], rtol=1e-10
        )

    def test_a_loss_that_is_concave_everywhere_has_a_negative_one(self):
        model = built(lambda: nn.Linear(3, 3))
        concave = lambda predictions, targets: -F.mse_loss(predictions, targets)  # noqa: E731
        batches = small_batches(n_batches=2)
        smallest = np.linalg.eigvalsh(dense_hessian(model, batches, [9, 9, 6]))[0]
        n = {"n_samples": lambda predictions, targets: targets.numel()}
        found = sharpness(model, batches, criterion=concave, **n)
        assert smallest > 0
        assert_allclose(found, -smallest, rtol=1e-8)


class TestWhatMoves:
    def test_parameters_that_are_frozen_or_not_given_to_the_optimizer_are_left_out(self):
        model, batches = built(NETWORK), small_batches(n_batches=2)
        whole = dense_hessian(model, batches, [9, 9, 6])
        of_first = SGD(model[0].parameters(), lr=0.1)
        expected = largest(whole[:12, :12])
        assert expected < 0.9 * largest(whole)
        assert_allclose(sharpness(model, batches, of_first), expected, rtol=1e-10)
        of_all = SGD(model.parameters(), lr=0.1)
        model[2].requires_grad_(False)
        assert_allclose(sharpness(model, batches, of_all), expected, rtol=1e-10)

    def test_before_its_first_step_an_optimizer_has_no_scaling(self):
        model, batches = built(NETWORK), small_batches(n_batches=2)
        for kind in (Adam, RMSprop, Adagrad):
            with pytest.raises(ValueError, match=r"no state yet of '0\.weight'.*take a step first"):
                sharpness(model, batches, kind(model.parameters()))

    def test_a_parameter_that_is_new_to_the_optimizer_has_none_and_one_without_use_needs_none(self):
        class Unused(nn.Sequential):
            def __init__(self):
                super().__init__(nn.Linear(3, 3))
                self.unused = nn.Linear(2, 2)

            def forward(self, inputs):
                return self[0](inputs)

        model, batches = built(Unused), small_batches(n_batches=2)
        optimizer = Adam(model.parameters())
        trained(optimizer, model, batches)
        assert sharpness(model, batches, optimizer) > 0
        model[0].bias.requires_grad_(False)
        optimizer = Adam(model.parameters())
        trained(optimizer, model, batches)
        model[0].bias.requires_grad_(True)
        with pytest.raises(ValueError, match=r"no state yet of '0\.bias'"):
            sharpness(model, batches, optimizer)

    def test_an_optimizer_of_another_model_is_refused(self):
        other = SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        with pytest.raises(ValueError, match="2 parameters that has none of those"):
            sharpness(built(NETWORK), small_batches(), other)

    def test_an_optimizer_whose_scaling_is_not_known_is_refused(self):
        model = built(NETWORK)
        known = r"SGD, RMSprop, Adam, AdamW, Adagrad.*got torch\.optim\.adamax\.Adamax"
        with pytest.raises(TypeError, match=known):
            sharpness(model, small_batches(), torch.optim.Adamax(model.parameters()))
        with pytest.raises(TypeError, match="got str"):
            sharpness(model, small_batches(), "adam")
        with pytest.raises(ValueError, match="maximize=True"):
            sharpness(model, small_batches(), SGD(model.parameters(), maximize=True))


class TestErrors:
    @pytest.mark.parametrize("most", [1, 3, 8])
    def test_an_exhausted_budget_says_what_was_reached_and_what_to_do(self, most):
        model, batches = built(NETWORK), small_batches(n_batches=2)
        true = largest(dense_hessian(model, batches, [9, 9, 6]))
        with pytest.raises(RuntimeError, match=rf"after {most} products") as raised:
            sharpness(model, batches, tolerance=1e-12, max_products=most)
        words = str(raised.value)
        value, residual, tolerance = (
            float(words.partition(before)[2].split()[0].rstrip(",;"))
            for before in ("found is ", "residual ", "or tolerance=")
        )
        whole = np.linalg.eigvalsh(dense_hessian(model, batches, [9, 9, 6]))
        assert value <= true * (1 + 1e-5)  # six digits of it are printed
        assert np.abs(whole - value).min() <= residual * 1.1
        assert "max_products=" in words
        found = sharpness(model, batches, tolerance=tolerance, max_products=most)
        assert_allclose(found, value, rtol=1e-5)

    def test_a_loader_that_can_be_iterated_once_only(self):
        with pytest.raises(ValueError, match=r"later one 0 with nan.*list\(loader\)"):
            sharpness(built(NETWORK), iter(small_batches()))

    def test_a_loader_that_gives_other_batches_in_each_pass(self):
        class Augments(list):
            generator = np.random.default_rng(0)

            def __iter__(self):
                for inputs, targets in super().__iter__():
                    yield inputs + self.generator.normal(), targets

        with pytest.raises(ValueError, match="first pass over the loader gave"):
            sharpness(built(NETWORK), Augments(small_batches(n_batches=2)))

    def test_a_loader_without_a_batch(self):
        with pytest.raises(ValueError, match="got none"):
            sharpness(built(NETWORK), [])

    def test_dropout_is_refused_with_what_to_do(self):
        model = built(DROPS)
        states = random_states()
        with pytest.raises(
            ValueError, match=r"draws random numbers.*'1'.*model\.eval\(\)"
        ) as raised:
            sharpness(model, small_batches())
        assert "draws=" not in str(raised.value)
        assert random_states() == states
        model.eval()
        assert sharpness(model, small_batches()) > 0

    def test_second_derivatives_that_are_wrong(self):
        with pytest.raises(ValueError, match=r"must be symmetric.*off by 1"):
            sharpness(built(lambda: Wrong(3, 3)), small_batches(n_batches=2), tolerance=0.01)

    @pytest.mark.parametrize("where", ["weights", "scaling"])
    def test_what_is_not_finite(self, where):
        model, batches = built(NETWORK), small_batches(n_batches=2)
        optimizer = RMSprop(model.parameters(), lr=0.1, eps=0)
        trained(optimizer, model, batches)
        if where == "weights":
            with torch.no_grad():
                model[0].weight[0, 0] = torch.nan
        else:
            optimizer.state[model[0].weight]["square_avg"][0, 0] = 0
        with pytest.raises(ValueError, match="Hessian must be finite"):
            sharpness(model, batches, optimizer)

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"tolerance": 0.0}, "tolerance must be positive"),
            ({"max_products": 0}, "max_products must be at least 1"),
            ({"seed": -1}, "seed must be at least 0"),
        ],
    )
    def test_numbers_out_of_range(self, settings, error):
        with pytest.raises(ValueError, match=error):
            sharpness(built(NETWORK), small_batches(), **settings)

    def test_complex_parameters(self):
        model = nn.Linear(3, 3, dtype=torch.complex128)
        with pytest.raises(TypeError, match="must be real"):
            sharpness(model, small_batches())


class TestNothingChanges:
    @pytest.mark.parametrize("make", [*MODELS, DROPS])
    @pytest.mark.parametrize("error", [None, ArithmeticError, KeyboardInterrupt])
    def test_of_the_model_and_the_random_states(self, make, error):
        class Loader(list):
            n_passes = 0

            def __iter__(self):
                torch.rand(1)  # as a DataLoader draws
                yield from super().__iter__()
                self.n_passes += 1
                if error and self.n_passes == 2:
                    raise error

        model, batches = built(make), small_batches(n_batches=2)
        optimizer = SGD(model.parameters(), lr=0.01)
        trained(optimizer, model, batches)
        before, states = everything(model), random_states()
        expected = ValueError if make is DROPS else error
        quietly = contextlib.suppress(ValueError) if make is WEIGHT_NORM else nullcontext()
        with quietly, pytest.raises(expected) if expected else nullcontext():
            sharpness(model, Loader(batches), optimizer)
        assert everything(model) == before and random_states() == states

    def test_of_the_optimizer(self):
        model, batches = built(NETWORK), small_batches(n_batches=2)
        optimizer = Adam(model.parameters())
        trained(optimizer, model, batches)
        before = copy.deepcopy(optimizer.state_dict())
        sharpness(model, batches, optimizer)
        for one, other in zip(
            optimizer.state_dict()["state"].values(), before["state"].values(), strict=True
        ):
            assert all(torch.equal(one[key], other[key]) for key in other)
        assert optimizer.param_groups[0].keys() == before["param_groups"][0].keys()
        optimizer = Adam(model.parameters())
        with pytest.raises(ValueError, match="take a step first"):
            sharpness(model, batches, optimizer)
        assert not optimizer.state

    def test_of_a_recorded_run(self):
        def history(where=None):
            model, batches, criterion = built(NETWORK), small_batches(n_batches=2), nn.MSELoss()
            optimizer = SGD(model.parameters(), lr=0.1)

            def at(place):
                if place == where:
                    sharpness(model, batches, optimizer, criterion)

            with record(optimizer, criterion, steps_per_epoch=3) as recorder:
                for inputs, targets in batches:
                    optimizer.zero_grad()
                    loss = criterion(model(inputs), targets)
                    at("forward")
                    loss.backward()
                    at("backward")
                    optimizer.step()
            return recorder.history

        expected = history()
        for where in ("forward", "backward"):
            found = history(where)
            for name in ("loss", "n_samples", "gradient"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))

    def test_the_same_seed_gives_the_same_number_and_another_seed_another_last_digit(self):
        model, batches = built(NETWORK), small_batches(n_batches=2)
        found = [sharpness(model, batches, seed=seed, tolerance=0.1) for seed in (0, 0, 1)]
        assert found[0] == found[1] != found[2]


class TestLargestEigenvalue:
    @pytest.mark.parametrize("longest", [3, 5, 40])
    @pytest.mark.parametrize("seed", range(5))
    def test_a_short_basis_finds_what_a_long_one_does(self, monkeypatch, longest, seed):
        monkeypatch.setattr(largest_eigenvalue, "_LONGEST_BASIS", longest)
        generator = torch.Generator().manual_seed(seed)
        basis, _ = torch.linalg.qr(torch.randn(60, 60, generator=generator).double())
        eigenvalues = torch.linspace(-30, 10, 60).double()
        matrix = basis * eigenvalues @ basis.T
        start = torch.randn(60, generator=generator).double()
        found = largest_eigenvalue.largest_eigenvalue(lambda v: matrix @ v, start, 1e-6, 1000)
        assert found.is_certain and found.residual <= 1e-5
        assert_allclose(found.value, 10, rtol=1e-10)

    @pytest.mark.parametrize("eigenvalues", [[3.0], [-1.0, -2.0], [0.0, -7.0, 0.0], [2.0] * 4])
    def test_few_and_equal_eigenvalues_and_a_largest_of_zero(self, eigenvalues):
        diagonal = torch.tensor(eigenvalues).double()
        start = torch.linspace(1, 2, len(diagonal)).double()
        found = largest_eigenvalue.largest_eigenvalue(lambda v: diagonal * v, start, 1e-9, 9)
        assert found.is_certain
        assert_allclose(found.value, max(eigenvalues), rtol=1e-12, atol=1e-14)
