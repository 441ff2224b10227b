"""What an epoch of mini-batches costs before any training, as ratios to the default DataLoader.

    python -m pytest tests/benchmarks/test_loader_speed.py --benchmark-only -s

The ways take turns, in an order drawn anew each round, so that whatever else the machine does
meets all of them; a ratio is that of the medians over the rounds, in seconds of one processor,
since all of it runs in one thread. With LOADER_SPEED_JSON=book/_assets/loader_speed.json in the
environment the medians are written there, for chapter 4 to show.
"""

import datetime
import json
import os
import platform
import random
import statistics
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from sgd_analysis import batches, quadratic_fit

BATCH_SIZE, STEP_SIZE, ROUNDS = 10, 2e-4, 101


def default_loader(inputs, targets):
    """Read sample by sample, and collate."""
    yield from DataLoader(TensorDataset(inputs, targets), batch_size=BATCH_SIZE, shuffle=True)


def batched_loader(inputs, targets):
    """Read a batch at a time: the sampler yields lists of indices."""
    dataset = TensorDataset(inputs, targets)
    sampler = BatchSampler(RandomSampler(dataset), BATCH_SIZE, drop_last=False)
    yield from DataLoader(dataset, sampler=sampler, batch_size=None)


def index_per_batch(inputs, targets):
    for batch in batches(torch.randperm(len(inputs)), BATCH_SIZE):
        yield inputs[batch], targets[batch]


def gather_then_split(inputs, targets):
    order = torch.randperm(len(inputs))
    pairs = inputs[order].split(BATCH_SIZE), targets[order].split(BATCH_SIZE)
    yield from zip(*pairs, strict=True)


WAYS = {
    "default DataLoader": default_loader,
    "DataLoader, a batch at a time": batched_loader,
    "index per batch": index_per_batch,
    "gather once, then split": gather_then_split,
}


@pytest.fixture
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(n_threads)


def seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def test_an_epoch_of_mini_batches(benchmark, one_thread):
    problem = quadratic_fit()
    inputs, targets = problem.inputs, problem.targets
    for epoch in WAYS.values():
        torch.manual_seed(0)
        seen = torch.cat([x for x, _ in epoch(inputs, targets)])
        assert torch.equal(seen.sort().values, inputs)
        assert not torch.equal(seen, inputs)

    ready = list(gather_then_split(inputs, targets))
    criterion, (w,) = torch.nn.MSELoss(), problem.model.parameters()

    def all_steps():
        """Train for an epoch on batches that are there already."""
        total = 0.0
        for x, y in ready:
            loss = criterion(problem.model(x), y)
            w.grad = None
            loss.backward()
            with torch.no_grad():
                w.add_(w.grad, alpha=-STEP_SIZE)
            total += loss.item() * len(x)

    def epoch_of(way):
        return lambda: sum(1 for _ in way(inputs, targets))

    runs = {name: epoch_of(way) for name, way in WAYS.items()} | {"the training steps": all_steps}
    taken = {name: [] for name in runs}

    def take_turns():
        for name in random.sample(list(runs), len(runs)):
            taken[name].append(seconds(runs[name]))

    take_turns()  # the first use of everything
    for times in taken.values():
        times.clear()
    benchmark.pedantic(take_turns, rounds=ROUNDS)

    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        benchmark.extra_info[f"{name}, milliseconds"] = round(1e3 * median, 2)
        ratio = median / medians["default DataLoader"]
        benchmark.extra_info[f"{name} / default DataLoader"] = round(ratio, 4)
    print("\n", *benchmark.extra_info.items(), sep="\n  ")
    if path := os.environ.get("LOADER_SPEED_JSON"):
        report = {
            "date": datetime.date.today().isoformat(),
            "machine": {"processors": os.cpu_count(), "architecture": platform.machine()},
            "torch": torch.__version__.partition("+")[0],
            "threads": torch.get_num_threads(),
            "n_samples": len(inputs),
            "batch_size": BATCH_SIZE,
            "rounds": ROUNDS,
            "milliseconds_an_epoch": {name: round(1e3 * t, 3) for name, t in medians.items()},
        }
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
