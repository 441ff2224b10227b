"""What is recorded where it is asked for, against loops that compute it by hand."""

import copy
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import History, record
from tests.recording.device import Device
from tests.recording.loops import batches, network, train
from tests.recording.outcomes import described, made
from tests.recording.test_on_a_device import ON_DEVICE, moved, train_in_turn
from tests.recording.trainings import STEPS_PER_EPOCH

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")

ALL = ("unclipped_norm", "update_norm", "norms_by_parameter")
NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]


class Looked:
    """A loop in double precision that looks for itself at what is to be recorded."""

    def __init__(self, optimizer=torch.optim.SGD, freeze=(), groups=1, **settings):
        self.model = network().double()
        for name in freeze:
            self.model.get_parameter(name).requires_grad_(False)
        parts = [self.model] if groups == 1 else [self.model[2], self.model[0]]
        self.optimizer = optimizer([{"params": [*part.parameters()]} for part in parts], **settings)
        groups = self.optimizer.param_groups
        self.parameters = [p for group in groups for p in group["params"]]
        self.found = {name: [] for name in ALL}
        self.printed = []

    def gradient(self):
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters]

    def weights(self):
        return torch.cat([p.detach().ravel() for p in self.parameters]).numpy()

    def run(self, n_steps, limit=1e9, n_passes=1):
        for k in range(n_steps):
            self.optimizer.zero_grad()
            for inputs, targets in batches(n_passes, seed=k):
                loss = (self.model(inputs.double()) - targets.double()).square().mean()
                (loss / n_passes).backward()
            unclipped = torch.cat([g.ravel() for g in self.gradient()])
            nn.utils.clip_grad_norm_(self.parameters, limit)
            given, before = self.gradient(), self.weights()
            self.optimizer.step()
            self.found["unclipped_norm"].append(np.linalg.norm(unclipped))
            self.found["update_norm"].append(np.linalg.norm(self.weights() - before))
            self.found["norms_by_parameter"].append([np.linalg.norm(g) for g in given])

    def check(self, history):
        for name, found in self.found.items():
            assert_allclose(getattr(history, name), found, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("gradients", ["auto", "norms", "none"])
@pytest.mark.parametrize(
    ("made_with", "settings"),
    [
        ({"lr": 0.1}, {}),
        ({"lr": 0.1}, {"limit": 0.2}),
        ({"lr": 0.1, "momentum": 0.9}, {"limit": 0.2, "n_passes": 3}),
        ({"optimizer": torch.optim.Adam, "lr": 0.01}, {"limit": 0.2}),
        ({"lr": 0.1, "groups": 2}, {"limit": 0.2}),
        ({"lr": 0.1, "freeze": ["0.bias", "2.weight"]}, {"limit": 0.2}),
    ],
    ids=["plain", "clipped", "accumulated", "Adam", "two groups", "frozen"],
)
def test_of_a_loop(made_with, settings, gradients):
    loop = Looked(**made_with)
    with record(loop.optimizer, steps_per_epoch=3, gradients=gradients, also=ALL) as recorder:
        loop.run(7, **settings)
    loop.check(recorder.history)
    if settings and gradients != "none":
        history = recorder.history
        assert (history.gradient_norm < 0.999 * history.unclipped_norm).any()


def test_a_closure_is_one_step_and_its_update_is_that_of_all_its_evaluations(model, criterion):
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    ((inputs, targets),) = batches(1)

    def closure():
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        return loss

    found = []
    with record(optimizer, criterion, also=["update_norm", "unclipped_norm"]) as recorder:
        for _ in range(3):
            before = nn.utils.parameters_to_vector(model.parameters()).detach()
            optimizer.step(closure)
            after = nn.utils.parameters_to_vector(model.parameters()).detach()
            found.append((after - before).norm())
    assert_allclose(recorder.history.update_norm, found, rtol=1e-5)
    assert_allclose(recorder.history.unclipped_norm, recorder.history.gradient_norm, rtol=1e-6)


class TestMixedPrecision:
    def loop(self, optimizer, model, overflow_at=(2,)):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        norms, moves = [], []
        for k, (inputs, targets) in enumerate(batches(5)):
            optimizer.zero_grad()
            factor = 1e38 if k in overflow_at else 1.0
            loss = (factor * (model(inputs) - targets)).square().mean()
            scaler.scale(loss).backward()
            scale = scaler.get_scale()
            norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]) / scale)
            before = nn.utils.parameters_to_vector(model.parameters()).detach()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(optimizer)
            scaler.update()
            moves.append(nn.utils.parameters_to_vector(model.parameters()).detach() - before)
        return np.array(norms), np.array([move.norm() for move in moves])

    @pytest.mark.parametrize("fused", [False, True])
    def test_the_factor_is_taken_out_and_an_overflow_is_nan_and_moves_nothing(self, model, fused):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
        with record(optimizer, steps_per_epoch=5, n_samples=5, also=ALL) as recorder:
            norms, moves = self.loop(optimizer, model)
            recorder.end_epoch()
        history = recorder.history
        there = np.arange(5) if fused else np.array([0, 1, 3, 4])
        norms = np.where(np.isfinite(norms), norms, np.nan)
        assert_allclose(history.unclipped_norm, norms[there], rtol=1e-5)
        assert_allclose(history.update_norm, moves[there], rtol=1e-5)
        by_parameter = np.linalg.norm(history.norms_by_parameter, axis=1)
        assert_allclose(by_parameter, history.gradient_norm, rtol=1e-5)
        made = ~history.skipped
        epochs = history.epochs()
        assert_allclose(epochs["mean_unclipped_norm"], [history.unclipped_norm[made].mean()])
        assert_allclose(epochs["mean_update_norm"], [history.update_norm[made].mean()])


