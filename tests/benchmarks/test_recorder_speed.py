"""What recording costs a step, as ratios to the same loop without it.

    python -m pytest tests/benchmarks --benchmark-only -s

The loops take turns, in an order drawn anew each round, so that whatever else the machine does
meets all of them; a ratio is that of the medians over the rounds.
"""

import random
import statistics
import time

import pytest
import torch
from torch import nn

from sgd_analysis import record


class Loop:
    """The loop of the tutorials on one batch."""

    def __init__(self, model, criterion, inputs, targets, **options):
        self.model, self.criterion, self.batch = model, criterion, (inputs, targets)
        self.optimizer = torch.optim.SGD(model.parameters(), **{"lr": 1e-4} | options)

    def seconds_a_step(self, n_steps):
        inputs, targets = self.batch
        start = time.perf_counter()
        for _ in range(n_steps):
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()
        return (time.perf_counter() - start) / n_steps


def line():
    return Loop(nn.Linear(1, 1), nn.MSELoss(), torch.randn(10, 1), torch.randn(10, 1))


def network():
    """A network of 269,322 parameters."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    model.append(nn.Linear(256, 10))
    targets = torch.randint(10, (128,))
    return Loop(model, nn.CrossEntropyLoss(), torch.randn(128, 784), targets)


def with_empty_hooks(loop):
    loop.criterion.register_forward_hook(lambda *_: None, with_kwargs=True)
    loop.optimizer.register_step_pre_hook(lambda *_: None)
    loop.optimizer.register_step_post_hook(lambda *_: None)
    return loop


@pytest.fixture
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize(
    ("make", "settings", "rounds", "n_steps"),
    [
        pytest.param(line, {}, 600, 50, id="two tensors, full gradients"),
        pytest.param(line, {"gradients": "norms"}, 300, 50, id="two tensors, norms"),
        pytest.param(line, {"gradients": "none"}, 300, 50, id="two tensors, losses only"),
        pytest.param(network, {"gradients": "norms"}, 150, 10, id="269k parameters, norms"),
    ],
)
def test_what_recording_costs_a_step(benchmark, one_thread, make, settings, rounds, n_steps):
    loops = {"bare": make(), "recorded": make(), "empty hooks": with_empty_hooks(make())}
    recorded = loops["recorded"]
    seconds = {name: [] for name in loops}

    def take_turns():
        for name in random.sample(list(loops), len(loops)):
            seconds[name].append(loops[name].seconds_a_step(n_steps))

    with record(
        recorded.optimizer, recorded.criterion, steps_per_epoch=200, **settings
    ) as recorder:
        take_turns()  # imports, and the first use of everything
        for times in seconds.values():
            times.clear()
        benchmark.pedantic(take_turns, rounds=rounds)
    assert recorder.history.n_steps == (rounds + 1) * n_steps
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        benchmark.extra_info[f"{name}, microseconds a step"] = round(1e6 * median, 1)
        benchmark.extra_info[f"{name} / bare"] = round(median / medians["bare"], 3)
    print("\n", *benchmark.extra_info.items(), sep="\n  ")


def test_a_history_row_takes_few_bytes(benchmark):
    """Bytes a step besides the gradient, and a column of 100,000 rows read without a copy."""
    loop = line()
    with record(loop.optimizer, loop.criterion, steps_per_epoch=1000, gradients="none") as recorder:
        loop.seconds_a_step(100_000)
    history = recorder.history
    columns = (history.loss, history.n_samples, history.epoch, history.skipped, history.step_size)
    taken = sum(column.base.nbytes for column in columns) + history.loss.base.nbytes  # the norm's
    benchmark.extra_info["bytes a step"] = taken / history.n_steps
    benchmark(lambda: history.loss)
    assert history.loss is history.loss
    print("\n", *benchmark.extra_info.items(), sep="\n  ")
