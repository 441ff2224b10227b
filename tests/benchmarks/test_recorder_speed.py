"""What recording costs a step, as ratios to the same loop without it."""

import contextlib
import functools

import pytest
import torch
from torch import nn

from sgd_analysis import record


class Loop:
    """The loop of the tutorials on one batch."""

    def __init__(self, model, criterion, inputs, targets, **options):
        self.model, self.criterion, self.batch = model, criterion, (inputs, targets)
        self.optimizer = torch.optim.SGD(model.parameters(), **{"lr": 1e-4} | options)

    def run(self, n_steps):
        inputs, targets = self.batch
        for _ in range(n_steps):
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()


def line(loop=Loop):
    return loop(nn.Linear(1, 1), nn.MSELoss(), torch.randn(10, 1), torch.randn(10, 1))


def network(loop=Loop):
    """A network of 269,322 parameters."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    model.append(nn.Linear(256, 10))
    targets = torch.randint(10, (128,))
    return loop(model, nn.CrossEntropyLoss(), torch.randn(128, 784), targets)


def deep_network(loop=Loop):
    """A network of 202 tensors, none of which costs much by itself."""
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(101)])
    return loop(model, nn.MSELoss(), torch.randn(4, 4), torch.randn(4, 4))


class LoopThatLogs(Loop):
    """The same with two lines of torch that log its loss and the norm of its gradient."""

    def run(self, n_steps):
        inputs, targets = self.batch
        log, parameters = [], list(self.model.parameters())
        for _ in range(n_steps):
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), targets)
            loss.backward()
            norm = nn.utils.get_total_norm([p.grad for p in parameters])
            log.append((loss.item(), norm))
            self.optimizer.step()


def with_empty_hooks(loop):
    loop.criterion.register_forward_hook(lambda *_: None, with_kwargs=True)
    loop.optimizer.register_step_pre_hook(lambda *_: None)
    loop.optimizer.register_step_post_hook(lambda *_: None)
    return loop


@contextlib.contextmanager
def listening(recorder):
    if recorder is None:
        yield
        return
    listener = recorder._attachment._listener
    listener.listen()
    yield
    listener.stop()


@pytest.mark.parametrize(
    ("make", "settings", "rounds", "n_steps"),
    [
        pytest.param(line, {}, 600, 50, id="two tensors, full gradients"),
        pytest.param(line, {"gradients": "norms"}, 300, 50, id="two tensors, norms"),
        pytest.param(line, {"gradients": "none"}, 300, 50, id="two tensors, losses only"),
        pytest.param(network, {"gradients": "norms"}, 150, 10, id="269k parameters, norms"),
        pytest.param(deep_network, {}, 100, 5, id="202 tensors, full gradients"),
        pytest.param(deep_network, {"gradients": "norms"}, 100, 5, id="202 tensors, norms"),
    ],
)
def test_what_recording_costs_a_step(in_turns, make, settings, rounds, n_steps):
    loops = {
        "bare": make(),
        "empty hooks": with_empty_hooks(make()),
        "two lines of torch": make(LoopThatLogs),
        "recorded": make(),
        "recorded, no criterion": make(),
    }
    settings = {"steps_per_epoch": 200, "memory": 1 << 30} | settings
    recorders = {
        "recorded": record(loops["recorded"].optimizer, loops["recorded"].criterion, **settings),
        "recorded, no criterion": record(loops["recorded, no criterion"].optimizer, **settings),
    }

    for recorder in recorders.values():  # which is told of each backward pass there is,
        recorder._attachment._listener.stop()

    def run(name):  # and here only of those of its own loop
        with listening(recorders.get(name)):
            loops[name].run(n_steps)

    runs = {name: functools.partial(run, name) for name in loops}
    in_turns(runs, relative_to="bare", rounds=rounds, per=dict.fromkeys(runs, 1 / n_steps))
    for recorder in recorders.values():
        recorder.close()
        assert recorder.history.n_steps == (rounds + 1) * n_steps


@pytest.mark.parametrize("gradients", ["auto", "norms", "none"])
def test_what_reading_the_history_costs_while_recording(in_turns, gradients):
    """Microseconds of a first read after a step, and of a second, however long it is."""
    loops = {n_steps: line() for n_steps in (1_000, 10_000, 100_000)}
    with contextlib.ExitStack() as stack:
        recorders = {}
        for n_steps, loop in loops.items():
            recorders[n_steps] = stack.enter_context(
                record(loop.optimizer, loop.criterion, steps_per_epoch=200, gradients=gradients)
            )
            loop.run(n_steps)

        def step(n_steps):
            loops[n_steps].run(1)

        def step_and_read(n_steps):
            loops[n_steps].run(1)
            return recorders[n_steps].history

        runs = {}
        for n in loops:
            runs[f"a step after {n}"] = functools.partial(step, n)
            runs[f"a step after {n}, and a read"] = functools.partial(step_and_read, n)
            runs[f"a read again, of {n}"] = functools.partial(getattr, recorders[n], "history")
        in_turns(runs, relative_to="a step after 1000", rounds=300)


def test_a_history_row_takes_few_bytes(benchmark):
    """Bytes a step besides the gradient, and a column of 100,000 rows read without a copy."""
    loop = line()
    with record(loop.optimizer, loop.criterion, steps_per_epoch=1000, gradients="none") as recorder:
        loop.run(100_000)
    history = recorder.history
    columns = (history.loss, history.n_samples, history.epoch, history.skipped, history.step_size)
    taken = sum(column.base.nbytes for column in columns) + history.loss.base.nbytes  # the norm's
    benchmark.extra_info["bytes a step"] = taken / history.n_steps
    benchmark(lambda: history.loss)
    assert history.loss is history.loss
    print("\n", *benchmark.extra_info.items(), sep="\n  ")