class TestSteps:
    def test_one_that_raises_has_no_update(self, model, criterion):
        class Raising(torch.optim.SGD):
            raises = False

            def step(self, closure=None):
                super().step(closure)
                if self.raises:
                    raise RuntimeError("made to fail")

        optimizer = Raising(model.parameters(), lr=0.1)
        optimizer.register_step_post_hook(lambda *_: None)
        with record(optimizer, criterion, also=["update_norm"]) as recorder:
            train(model, criterion, optimizer, batches(1))
            optimizer.param_groups[0]["lr"] = None  # its step fails in the middle
            with pytest.raises(TypeError):
                train(model, criterion, optimizer, batches(1))
            optimizer.param_groups[0]["lr"] = 0.1
            train(model, criterion, optimizer, batches(1))
        assert_array_equal(np.isnan(recorder.history.update_norm), [False, True, False])

    def test_one_without_a_backward_pass_has_no_unclipped_norm(self, model, criterion, sgd):
        with pytest.warns(UserWarning, match="without a backward pass"):
            with record(sgd, criterion, also=["unclipped_norm"]) as recorder:
                train(model, criterion, sgd, batches(1))
                sgd.step()
        assert_array_equal(np.isnan(recorder.history.unclipped_norm), [False, True])

    def test_one_whose_history_is_read_within_it_has_its_update(self, model, criterion):
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=2)
        ((inputs, targets),) = batches(1)

        def closure():
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            _ = recorder.history
            return loss

        with record(optimizer, criterion, also=["update_norm"]) as recorder:
            optimizer.step(closure)
            optimizer.step(closure)
        assert (recorder.history.update_norm > 0).all()

    def test_parameters_added_later_are_part_of_it(self, criterion):
        model, more = network(), nn.Linear(2, 1)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        with record(sgd, criterion, also=ALL) as recorder:
            train(model, criterion, sgd, batches(2))
            sgd.add_param_group({"params": more.parameters()})
            sgd.zero_grad()
            ((inputs, targets),) = batches(1)
            (criterion(model(inputs), targets) + 10 * more(torch.ones(3, 2)).sum()).backward()
            norms = [p.grad.norm().item() for p in (*model.parameters(), *more.parameters())]
            sgd.step()
        history = recorder.history
        assert_allclose(history.unclipped_norm[2], np.linalg.norm(norms), rtol=1e-6)
        assert_allclose(history.update_norm[2], 0.1 * np.linalg.norm(norms), rtol=1e-5)
        assert_allclose(history.norms_by_parameter[2], norms, rtol=1e-6)
        assert_array_equal(history.norms_by_parameter[:2, 4:], 0)


