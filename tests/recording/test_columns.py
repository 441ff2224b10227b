"""What a row takes besides its vectors."""

import tracemalloc

import pytest

from sgd_analysis import record
from tests.recording.loops import batches

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


def test_a_row_takes_at_most_64_bytes_besides_the_gradient(model, criterion, sgd):
    inputs, targets = batches(1)[0]
    recorder = record(sgd, criterion, steps_per_epoch=1000, gradients="none")

    def steps(n):
        for _ in range(n):
            sgd.zero_grad()
            criterion(model(inputs), targets).backward()
            sgd.step()

    ours = tracemalloc.Filter(True, "*/sgd_analysis/*", all_frames=True)
    tracemalloc.start(4)
    taken = []
    for n in (500, 2000):
        steps(n)
        _ = recorder.history  # after it no row waits any more, as 256 at most do
        traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
        taken.append(sum(trace.size for trace in traces))
    tracemalloc.stop()
    recorder.close()
    assert recorder.history.n_steps == 2500
    assert (taken[1] - taken[0]) / 2000 <= 64
