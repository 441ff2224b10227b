"""An interrupt may come between any two instructions: a row is there whole, or not at all."""

import contextlib
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

import sgd_analysis
from sgd_analysis import record

PACKAGE = str(Path(sgd_analysis.__file__).parent)
N_STEPS, N_PLACES = 7, 60


class Interrupt:
    """Raises KeyboardInterrupt at the n-th instruction of the package, once."""

    def __init__(self, at=None):
        self.at, self.n_seen = at, 0

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        return self.at_opcode

    def at_opcode(self, frame, event, argument):
        if event == "opcode":
            self.n_seen += 1
            if self.n_seen == self.at:
                raise KeyboardInterrupt
        return self.at_opcode

    def __enter__(self):
        sys.settrace(self)

    def __exit__(self, *_):
        sys.settrace(None)


def run(at, **settings):
    """A loop that goes on after an interrupt; what it saw, and what was recorded."""
    torch.manual_seed(0)
    model, criterion = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen, interrupted = [], []
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        recorder = record(optimizer, criterion, steps_per_epoch=3, **settings)
        interrupt = Interrupt(at)
        for k in range(N_STEPS):
            inputs, targets = torch.full((4, 2), k + 1.0), torch.full((4, 1), 0.5)
            try:
                with interrupt:
                    optimizer.zero_grad()
                    loss = criterion(model(inputs), targets)
                    loss.backward()
                    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
                    seen.append((loss.item(), gradient.numpy().astype(float)))
                    optimizer.step()
            except KeyboardInterrupt:
                interrupted.append(k)
        history = recorder.history
        recorder.close()
    return history, seen, interrupted, interrupt.n_seen


SETTINGS = {
    "whole": {},
    "norms": {"gradients": "norms"},
    "all there is": {"also": ("unclipped_norm", "update_norm", "norms_by_parameter")},
    "little memory": {"memory": 4 * 9 * 4, "weights": False},
}


@pytest.mark.usefixtures("summed")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_row_is_there_whole_or_not_at_all(settings):
    history, _, _, n_places = run(None, **settings)
    assert history.n_steps == N_STEPS
    places = sorted(random.Random(0).sample(range(1, n_places + 1), N_PLACES))
    for at in places:
        history, seen, interrupted, _ = run(at, **settings)
        # Every row is that of a step that was made, in their order; the one that was interrupted
        # may be missing, and no other.
        missing = [k for k, (loss, _) in enumerate(seen) if loss not in history.loss]
        assert len(interrupted) == 1, at
        there = [pair for k, pair in enumerate(seen) if k not in missing]
        assert len(missing) <= 1 and history.n_steps == len(there), at
        assert_array_equal(history.loss, [loss for loss, _ in there], err_msg=str(at))
        gradients = np.array([gradient for _, gradient in there])
        norms = np.linalg.norm(gradients, axis=1)
        assert_allclose(history.gradient_norm, norms, rtol=1e-5, err_msg=str(at))
        kept = history.gradients.kept
        if len(kept):
            assert_array_equal(kept, gradients[: len(kept)].astype(np.float32), err_msg=str(at))
        # A path gradient is that of its epoch's rows, or it is nan.
        for e, norm in enumerate(history.path_gradient_norm):
            path = gradients[history.epoch == e].mean(axis=0)
            assert np.isnan(norm) or abs(norm / np.linalg.norm(path) - 1) < 1e-4, at
        if "also" in settings:
            by_parameter = np.linalg.norm(history.norms_by_parameter, axis=1)
            assert_allclose(by_parameter, norms, rtol=1e-5, err_msg=str(at))
            # These were measured at another moment than the row was made, or not at all.
            for found, expected in (
                (history.unclipped_norm, norms),
                (history.update_norm, 0.1 * norms),
            ):
                known = ~np.isnan(found)
                assert (~known).sum() <= 1, at
                assert_allclose(found[known], expected[known], rtol=1e-4, err_msg=str(at))