class TestNames:
    def test_they_come_from_the_model(self, model, criterion, sgd):
        named = model.named_parameters()
        with record(sgd, criterion, also=ALL, named_parameters=named) as recorder:
            train(model, criterion, sgd, batches(2))
        history = recorder.history
        assert list(history.parameter_names) == NAMES
        for k, (name, where) in enumerate(history.parameter_names.items()):
            norms = np.linalg.norm(history.gradient[:, where], axis=1)
            assert_allclose(history.norms_by_parameter[:, k], norms, rtol=1e-6, err_msg=name)
            assert_allclose(history.steps()[f"norm of {name}"], norms, rtol=1e-6)

    def test_or_from_the_optimizer_or_are_numbers(self, model, criterion, sgd):
        named = torch.optim.SGD(model.named_parameters(), lr=0.1)
        for optimizer, names in ((named, NAMES), (sgd, ["0", "1", "2", "3"])):
            with record(optimizer, criterion) as recorder:
                train(model, criterion, optimizer, batches(1))
            assert list(recorder.history.parameter_names) == names

    def test_those_of_other_parameters_count_for_nothing(self, model, criterion):
        optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        recorder = record(optimizer, criterion, named_parameters=model.named_parameters())
        recorder.close()
        assert recorder.history.parameter_names == {"2.weight": slice(0, 4), "2.bias": slice(4, 5)}

    @pytest.mark.parametrize(
        ("named", "error", "message"),
        [
            (lambda model: model, TypeError, "must be pairs of a name and a parameter"),
            (lambda model: model.parameters(), TypeError, "must be pairs of a name"),
            (lambda model: 3, TypeError, "must be pairs of a name and a parameter.*got 3"),
            (
                lambda model: model[0].named_parameters(),
                ValueError,
                r"all of the optimizer's 4 parameters, and 2 have no name.*\(1, 4\)",
            ),
            (
                lambda model: [("same", p) for p in model.parameters()],
                ValueError,
                "each its own name, got 'same' twice",
            ),
        ],
    )
    def test_bad_ones_are_refused(self, model, sgd, named, error, message):
        with pytest.raises(error, match=message):
            record(sgd, named_parameters=named(model))

    @pytest.mark.parametrize(
        ("also", "error", "message"),
        [
            ("update_norm", TypeError, r"list of names, such as \[\"update_norm\"\]"),
            (None, TypeError, "list of names"),
            (["gradient_norm"], ValueError, "may name unclipped_norm, .*got 'gradient_norm'"),
        ],
    )
    def test_what_else_there_is_is_said(self, sgd, also, error, message):
        with pytest.raises(error, match=message):
            record(sgd, also=also)


