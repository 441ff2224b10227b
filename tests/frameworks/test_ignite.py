"""Ignite's engines call the loop's own step: `record` is put around `run`."""

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import record
from tests.frameworks.outcomes import BATCH_SIZE, left, network, norms_of, samples
from tests.recording.outcomes import assert_same, seeded

engine = pytest.importorskip("ignite.engine", reason="ignite is not installed")


def made(**settings):
    seeded()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = engine.create_supervised_trainer(model, optimizer, F.cross_entropy, **settings)
    trainer.losses, trainer.norms = [], norms_of(optimizer)
    trainer.add_event_handler(
        engine.Events.ITERATION_COMPLETED, lambda engine: engine.losses.append(engine.state.output)
    )
    loader = DataLoader(TensorDataset(*samples()), BATCH_SIZE, shuffle=True)
    return model, optimizer, trainer, loader


def test_a_run_is_recorded_step_by_step_and_left_as_it_is():
    bare, optimizer, trainer, loader = made()
    trainer.run(loader, max_epochs=3)
    unrecorded = left(bare, optimizer)
    model, optimizer, trainer, loader = made()
    with record(optimizer) as recorder:
        trainer.run(loader, max_epochs=3)
    assert_same(left(model, optimizer), unrecorded, "ignite")
    history = recorder.history
    assert history.n_epochs == 3
    assert_array_equal(history.loss, trainer.losses)
    assert_array_equal(history.n_samples, [6, 6, 6, 2] * 3)
    assert_allclose(history.gradient_norm, trainer.norms, rtol=1e-6)


def test_accumulated_gradients_are_one_step():
    _, optimizer, trainer, loader = made(gradient_accumulation_steps=2)
    with record(optimizer) as recorder:
        trainer.run(loader, max_epochs=3)
    assert recorder.history.epochs()["n_samples"].tolist() == [20, 20, 20]
    parts = torch.tensor(trainer.losses, dtype=torch.float64).view(6, 2) / 2
    assert_allclose(recorder.history.loss, parts.sum(1), rtol=1e-6)
