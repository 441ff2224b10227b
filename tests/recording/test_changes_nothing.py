"""Recording changes nothing: a recorded run equals the unrecorded one to the bit.

Every loop below is run from the same seeds without a recorder and with one, in each of its
settings, and all that could tell two runs apart is compared: see `outcome`.
"""

import contextlib
import functools
import random
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import record
from sgd_analysis.recording.attribution import SeenLosses
from sgd_analysis.recording.rows import Rows

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")

N_SAMPLES, BATCH_SIZE, N_EPOCHS = 29, 8, 3
STEPS_PER_EPOCH = 4  # the last batch of an epoch is a ragged one of five samples
KEPT_STEPS = 5  # what a small memory has room for: the changeover comes within an epoch


@pytest.fixture(autouse=True)
def one_thread():
    """With more, the threads of these tiny operations wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TiedDecoder(nn.Module):
    """A language model in small: its decoder is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.decoder = nn.Linear(6, 11)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens):
        return self.decoder(self.embedding(tokens).mean(1))


class MeanEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 2, sparse=True)

    def forward(self, tokens):
        return self.embedding(tokens).mean(1)


class LastOfSequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.readout = nn.Linear(5, 2)

    def forward(self, sequences):
        return self.readout(self.lstm(sequences)[0][:, -1])


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )


def partly_used():
    model = network()
    model[0].bias.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))  # its gradient stays None
    return model


def values(*shape):
    return torch.randn(N_SAMPLES, *shape)


def tokens():
    return torch.randint(11, (N_SAMPLES, 3))


def next_tokens():
    targets = torch.randint(11, (N_SAMPLES,))
    targets[::5] = -100  # ignored by the criterion, so that batches count for different sizes
    return targets


MODELS = {  # the model, its criterion, the inputs and the targets
    "network": (network, nn.MSELoss, lambda: values(4), lambda: values(2)),
    "partly used network": (partly_used, nn.MSELoss, lambda: values(4), lambda: values(2)),
    "network in half precision": (
        lambda: network().bfloat16(),
        nn.L1Loss,  # torch 2.3 has no mean of squares in bfloat16
        lambda: values(4).bfloat16(),
        lambda: values(2).bfloat16(),
    ),
    "convolutions": (
        convolutions,
        nn.CrossEntropyLoss,
        lambda: values(1, 6, 6),
        lambda: torch.randint(3, (N_SAMPLES,)),
    ),
    "sparse embedding": (MeanEmbedding, nn.MSELoss, tokens, lambda: values(2)),
    "tied decoder": (TiedDecoder, nn.CrossEntropyLoss, tokens, next_tokens),
    "lstm": (LastOfSequence, nn.MSELoss, lambda: values(6, 4), lambda: values(2)),
}


def in_two_groups(parameters):
    first, *others = parameters
    return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others}], lr=0.01)


class UnscalingSGD(torch.optim.Optimizer):
    """Gradient descent that leaves out what a GradScaler finds infinite, as fused optimizers do."""

    _step_supports_amp_scaling = True

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                update = -group["lr"] * p.grad / self.grad_scale
                p.add_(torch.where(self.found_inf > 0, 0.0, update))


OPTIMIZERS = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.05),
    "SGD foreach": functools.partial(torch.optim.SGD, lr=0.05, foreach=True),
    "SGD in two groups": in_two_groups,
    "SGD that unscales": functools.partial(UnscalingSGD, lr=0.05),
    "Nesterov": functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
    "Adam": functools.partial(torch.optim.Adam, lr=0.01),
    "Adam foreach": functools.partial(torch.optim.Adam, lr=0.01, foreach=True, amsgrad=True),
    "Adam with a tensor as its step size": lambda parameters: torch.optim.Adam(
        parameters, lr=torch.tensor(0.01)
    ),
    "AdamW fused": functools.partial(torch.optim.AdamW, lr=0.01, fused=True),
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": functools.partial(torch.optim.Adagrad, lr=0.05),
    "SparseAdam": functools.partial(torch.optim.SparseAdam, lr=0.05),
    "LBFGS": functools.partial(
        torch.optim.LBFGS, lr=0.1, max_iter=4, line_search_fn="strong_wolfe"
    ),
}


