"""fastai's Learner, with its own optimizers and with torch's."""

import doctest
import functools

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import record
from tests.frameworks.outcomes import BATCH_SIZE, network, norm, samples
from tests.recording.outcomes import assert_same, seeded

learners = pytest.importorskip("fastai.learner", reason="fastai is not installed")

from fastai.callback.core import Callback  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.optimizer import SGD, Adam, OptimWrapper  # noqa: E402

from sgd_analysis.frameworks.fastai import RecorderCallback  # noqa: E402


class Sees(Callback):
    def before_fit(self):
        self.losses, self.norms, self.step_sizes = [], [], []

    def before_batch(self):
        if self.training:
            self.step_sizes.append(0.05 / (1 + len(self.losses)))
            self.learn.opt.set_hypers(lr=self.step_sizes[-1])

    def before_step(self):
        self.losses.append(self.learn.loss.item())
        self.norms.append(norm(self.learn.model.parameters()))


OPTIMIZERS = {
    "SGD": functools.partial(SGD, mom=0.9),
    "Adam": Adam,
    "torch's RMSprop": functools.partial(OptimWrapper, opt=torch.optim.RMSprop),
}


def made(optimizer=Adam):
    seeded()
    loaders = [DataLoader(TensorDataset(*samples()), BATCH_SIZE, shuffle=True) for _ in range(2)]
    learner = learners.Learner(
        DataLoaders(*loaders), network(), torch.nn.CrossEntropyLoss(), optimizer,
        lr=0.05, cbs=[Sees()],
    )  # fmt: skip
    return learner


def left(learner):
    return {
        "model": learner.model.state_dict(),
        "gradients": [p.grad for p in learner.model.parameters()],
        "state": [learner.opt.state_dict()["state"]],
        "seen": (learner.sees.losses, learner.sees.norms),
        "random state": torch.get_rng_state(),
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fit_is_recorded_step_by_step_and_left_as_it_is(name):
    bare = made(optimizer=OPTIMIZERS[name])
    with bare.no_logging():
        bare.fit(3)
    learner = made(optimizer=OPTIMIZERS[name])
    callback = RecorderCallback()
    with learner.no_logging():
        learner.fit(3, cbs=callback)
    assert_same(left(learner), left(bare), name)
    history = callback.history
    assert (history.n_steps, history.n_epochs) == (12, 3)
    assert_array_equal(history.loss, learner.sees.losses)
    assert_allclose(history.gradient_norm, learner.sees.norms, rtol=1e-6)
    assert_array_equal(history.step_size[:, 0], learner.sees.step_sizes)
    assert_array_equal(history.n_samples, [6, 6, 6, 2] * 3)
    assert "step" not in vars(learner.opt)


def test_record_names_the_callback():
    learner = made()
    learner.create_opt()
    with pytest.raises(TypeError, match=r"Optimizer: the callback of .*frameworks\.fastai"):
        record(learner.opt)


def test_record_takes_the_optimizer_of_torch_that_fastai_wraps():
    learner = made(optimizer=OPTIMIZERS["torch's RMSprop"])
    learner.create_opt()
    with pytest.raises(TypeError, match="OptimWrapper: give its `opt`"):
        record(learner.opt)
    with record(learner.opt.opt) as recorder:
        with learner.no_logging():
            learner.fit(2)
    assert recorder.history.n_epochs == 2


def test_the_example_of_the_callback_runs():
    names = {"learner": made()}
    (example,) = doctest.DocTestFinder().find(RecorderCallback, globs=names)[:1]
    assert example.examples
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)
