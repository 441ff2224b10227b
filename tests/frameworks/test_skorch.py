"""skorch's nets: a callback attaches to `net.optimizer_`."""

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import record
from tests.frameworks.outcomes import BATCH_SIZE, left, network, norm, samples
from tests.recording.outcomes import assert_same, seeded

skorch = pytest.importorskip("skorch", reason="skorch is not installed")


class Norms(skorch.callbacks.Callback):
    def initialize(self):
        self.norms_ = []

    def on_grad_computed(self, net, **kwargs):
        self.norms_.append(norm(net.module_.parameters()))


class Recording(skorch.callbacks.Callback):
    def on_train_begin(self, net, **kwargs):
        self.recorder_ = record(net.optimizer_)

    def on_train_end(self, net, **kwargs):
        self.recorder_.close()


class Clipped(skorch.callbacks.GradientNormClipping):
    def __init__(self):
        super().__init__(gradient_clip_value=0.1)


def fitted(*callbacks, optimizer=torch.optim.Adam, **settings):
    seeded()
    inputs, labels = samples()
    net = skorch.NeuralNetClassifier(
        network,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=optimizer,
        lr=0.05,
        max_epochs=3,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[*callbacks, Norms()],
        **settings,
    )
    return net.fit(inputs.numpy(), labels.numpy())


@pytest.mark.parametrize("clipping", [[], [Clipped()]], ids=["plain", "clipped"])
def test_a_fit_is_recorded_step_by_step_and_left_as_it_is(clipping):
    bare = fitted(*clipping)
    unrecorded = left(bare.module_, bare.optimizer_)
    recording = Recording()
    net = fitted(*clipping, recording)
    assert_same(left(net.module_, net.optimizer_), unrecorded, "skorch")
    history = recording.recorder_.history
    assert history.n_epochs == 3
    seen = net.history[:, "batches", :, "train_loss"]
    assert_array_equal(history.loss, [loss for epoch in seen for loss in epoch])
    assert_array_equal(history.n_samples, [6, 6, 6, 2] * 3)
    assert_allclose(history.running_loss, net.history[:, "train_loss"], rtol=1e-15)
    norms = dict(net.callbacks_)["Norms"].norms_
    assert_allclose(history.gradient_norm, norms, rtol=1e-6)
