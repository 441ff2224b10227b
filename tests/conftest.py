"""What all tests share: one thread, and no clock."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# With more threads, those of tiny operations wait for each other most of the time, and all the more
# where tests run side by side. Set the variable to try another number.
if "OMP_NUM_THREADS" not in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start
    torch.set_num_threads(1)

# Speed is measured in tests/benchmarks: a slow moment of the machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