class TestHistory:
    def recorded(self, n_steps=5, history=None, **settings):
        loop = Looked(lr=0.1)
        named = loop.model.named_parameters()
        settings = {"steps_per_epoch": 2, "also": ALL, "named_parameters": named} | settings
        with record(loop.optimizer, history=history, **settings) as recorder:
            loop.run(n_steps)
        return recorder.history

    @pytest.mark.parametrize("name", ALL)
    def test_what_was_not_asked_for_says_how(self, name):
        history = self.recorded(also=[other for other in ALL if other != name])
        with pytest.raises(
            ValueError, match=rf"{name} was not.*record\(\.\.\., also=\[\"{name}\"\]"
        ):
            getattr(history, name)
        assert name not in history.steps() and f"mean_{name}" not in history.epochs()

    def test_it_is_saved_and_loaded_and_taken_apart_by_epochs(self, tmp_path):
        history = self.recorded()
        history.save(tmp_path / "run.npz")
        loaded = History.load(tmp_path / "run.npz")
        assert loaded.parameter_names == history.parameter_names
        for name in ALL:
            assert_array_equal(getattr(loaded, name), getattr(history, name))
            assert_array_equal(getattr(history[1], name), getattr(history, name)[2:4])
            with pytest.raises(ValueError, match="read-only"):
                getattr(loaded, name)[0] = 0

    def test_a_run_goes_on_with_it(self):
        history = self.recorded()
        both = self.recorded(n_steps=4, history=history)
        for name in ALL:
            assert_array_equal(getattr(both, name)[:5], getattr(history, name))
            assert_array_equal(getattr(both, name)[5:], getattr(history, name)[:4])
        with pytest.raises(ValueError, match=r"continue with update_norm.*got also=\['unclipped"):
            self.recorded(history=history, also=["unclipped_norm"])
        with pytest.raises(ValueError, match="continue without norms_by_parameter"):
            self.recorded(history=self.recorded(also=[]), also=["norms_by_parameter"])

    def test_norms_by_parameter_are_kept_as_long_as_they_fit(self):
        with pytest.warns(UserWarning, match="for the first 3 steps"):
            history = self.recorded(gradients="norms", memory=3 * 4 * 8)
        assert history.also["norms_by_parameter"].shape == (3, 4)
        assert history[0].norms_by_parameter.shape == (2, 4)
        with pytest.raises(ValueError, match="norms_by_parameter was kept for the first 3 of"):
            _ = history.norms_by_parameter
        assert_array_equal(np.isnan(history.steps()["norm of 2.bias"]), [False] * 3 + [True] * 2)
        assert history.update_norm.shape == (5,)

    def test_tables_have_it(self):
        pandas = pytest.importorskip("pandas")
        history = self.recorded()
        table = history.to_pandas(by="step")
        assert isinstance(table, pandas.DataFrame)
        assert list(table.columns[-6:]) == ["unclipped_norm", "update_norm"] + [
            f"norm of {name}" for name in NAMES
        ]
        epochs = history.to_pandas(by="epoch")
        expected = history.update_norm[:4].reshape(2, 2).mean(axis=1)
        assert_allclose(epochs["mean_update_norm"], expected)

    @pytest.mark.parametrize(
        ("also", "message"),
        [
            ({"update": np.ones(5)}, "no other names than unclipped_norm.*got 'update'"),
            ({"update_norm": np.ones(4)}, r"update_norm must have one row a step, 5.*\(4,\)"),
            ({"norms_by_parameter": np.ones((6, 2))}, r"norms_by_parameter must .*\(6, 2\)"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, also, message):
        columns = dict.fromkeys(("loss", "n_samples"), np.ones(5))
        with pytest.raises(ValueError, match=message):
            History(
                **columns, epoch=np.zeros(5, int), step_size=np.ones((5, 1)), n_epochs=1, also=also
            )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", ON_DEVICE, ids=described)
def test_no_step_waits_for_a_device(case):
    def recorded(t, after_step=lambda: None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            criteria = (t.criterion, t.other_criterion)
            settings = {"steps_per_epoch": STEPS_PER_EPOCH, "also": ALL}
            with record(t.optimizer, *criteria, **settings) as recorder:
                train_in_turn(t, after_step)
        return recorder.history

    expected = recorded(made(case))
    waits = []

    def after_step():
        waits.append(device.waits)
        device.waits = []

    with Device() as device:
        history = recorded(moved(made(case)), after_step)
    assert not any(w for k, w in enumerate(waits) if (k + 1) % STEPS_PER_EPOCH)
    for name in ALL:
        assert_allclose(getattr(history, name), getattr(expected, name), rtol=1e-5, atol=1e-9)


def test_training_is_left_as_it_is(criterion):
    def trained(*also):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        with record(optimizer, criterion, also=also):
            train(model, criterion, optimizer, batches(5))
        return [*model.parameters(), *copy.deepcopy(optimizer.state_dict())["state"][0].values()]

    for expected, found in zip(trained(), trained(*ALL), strict=True):
        assert torch.equal(expected, found)
