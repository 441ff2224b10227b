"""Threads that train at the same time: a recorder looks at what its own thread computes."""

import subprocess
import sys
import threading

import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from sgd_analysis import record
from sgd_analysis.recording import attribution, marks

STRESS = """
import sys, threading
import numpy as np
import torch
from torch import nn
from sgd_analysis import record
from sgd_analysis.recording import marks

torch.set_num_threads(1)
criterion = nn.MSELoss()
n_runs, n_steps, wrong = 40, 10, []
start = threading.Barrier(3)

def work(seed, is_recorded):
    generator = torch.Generator().manual_seed(seed)
    start.wait()
    for run in range(n_runs):
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        recorder = record(optimizer, criterion, steps_per_epoch=n_steps) if is_recorded else None
        losses = []
        for k in range(n_steps):
            x = torch.randn(4 + seed, 3, generator=generator)
            y = torch.randn(4 + seed, 1, generator=generator)
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if recorder is not None:
            recorder.close()
            history = recorder.history
            if not np.array_equal(history.loss, losses) or set(history.n_samples) != {4 + seed}:
                wrong.append((seed, run))

sys.setswitchinterval(1e-5)
recorded = {"all": (True, True, True), "one": (True, False, False)}[sys.argv[1]]
threads = [threading.Thread(target=work, args=pair) for pair in enumerate(recorded)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(f"wrong histories: {wrong}" if wrong else 0)
"""


@pytest.mark.parametrize("recorded", ["all", "one"])
def test_threads_that_share_a_criterion_are_recorded_each_for_itself(recorded):
    """In a process of its own: hooks in another thread's graph ended it by a segmentation fault."""
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", STRESS, recorded],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


class Worker:
    """A thread that makes steps of one model when it is told to."""

    def __init__(self, criterion):
        self.model = nn.Linear(3, 1)
        self.criterion = criterion
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        self.losses = []

    def step(self):
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(torch.ones(5, 3)), torch.zeros(5, 1))
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def in_a_thread(self, n_steps=2):
        thread = threading.Thread(target=lambda: [self.step() for _ in range(n_steps)])
        thread.start()
        thread.join()


def test_a_loop_may_run_in_another_thread_than_the_one_that_records():
    worker = Worker(nn.MSELoss())
    with record(worker.optimizer, worker.criterion, steps_per_epoch=2) as recorder:
        for _ in range(3):
            worker.in_a_thread()  # a new one each epoch
    assert_array_equal(recorder.history.loss, worker.losses)
    assert_array_equal(recorder.history.n_samples, [5] * 6)


def test_a_thread_that_was_interrupted_while_it_looked_stops_no_other(monkeypatch):
    monkeypatch.setattr(attribution, "_LONGEST_WAIT", 0.001)
    model, criterion = nn.Linear(2, 1), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(optimizer, criterion, steps_per_epoch=1) as recorder:
        looking = recorder._attachment.losses._looking
        interrupted = threading.Thread(target=looking.acquire)  # and never releases it
        interrupted.start()
        interrupted.join()
        loss = criterion(model(torch.ones(3, 2)), torch.zeros(3, 1))
        loss.backward()
        optimizer.step()
    assert recorder.history.loss == [loss.item()]


def test_what_another_thread_computes_with_the_criterion_does_not_count():
    worker, other = (Worker(criterion) for criterion in [nn.MSELoss()] * 2)
    with record(worker.optimizer, worker.criterion, steps_per_epoch=3) as recorder:
        for _ in range(3):
            worker.optimizer.zero_grad()
            loss = worker.criterion(worker.model(torch.ones(5, 3)), torch.zeros(5, 1))
            other.in_a_thread()
            loss.backward()
            other.in_a_thread()
            worker.optimizer.step()
            worker.losses.append(loss.item())
    assert_array_equal(recorder.history.loss, worker.losses)
    assert_array_equal(recorder.history.n_samples, [5] * 3)


class TestWhileItIsNotKnownWhoseThreadCounts:
    """A pass of another thread, before the first step, is not what the step is of."""

    def models(self):
        torch.manual_seed(0)
        return [nn.Linear(3, 1) for _ in range(2)]

    def paused(self, model):
        """Return a thread that is in the middle of a pass over a model, and what ends it."""
        arrived, goes_on = threading.Event(), threading.Event()

        def work():
            loss = model(torch.ones(2, 3)).square().mean()
            loss.register_hook(lambda _: (arrived.set(), goes_on.wait(60))[0])
            loss.backward()

        thread = threading.Thread(target=work)
        thread.start()
        assert arrived.wait(60)
        return thread, goes_on

    def test_one_that_is_running_when_ours_begins(self):
        own, foreign = self.models()
        optimizer = torch.optim.SGD(own.parameters(), 0.1)
        with record(optimizer, steps_per_epoch=1) as recorder:
            thread, goes_on = self.paused(foreign)
            loss = own(torch.ones(4, 3)).square().mean()
            loss.backward()
            goes_on.set()
            thread.join()
            optimizer.step()
        assert_array_equal(recorder.history.loss, [loss.item()])
        assert_array_equal(recorder.history.n_samples, [4])

    def test_one_that_begins_and_ends_while_ours_is_running(self, monkeypatch):
        own, foreign = self.models()
        optimizer = torch.optim.SGD(own.parameters(), 0.1)
        looking, state = [], marks.state
        monkeypatch.setattr(
            marks, "state", lambda p: (looking.append(threading.get_ident()), state(p))[1]
        )
        with record(optimizer, steps_per_epoch=1) as recorder:
            thread, goes_on = self.paused(own)
            foreign(torch.ones(2, 3)).square().mean().backward()
            assert threading.get_ident() not in looking  # at gradients that are being written
            goes_on.set()
            thread.join()
            own.zero_grad()
            loss = own(torch.ones(4, 3)).square().mean()
            loss.backward()
            optimizer.step()
        assert_array_equal(recorder.history.loss, [loss.item()])

    def test_one_that_ends_while_ours_is_running(self, monkeypatch):
        own, foreign = self.models()
        optimizer = torch.optim.SGD(own.parameters(), 0.1)
        looking, changed = [], marks.changed
        monkeypatch.setattr(
            marks, "changed", lambda *a: (looking.append(threading.get_ident()), changed(*a))[1]
        )
        with record(optimizer, steps_per_epoch=1) as recorder:
            other, other_goes_on = self.paused(foreign)
            loss = own(torch.ones(4, 3)).square().mean()

            def let_the_other_end(_):
                other_goes_on.set()
                other.join()

            loss.register_hook(let_the_other_end)
            loss.backward()
            assert looking == [threading.get_ident()]
            optimizer.step()
        assert_array_equal(recorder.history.loss, [loss.item()])
