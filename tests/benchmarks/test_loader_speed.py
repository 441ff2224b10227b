"""What an epoch of mini-batches costs before any training, as ratios to the default DataLoader.

With LOADER_SPEED_JSON=book/_assets/loader_speed.json in the environment the medians are written
there, for chapter 4 to show. All of it runs in one thread: what counts is the processor's time.
"""

import datetime
import json
import os
import platform
import time
from pathlib import Path

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


def test_an_epoch_of_mini_batches(in_turns):
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
    medians = in_turns(
        runs, relative_to="default DataLoader", rounds=ROUNDS, clock=time.process_time
    )
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
