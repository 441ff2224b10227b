"""Keras 3 on torch, with its own optimizers."""

import doctest
import os

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import record
from tests.frameworks.outcomes import BATCH_SIZE, norm, samples
from tests.recording.outcomes import assert_same

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="Keras is not installed")
if keras.backend.backend() != "torch":
    pytest.skip("Keras computes with another backend than torch", allow_module_level=True)

from sgd_analysis.frameworks.keras import RecorderCallback  # noqa: E402


class Classifier(keras.Sequential):
    """Keeps the losses and the norms that it sees in training."""

    def __init__(self):
        super().__init__()
        self.losses_seen, self.norms = [], []

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        if loss.requires_grad:
            loss.register_hook(lambda _: self.losses_seen.append(loss.item()))
        return loss


def fitted(*callbacks, optimizer=lambda: keras.optimizers.Adam(0.05)):
    keras.utils.set_random_seed(5)
    inputs, labels = samples()
    model = Classifier()
    model.add(keras.Input((3,)))
    model.add(keras.layers.Dense(4, "tanh"))
    model.add(keras.layers.Dropout(0.2))
    model.add(keras.layers.Dense(2, kernel_regularizer="l2"))
    model.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    norms = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: model.norms.append(norm(model.parameters()))
    )
    together = [*callbacks, norms]
    data = inputs.numpy(), labels.numpy()
    fit = model.fit(*data, BATCH_SIZE, epochs=3, verbose=0, callbacks=together)
    return model, fit.history


def left(model):
    variables = [*model.variables, *model.optimizer.variables]
    return {
        "variables": [variable.value.detach() for variable in variables],
        "gradients": [p.grad for p in model.parameters()],
        "seen": (model.losses_seen[:], model.norms[:]),
        "random states": (torch.get_rng_state(), np.random.get_state()),
    }


OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(0.05),
    "SGD with a schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5), momentum=0.9
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fit_is_recorded_step_by_step_and_left_as_it_is(name):
    bare, logs = fitted(optimizer=OPTIMIZERS[name])
    callback = RecorderCallback(n_samples=BATCH_SIZE)
    model, logs_of_recorded = fitted(callback, optimizer=OPTIMIZERS[name])
    assert_same(left(model), left(bare), "keras")
    assert_same(logs_of_recorded["loss"], logs["loss"], "logs")
    history = callback.history
    assert (history.n_steps, history.n_epochs) == (12, 3)
    assert history.metadata["optimizer"] == name.split()[0]
    assert_array_equal(history.loss, model.losses_seen)
    assert_allclose(history.gradient_norm, model.norms, rtol=1e-6)
    assert "apply" not in vars(model.optimizer)


def test_keras_prints_the_running_loss_and_the_callback_adds_the_rest_to_its_logs():
    callback = RecorderCallback(n_samples=5, gradients="norms")
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fit = model.fit(samples()[0].numpy(), np.ones(20), 5, 2, verbose=0, callbacks=[callback])
    table = callback.history.epochs()
    assert_allclose(fit.history["loss"], table["running_loss"], rtol=1e-6)
    for name in ("running_loss", "mean_batch_loss", "path_gradient_norm", "mean_gradient_norm"):
        assert_array_equal(fit.history[f"sgd_analysis/{name}"], table[name])


def test_updates_and_names_are_those_of_keras():
    callback = RecorderCallback(
        n_samples=BATCH_SIZE, also=["update_norm", "norms_by_parameter"], weights=True
    )
    model, _ = fitted(callback)
    weights = callback.history.weights
    moved = np.linalg.norm(np.diff(weights.astype(np.float64), axis=0), axis=1)
    assert_allclose(callback.history.update_norm[:-1], moved, rtol=1e-5)
    paths = [variable.path for variable in model.trainable_variables]
    assert [*callback.history.parameter_names] == paths


def test_the_step_sizes_of_a_schedule_are_recorded():
    callback = RecorderCallback(n_samples=BATCH_SIZE)
    fitted(callback, optimizer=OPTIMIZERS["SGD with a schedule"])
    assert_allclose(callback.history.step_size[:, 0], 0.1 * 0.5 ** (np.arange(12) / 4), rtol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    ],
    ids=["scaled", "accumulated"],
)
def test_what_the_optimizer_does_with_gradients_itself_is_refused(optimizer):
    with pytest.raises(ValueError, match="must neither scale losses nor accumulate gradients"):
        fitted(RecorderCallback(), optimizer=optimizer)


def test_record_names_the_callback():
    with pytest.raises(TypeError, match=r"Adam: the callback of sgd_analysis\.frameworks\.keras"):
        record(keras.optimizers.Adam())


def test_the_example_of_the_callback_runs():
    (example,) = doctest.DocTestFinder().find(RecorderCallback, globs={})[:1]
    assert example.examples
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)
