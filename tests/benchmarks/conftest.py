"""How speed is measured: in one thread, in turns, as ratios of medians.

    python -m pytest tests/benchmarks --benchmark-only -s

The runs take turns, in an order drawn anew each round, so that whatever else the machine does meets
all of them.
"""

import random
import statistics
import time

import pytest
import torch


@pytest.fixture
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def in_turns(benchmark, one_thread):
    """Time functions by name, report and return their median seconds.

    Each median is multiplied by the function's entry in `per`, where there is one: what a run is to
    stand for, over what it did. `clock=time.process_time` counts the seconds of the processor.
    """

    def measure(runs, *, relative_to, rounds, per=None, clock=time.perf_counter):
        seconds = {name: [] for name in runs}

        def take_turns():
            for name in random.sample(list(runs), len(runs)):
                start = clock()
                runs[name]()
                seconds[name].append(clock() - start)

        take_turns()  # imports, and the first use of everything
        for times in seconds.values():
            times.clear()
        benchmark.pedantic(take_turns, rounds=rounds)
        factors = dict.fromkeys(runs, 1.0) | (per or {})
        medians = {
            name: factors[name] * statistics.median(times) for name, times in seconds.items()
        }
        for name, median in medians.items():
            benchmark.extra_info[f"{name}, milliseconds"] = float(f"{1e3 * median:.4g}")
            ratio = median / medians[relative_to]
            benchmark.extra_info[f"{name} / {relative_to}"] = float(f"{ratio:.4g}")
        print("\n", *benchmark.extra_info.items(), sep="\n  ")
        return medians

    return measure
