"""Loops as published scripts write them, with one line added: `with record(optimizer)`.

Each is run from the same seed without a recorder and with one. What they leave is the same to the
bit, and a step's loss is what the script itself knows it to be.
"""

import functools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from tests.recording.outcomes import assert_same, seeded, state_of
from tests.recording.published import episodes, images, others, sequences
from tests.recording.published.script import Script

LOOPS = {
    loop.__name__: loop for part in (images, sequences, episodes, others) for loop in part.LOOPS
}

# The steps of each epoch that has an end to be found, of each optimizer.
EPOCHS = {
    "mnist": [[4, 4, 4]],
    "imagenet": [[3, 3]],
    "label_smoothing_and_averaged_weights": [[4, 4]],
    "mixup": [[4, 4]],
    "distillation": [[4]],
    "variational_autoencoder": [[4, 4]],
    "dcgan": [[4, 4], [4, 4]],
    "wasserstein_with_gradient_penalty": [[6], [2]],
    "denoising_diffusion": [[4, 4]],
    "siamese": [[4, 4]],
    "triplets": [[4]],
    "contrastive": [[4]],
    "detection": [[3, 3]],
    "sharpness_aware": [[4]],
    "mingpt": [[3, 3]],
    "masked_language_model": [[4]],
    "translation": [[4, 4], [4, 4]],
    "speech": [[3]],
    "recommender": [[4, 4]],
    "early_bound": [[4]],
    "loss_by_sample": [[4]],
    "two_heads": [[4]],
    "checkpointed_reentrant": [[4]],
    "checkpointed_anew": [[4]],
    "mixed_precision": [[4, 4]],
    "compiled": [[3, 3]],
    "optimizer_in_backward": [[4, 4]] * 4,
}
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
        "what the script has seen": [(s.losses, s.norms) for s in script.steps],
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


def test_epochs_end_where_the_loader_does_or_it_is_said_that_none_has(name):
    found = [steps.history.epochs()["n_steps"].tolist() for steps in recorded(name)]
    if name in EPOCHS:
        assert found == EPOCHS[name]
    else:
        assert not any(found)
        assert all("no epoch has ended" in steps.said for steps in recorded(name))


@pytest.mark.parametrize("what", ["n_samples", "denominator"])
def test_the_sizes_are_right_or_it_is_said_that_they_are_not_known(name, what):
    for steps in recorded(name):
        sizes = getattr(steps.history, what)
        expected = steps.n_samples if what == "n_samples" else steps.denominators
        is_known = ~np.isnan(sizes)
        assert_array_equal(sizes[is_known], np.array(expected)[is_known])
        assert is_known.all() or "samples" in steps.said
