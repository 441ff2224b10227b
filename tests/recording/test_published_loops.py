"""Loops as published scripts write them, with one line added: `with record(optimizer)`.

Each is run from the same seed without a recorder and with one. What they leave is the same to the
bit, and a step's loss is what the script itself knows it to be.
"""

import functools

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from tests.recording.outcomes import assert_same, seeded, state_of
from tests.recording.published import images, others, sequences
from tests.recording.published.script import Script

LOOPS = {loop.__name__: loop for part in (images, sequences, others) for loop in part.LOOPS}

pytestmark = [
    pytest.mark.parametrize("name", LOOPS),
    pytest.mark.usefixtures("one_thread"),
]


@functools.cache
def run(name, **settings):
    """Run a loop, recorded if there are settings; return it, and all that it leaves."""
    seeded()
    script = Script(settings or None)
    trained = LOOPS[name](script)
    modules = trained if isinstance(trained, tuple) else (trained,)
    return script, {
        "modules": [module.state_dict() for module in modules],
        "gradients": [state_of(p.grad) for module in modules for p in module.parameters()],
        "optimizers": [steps.optimizer.state_dict() for steps in script.steps],
        "what the script has seen": [(s.losses, s.sizes, s.norms) for s in script.steps],
        "random state": torch.get_rng_state(),
    }


def recorded(name):
    return run(name, gradients="auto")[0].steps


def test_recording_changes_nothing(name):
    assert_same(run(name, gradients="auto")[1], run(name)[1], name)


def test_one_row_is_recorded_for_each_step_and_its_loss_is_exact(name):
    for steps in recorded(name):
        assert len(steps.losses) > 1
        assert_array_equal(steps.history.loss, steps.losses)


def test_the_norms_are_those_of_double_precision(name):
    for steps in recorded(name):
        norms = steps.history.gradient_norm
        assert_allclose(norms, steps.norms, rtol=1e-6)