class Training(SimpleNamespace):
    """A model, its criteria and its optimizer, and what the loop prints.

    `losses` are the printed ones, one a step that a recording should have; `printed` may hold
    more.
    """

    def loss(self, inputs, targets):
        loss = self.criterion(self.model(inputs), targets)
        self.printed.append(None if loss.grad_fn is None else loss.grad_fn.name())
        return loss

    def print(self, loss):
        self.losses.append(loss.item())

    @functools.cached_property
    def scheduler(self):
        return torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)

    @functools.cached_property
    def scaler(self):
        return torch.amp.GradScaler("cpu", init_scale=1024.0)


# The loops. Each is one step of one, given the step's number and its batch.


def plain(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    loss.backward()
    gradients = [p.grad for p in t.model.parameters()]
    t.optimizer.step()
    t.printed += [p.grad is g for p, g in zip(t.model.parameters(), gradients, strict=True)]
    t.print(loss)


def cleared_after_the_forward_pass(t, k, inputs, targets):
    loss = t.loss(inputs, targets)
    t.optimizer.zero_grad()
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def cleared_after_the_step(t, k, inputs, targets):
    loss = t.loss(inputs, targets)
    loss.backward()
    t.optimizer.step()
    t.optimizer.zero_grad()
    t.print(loss)


def cleared_to_zeros(t, k, inputs, targets):
    t.optimizer.zero_grad(set_to_none=False)
    loss = t.loss(inputs, targets)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def with_a_closure(t, k, inputs, targets):
    evaluated = []

    def closure():
        t.optimizer.zero_grad()
        loss = t.loss(inputs, targets)
        loss.backward()
        evaluated.append(loss.item())
        return loss

    returned = t.optimizer.step(closure) if k % 2 else t.optimizer.step(closure=closure)
    t.printed.append((evaluated, returned))
    t.losses.append(evaluated[0])


def accumulated(t, k, inputs, targets):
    t.optimizer.zero_grad()
    parts = list(zip(inputs.split(3), targets.split(3), strict=True))
    mean = 0.0
    for some_inputs, some_targets in parts:
        loss = t.loss(some_inputs, some_targets) * (len(some_inputs) / len(inputs))
        loss.backward()
        mean = mean + loss.detach()
    t.optimizer.step()
    t.print(mean)


def clipped(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    loss.backward()
    t.printed.append(nn.utils.clip_grad_norm_(t.model.parameters(), 0.1))
    t.optimizer.step()
    t.print(loss)


def scheduled(t, k, inputs, targets):
    scheduler = t.scheduler  # made after the recorder: it wraps the method `step` once more
    plain(t, k, inputs, targets)
    scheduler.step()
    t.printed.append(scheduler.get_last_lr())


def in_mixed_precision(t, k, inputs, targets):
    t.optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = t.loss(inputs, targets)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def scaled(t, k, inputs, targets, clips=False):
    overflows = k in {1, 6}
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    if overflows:
        loss = loss * float("inf")
    t.scaler.scale(loss).backward()
    if clips:
        t.scaler.unscale_(t.optimizer)
        t.printed.append(nn.utils.clip_grad_norm_(t.model.parameters(), 0.1))
    t.scaler.step(t.optimizer)
    t.scaler.update()
    t.printed.append((loss.item(), t.scaler.get_scale()))
    # A step that is left out calls no hook, unless the optimizer unscales the gradients itself.
    if not overflows or getattr(t.optimizer, "_step_supports_amp_scaling", False):
        t.print(loss)


scaled_and_clipped = functools.partial(scaled, clips=True)
scaled_and_clipped.__name__ = "scaled_and_clipped"


def with_two_losses(t, k, inputs, targets):
    t.optimizer.zero_grad()
    outputs = t.model(inputs)
    loss = t.criterion(outputs, targets) + t.other_criterion(outputs, targets)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def with_two_passes(t, k, inputs, targets):
    t.optimizer.zero_grad()
    outputs = t.model(inputs)
    first, second = t.criterion(outputs, targets), t.other_criterion(outputs, targets)
    first.backward(retain_graph=True)
    second.backward()
    t.optimizer.step()
    t.print(first.detach() + second.detach())


def with_a_pass_whose_gradients_are_dropped(t, k, inputs, targets):
    t.optimizer.zero_grad()
    t.loss(inputs.flip(0), targets).backward()
    plain(t, k, inputs, targets)


def with_a_pass_whose_gradients_are_zeroed(t, k, inputs, targets):
    t.optimizer.zero_grad(set_to_none=False)
    t.loss(inputs.flip(0), targets).backward()
    cleared_to_zeros(t, k, inputs, targets)


def with_a_penalty_on_the_gradient(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    parameters = [p for p in t.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    loss = loss + 0.1 * sum(g.square().sum() for g in gradients)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def with_gradients_that_have_a_graph(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward.. with create_graph=True")
        loss.backward(create_graph=True)
    t.optimizer.step()
    t.print(loss)


def evaluated(t, k, inputs, targets):
    plain(t, k, inputs, targets)
    if k % 3 == 1:
        t.model.eval()
        with torch.no_grad():
            t.printed.append(t.loss(t.inputs, t.targets).item())
        t.model.train()


def evaluated_with_gradients(t, k, inputs, targets):
    if k % 3 == 0:
        t.model.eval()
        t.printed.append(t.loss(t.inputs, t.targets).item())
        t.model.train()
    plain(t, k, inputs, targets)
    if k % 3 == 1:
        t.printed.append(t.loss(t.inputs, t.targets).item())


SEVERAL_TERMS = {accumulated, with_two_losses, with_two_passes}  # rounded where they are added up

CASES = [
    ("network", "SGD", plain),
    ("network", "SGD", cleared_after_the_forward_pass),
    ("network", "SGD", cleared_after_the_step),
    ("network", "SGD", with_a_closure),
    ("network", "SGD", scaled_and_clipped),
    ("network", "SGD", with_a_penalty_on_the_gradient),
    ("network", "SGD", with_gradients_that_have_a_graph),
    ("network", "SGD foreach", with_a_pass_whose_gradients_are_dropped),
    ("network", "SGD foreach", with_a_pass_whose_gradients_are_zeroed),
    ("network", "SGD in two groups", evaluated),
    ("network", "SGD that unscales", scaled),
    ("network", "Nesterov", cleared_to_zeros),
    ("network", "Nesterov", scheduled),
    ("network", "Adam", accumulated),
    ("network", "Adam", scaled),
    ("network", "Adam", evaluated_with_gradients),
    ("network", "Adam foreach", clipped),
    ("network", "Adam with a tensor as its step size", plain),
    ("network", "Adam with a tensor as its step size", scheduled),
    ("network", "AdamW fused", scaled),
    ("network", "RMSprop", with_two_losses),
    ("network", "Adagrad", with_two_passes),
    ("network", "LBFGS", with_a_closure),
    ("partly used network", "Adam", plain),
    ("partly used network", "Nesterov", scaled),
    ("network in half precision", "Nesterov", plain),
    ("convolutions", "Nesterov", plain),
    ("convolutions", "SGD", accumulated),
    ("convolutions", "SGD", evaluated_with_gradients),
    ("convolutions", "Adam", evaluated),
    ("convolutions", "AdamW fused", in_mixed_precision),
    ("convolutions", "Adagrad", scaled_and_clipped),
    ("sparse embedding", "SGD", plain),
    ("sparse embedding", "SGD", accumulated),
    ("sparse embedding", "SparseAdam", plain),
    ("sparse embedding", "SparseAdam", with_a_closure),
    ("sparse embedding", "Adagrad", cleared_to_zeros),
    ("tied decoder", "Adam", plain),
    ("tied decoder", "SGD in two groups", clipped),
    ("tied decoder", "Nesterov", with_a_closure),
    ("lstm", "RMSprop", clipped),
    ("lstm", "Adam", in_mixed_precision),
    ("lstm", "LBFGS", with_a_closure),
]

SETTINGS = {
    "whole gradients": {},
    "norms": {"gradients": "norms"},
    "no gradients": {"gradients": "none"},
    "weights": {"weights": True},
    "little memory": {"memory": "little"},
    "little memory and weights": {"memory": "little", "weights": True},
    "read at every step": {"steps_per_epoch": None},
}


def described(case):
    return " - ".join([case[0], case[1], case[2].__name__.replace("_", " ")])


def seeded():
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)


@functools.cache
def lstm_in_mixed_precision_fails():
    """Why this processor has no LSTM in bfloat16, recorded or not; nothing where it has one."""
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(1, 1)(torch.ones(1, 1, 1))
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        return f"no LSTM in bfloat16 on this processor: {str(error).split('.')[0]}"
    return ""


def made(case):
    model, optimizer, step = case
    if model == "lstm" and step is in_mixed_precision and lstm_in_mixed_precision_fails():
        pytest.skip(lstm_in_mixed_precision_fails())
    if "fused" in optimizer and torch.__version__ < (2, 4):
        pytest.skip("torch has fused optimizers on the CPU from version 2.4 on")
    make_model, make_criterion, inputs, targets = MODELS[model]
    seeded()
    model = make_model()
    return Training(
        model=model,
        criterion=make_criterion(),
        other_criterion=nn.SmoothL1Loss(),
        optimizer=OPTIMIZERS[optimizer](model.parameters()),
        inputs=inputs(),
        targets=targets(),
        step=step,
        losses=[],
        printed=[],
        seen=[],
        gradients=[],
    )


def train(t, after_step=lambda k: None, after_epoch=lambda: None):
    samples = TensorDataset(torch.arange(N_SAMPLES), t.inputs, t.targets)
    loader = DataLoader(samples, batch_size=BATCH_SIZE, shuffle=True)
    k = 0
    for _ in range(N_EPOCHS):
        for indices, inputs, targets in loader:
            t.seen.append((indices, random.random(), np.random.random()))
            t.step(t, k, inputs, targets)
            t.gradients.append([state_of(p.grad) for p in t.model.parameters()])
            after_step(k)
            k += 1
        after_epoch()


def outcome(t):
    """Everything that tells one run from another."""
    parameters = list(t.model.parameters())
    return {
        "parameters": [(p, p._version, p.requires_grad) for p in parameters],
        "buffers": [(b, b._version) for b in t.model.buffers()],
        "optimizer": t.optimizer.state_dict(),
        "gradients after each step": t.gradients,
        "gradients": [state_of(p.grad) for p in parameters],
        "random states": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
        "data": t.seen,
        "losses": t.losses,
        "printed": t.printed,
        "modes": [module.training for module in t.model.modules()],
    }


def state_of(gradient):
    if gradient is None:
        return None
    properties = gradient.layout, gradient.dtype, gradient._version, gradient.requires_grad
    if not gradient.is_sparse:
        return (*properties, gradient.detach().clone())
    copy = gradient.detach().clone()
    return (*properties, copy.is_coalesced(), copy._indices(), copy._values())


def attributes_and_hooks(t):
    """What hangs on the objects of a loop, those of the hooks with their number."""
    owners = [*t.model.modules(), t.criterion, t.other_criterion, t.optimizer]
    tensors = [*t.model.parameters(), *t.model.buffers()]
    hooks = [(t._backward_hooks, getattr(t, "_post_accumulate_grad_hooks", None)) for t in tensors]
    return [
        {
            name: len(value) if "hook" in name and hasattr(value, "__len__") else type(value)
            for name, value in vars(owner).items()
        }
        for owner in [*owners, *tensors]
    ], [[None if found is None else len(found) for found in pair] for pair in hooks]


def assert_same(one, other, where):
    """Assert that two structures are the same to the bit, naming the place that differs."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.layout) == (other.dtype, other.shape, other.layout), where
        # As bytes, because nan differs from itself, and 0.0 equals -0.0.
        bytes_of = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (one, other)]
        assert torch.equal(*bytes_of), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(one, float):
        assert_same(np.float64(one).tobytes(), np.float64(other).tobytes(), f"{where}: {one}")
    else:
        assert one == other, where


@functools.cache
def unrecorded(case):
    t = made(case)
    train(t)
    return outcome(t), attributes_and_hooks(t), t.losses


def bytes_of_steps(t, settings):
    """The memory in which the vectors of KEPT_STEPS steps fit, and those of one more do not."""
    parameters = {p for group in t.optimizer.param_groups for p in group["params"]}
    item = 4 if "half" in str(t.model) else None
    one = sum(p.numel() * (item or max(p.itemsize, 4)) for p in parameters)
    return KEPT_STEPS * one * (2 if settings.get("weights") else 1) + one - 1


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of Adagrad, once a process
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", CASES, ids=described)
def test_a_recorded_run_equals_the_unrecorded_one_to_the_bit(case, setting):
    expected, left_behind, losses = unrecorded(case)
    t, settings = made(case), {"steps_per_epoch": STEPS_PER_EPOCH} | SETTINGS[setting]
    runs_full = settings.get("memory") == "little"
    if runs_full:
        settings["memory"] = bytes_of_steps(t, settings)
    recorder = record(t.optimizer, t.criterion, t.other_criterion, **settings)
    if settings["steps_per_epoch"]:
        train(t)
    else:
        train(t, lambda k: repr(recorder.history), recorder.end_epoch)
    with pytest.warns(UserWarning, match="memory") if runs_full else contextlib.nullcontext():
        recorder.close()

    assert_same(outcome(t), expected, "run")
    assert attributes_and_hooks(t) == left_behind

    # What was recorded is what was printed: the recorder was there.
    rtol = 1e-6 if case[2] in SEVERAL_TERMS else 0
    assert_allclose(recorder.history.loss, losses, rtol=rtol, atol=0)
    if runs_full:
        assert len(recorder.history.gradients.kept) == KEPT_STEPS


def test_a_recorder_that_is_closed_early_leaves_the_rest_of_the_run_alone():
    case = ("network", "Adam", plain)
    expected, left_behind, losses = unrecorded(case)
    t = made(case)
    recorder = record(t.optimizer, t.criterion)
    train(t, lambda k: recorder.close() if k == KEPT_STEPS - 1 else None)
    assert_same(outcome(t), expected, "run")
    assert attributes_and_hooks(t) == left_behind
    assert_array_equal(recorder.history.loss, losses[:KEPT_STEPS])


def test_an_interrupted_loop_is_left_without_hooks():
    t = made(("network", "Adam", plain))
    before = attributes_and_hooks(t)
    with pytest.raises(KeyboardInterrupt), record(t.optimizer, t.criterion) as recorder:
        assert attributes_and_hooks(t) != before
        plain(t, 0, t.inputs, t.targets)
        t.loss(t.inputs, t.targets)
        raise KeyboardInterrupt
    t.optimizer.zero_grad()
    t.optimizer.state.clear()
    assert attributes_and_hooks(t) == before
    assert recorder.history.n_steps == 1


def test_hooks_of_the_loops_own_stay_and_are_called():
    t, calls = made(("network", "Adam", plain)), []
    t.criterion.register_forward_hook(lambda *_: calls.append("forward"))
    t.optimizer.register_step_pre_hook(lambda *_: calls.append("before the step"))
    with record(t.optimizer, t.criterion):
        t.optimizer.register_step_post_hook(lambda *_: calls.append("after the step"))
        plain(t, 0, t.inputs, t.targets)
    plain(t, 1, t.inputs, t.targets)
    assert calls == ["forward", "before the step", "after the step"] * 2


class TestAHookThatFails:
    """It neither raises nor warns: the loop goes on, and `close` tells."""

    @pytest.mark.parametrize(
        ("owner", "name", "fails_at_call", "settings", "n_rows"),
        [
            (SeenLosses, "add", 6, {}, 5),
            (SeenLosses, "take", 6, {}, 5),
            (Rows, "append", 6, {}, 5),
            (Rows, "end_epoch", 2, {}, 8),
            # Of four parameters: as if there were no memory left for the second of a step,
            (torch, "_foreach_copy_", 6, {}, 5),
            # and for the second of its weights, when its gradient has been copied.
            (torch, "_foreach_copy_", 6, {"weights": True}, 5),
            (torch, "_foreach_add_", 6, {"gradients": "norms"}, 5),
        ],
    )
    def test_in_the_recorder(self, monkeypatch, owner, name, fails_at_call, settings, n_rows):
        case = ("network", "Adam", plain)
        expected, left_behind, losses = unrecorded(case)
        whole = made(case)
        with record(whole.optimizer, whole.criterion, steps_per_epoch=4, **settings) as recorder:
            train(whole)
        history = recorder.history

        original, calls = getattr(owner, name), []

        def failing(*args, **kwargs):
            if sys._getframe(1).f_globals["__name__"].startswith("sgd_analysis"):
                calls.append(None)
                if len(calls) >= fails_at_call:
                    raise RuntimeError("made to fail")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, failing)
        t = made(case)
        recorder = record(t.optimizer, t.criterion, steps_per_epoch=4, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(t)
        with pytest.warns(
            UserWarning, match=rf"recording stopped after .*\b{n_rows}\b.*made to fail"
        ):
            recorder.close()

        assert len(calls) == fails_at_call, "what failed was called again"
        assert_same(outcome(t), expected, "run")
        assert attributes_and_hooks(t) == left_behind
        assert_array_equal(recorder.history.loss, losses[:n_rows])
        assert_array_equal(recorder.history.gradient_norm, history.gradient_norm[:n_rows])
        if "gradients" not in settings:
            assert_array_equal(recorder.history.gradient, history.gradient[:n_rows])
        if "weights" in settings:
            assert_array_equal(recorder.history.weights, history.weights[:n_rows])

    def test_in_the_backward_pass(self, monkeypatch):
        case = ("network", "Adam", accumulated)
        expected, left_behind, _ = unrecorded(case)

        def failing(*_):
            raise RuntimeError("made to fail")

        monkeypatch.setattr("sgd_analysis.recording.marks.was_cleared", failing)
        t = made(case)
        recorder = record(t.optimizer, t.criterion)
        train(t)
        with pytest.warns(UserWarning, match="recording stopped after .*made to fail"):
            recorder.close()
        assert_same(outcome(t), expected, "run")
        assert attributes_and_hooks(t) == left_behind

    @pytest.mark.parametrize("how", ["raises", "warns"])
    def test_in_the_users_own_n_samples(self, how):
        def n_samples(*batch):
            if how == "raises":
                raise RuntimeError("made to fail")
            warnings.warn("made to fail", stacklevel=2)  # an error here

        case = ("network", "Adam", plain)
        expected, left_behind, losses = unrecorded(case)
        t = made(case)
        recorder = record(t.optimizer, t.criterion, n_samples=n_samples)
        train(t)
        with pytest.warns(UserWarning, match="number of samples .* is not known.*made to fail"):
            recorder.close()
        assert_same(outcome(t), expected, "run")
        assert attributes_and_hooks(t) == left_behind
        assert_array_equal(recorder.history.loss, losses)


class OnDevice(torch.Tensor):
    """A tensor that says it is on another device, the one that `Device` stands in for."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, there):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, there.shape, strides=there.stride(), dtype=there.dtype, device="meta"
        )
        tensor.there = there
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        raise RuntimeError("this device is there only within `with Device()`")


VALUES_DECIDE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Device(TorchDispatchMode):
    """A device that keeps count of what waits for it: its name is meta, it computes on the CPU.

    Every operation comes here, those in hooks and in backward passes as well. What a program has
    to wait for is a number, or a shape, that depends on values (`item`, `bool`, `nonzero`), and
    a copy to or from main memory. As on any device, no operation takes tensors from both sides.
    """

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        given = any(isinstance(x, OnDevice) for x in tensors)
        returned = given
        if kwargs.get("device") is not None:
            returned = torch.device(kwargs["device"]).type == "meta"
            kwargs["device"] = "cpu"
        copies = tensors and given != returned
        if given and any(x.ndim and not isinstance(x, OnDevice) for x in tensors):
            if operator is not torch.ops.aten.copy_.default:
                raise RuntimeError(f"{operator} was given tensors on two devices")
            copies = True
        by_mask = any(x.dtype == torch.bool for x in tensors[1:])
        waits = given and VALUES_DECIDE.intersection(operator.tags)
        if copies or (waits and (operator is not torch.ops.aten.index.Tensor or by_mask)):
            self.waits.append(str(operator))
        args, kwargs = tree_map_only(OnDevice, lambda x: x.there, (args, kwargs))
        result = operator(*args, **kwargs)
        if operator._schema.is_mutable:
            return tensors[0] if isinstance(result, torch.Tensor) else result
        return tree_map_only(torch.Tensor, OnDevice, result) if returned else result


class WithoutWaiting(Training):
    """A loop that leaves the losses it prints on the device until its end."""

    def print(self, loss):
        self.losses.append(loss.detach().clone())


def moved(t):
    """A training whose model, optimizer and data are on the device, at the same weights."""
    new = {p: nn.Parameter(OnDevice(p.detach().clone())) for p in t.model.parameters()}
    for module in t.model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = new[parameter]
    optimizer = type(t.optimizer)(t.model.parameters(), lr=t.optimizer.defaults["lr"])
    data = {"inputs": OnDevice(t.inputs), "targets": OnDevice(t.targets)}
    return WithoutWaiting(**vars(t) | data | {"optimizer": optimizer})


def scaled_on_the_device(t, k, inputs, targets):
    """What a GradScaler does with an optimizer that unscales, and a step size on the device."""
    t.optimizer.zero_grad()
    group = t.optimizer.param_groups[0]
    if k == 0:
        group["lr"] = torch.full((), group["lr"], device=inputs.device)
    group["lr"].mul_(0.9)
    loss = t.loss(inputs, targets)
    t.optimizer.grad_scale = torch.full((), 1024.0, device=inputs.device)
    t.optimizer.found_inf = torch.full((), float(k in {1, 6}), device=inputs.device)
    (loss * t.optimizer.grad_scale).backward()
    t.optimizer.step()
    del t.optimizer.grad_scale, t.optimizer.found_inf
    t.print(loss)


def with_weights_of_the_classes(t, k, inputs, targets):
    t.criterion.weight = torch.linspace(0.5, 2, 11, device=inputs.device)
    plain(t, k, inputs, targets)


ON_DEVICE = [
    ("network", "SGD", plain),
    ("network", "SGD", cleared_after_the_step),
    ("network", "SGD", cleared_to_zeros),
    ("network", "SGD", accumulated),
    ("network", "SGD", with_two_losses),
    ("network", "SGD", with_two_passes),
    ("network", "SGD", with_a_pass_whose_gradients_are_dropped),
    ("network", "SGD", with_a_pass_whose_gradients_are_zeroed),
    ("network", "SGD that unscales", scaled_on_the_device),
    ("network in half precision", "SGD", plain),
    ("tied decoder", "SGD", plain),
    ("tied decoder", "SGD", with_weights_of_the_classes),
]


def train_in_turn(t, after_step=lambda: None):
    """Run the loop over batches in turn, without a DataLoader, which would copy them."""
    for k in range(N_EPOCHS * STEPS_PER_EPOCH):
        first = k % STEPS_PER_EPOCH * BATCH_SIZE
        batch = slice(first, first + BATCH_SIZE)
        t.step(t, k, t.inputs[batch], t.targets[batch])
        after_step()


class TestOnADevice:
    @staticmethod
    def recorded(t, setting, after_step=lambda: None):
        settings = {"steps_per_epoch": STEPS_PER_EPOCH} | SETTINGS[setting]
        runs_full = settings.get("memory") == "little"
        if runs_full:
            settings["memory"] = bytes_of_steps(t, settings)
        with pytest.warns(UserWarning, match="memory") if runs_full else contextlib.nullcontext():
            with record(t.optimizer, t.criterion, t.other_criterion, **settings) as recorder:
                train_in_turn(t, after_step)
        return recorder.history

    @pytest.mark.parametrize("setting", ["whole gradients", "norms", "little memory and weights"])
    @pytest.mark.parametrize("case", ON_DEVICE, ids=described)
    def test_no_step_waits_for_it_and_the_history_is_that_of_the_cpu(self, case, setting):
        t = made(case)
        expected = self.recorded(t, setting)

        with Device() as device:
            unrecorded_t = moved(made(case))
            train_in_turn(unrecorded_t)
        assert device.waits == [], "the loop itself waits"

        waits = []

        def after_step():
            waits.append(device.waits)
            device.waits = []

        with Device() as device:
            t = moved(made(case))
            actual = self.recorded(t, setting, after_step)
        within_epochs = [w for k, w in enumerate(waits) if (k + 1) % STEPS_PER_EPOCH]
        at_their_ends = waits[STEPS_PER_EPOCH - 1 :: STEPS_PER_EPOCH]
        assert not any(within_epochs), within_epochs
        assert all(at_their_ends)

        there = [[p.there for p in run.model.parameters()] for run in (unrecorded_t, t)]
        assert_same(*there, "parameters")
        printed = [[loss.there for loss in run.losses] for run in (unrecorded_t, t)]
        assert_same(*printed, "losses")
        # Numbers that are added up there are so in single precision, here in double.
        for name in ("loss", "n_samples", "skipped", "step_size"):
            assert_allclose(getattr(actual, name), getattr(expected, name), rtol=1e-6)
        if expected.gradients is not None:
            assert_array_equal(actual.gradients.kept, expected.gradients.kept)
            assert_allclose(actual.gradient_norm, expected.gradient_norm, rtol=1e-6)
            assert_allclose(actual.path_gradient_norm, expected.path_gradient_norm, rtol=1e-6)
        if expected.kept_weights is not None:
            assert_array_equal(actual.kept_weights, expected.kept_weights)
