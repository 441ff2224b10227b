"""Lightning's Trainer, recorded by the callback, or by `record` in a hook of the module."""

import doctest

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import History, record
from tests.frameworks.outcomes import BATCH_SIZE, left, network, norm, norms_of, samples
from tests.recording.outcomes import assert_same, seeded

L = pytest.importorskip("lightning", reason="Lightning is not installed")

from sgd_analysis.frameworks.lightning import RecorderCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]

QUIET = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}


class Logger(L.pytorch.loggers.logger.Logger):
    name, version = "of this test", 0

    def __init__(self):
        self.rows = []

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step):
        self.rows.append(metrics)

    def column(self, name):
        return [row[name] for row in self.rows if name in row]


class Classifier(L.LightningModule):
    """Its loss is a function; what it logs of a step is that of the first evaluation."""

    optimizer = staticmethod(lambda parameters: torch.optim.Adam(parameters, lr=0.1))

    def __init__(self):
        super().__init__()
        self.network = network()
        self.norms = {}  # at each step, of its first evaluation

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        loss = F.cross_entropy(self.network(inputs), labels)
        if self.global_step not in self.norms:
            self.log("loss", loss)
        return loss

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ):
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self.norms.setdefault(self.global_step, norm(self.parameters()))

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class ByLBFGS(Classifier):
    optimizer = staticmethod(lambda parameters: torch.optim.LBFGS(parameters, max_iter=3))


class WithItsOwnLoss(Classifier):
    """Its forward method returns the loss, as those of many models do."""

    def forward(self, inputs, labels):
        outputs = self.network(inputs)
        return {"loss": F.nll_loss(outputs.log_softmax(1), labels), "outputs": outputs}

    def training_step(self, batch, batch_idx):
        returned = self(*batch)
        self.log("loss", returned["loss"])
        return returned


class Adversaries(L.LightningModule):
    """A generator and a discriminator, optimized by hand."""

    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)
        self.automatic_optimization = False
        self.losses = [], []
        self.norms = []

    def configure_optimizers(self):
        parts = self.generator, self.discriminator
        optimizers = [torch.optim.Adam(part.parameters(), lr=0.01) for part in parts]
        self.norms = [norms_of(optimizer) for optimizer in optimizers]
        return optimizers

    def training_step(self, batch, batch_idx):
        real, fake = batch[0], self.generator(torch.randn_like(batch[0]))
        for i, optimizer in enumerate(self.optimizers()):
            self.toggle_optimizer(optimizer)
            loss = F.softplus(-self.discriminator(fake if i == 0 else real)).mean()
            if i == 1:
                loss = loss + F.softplus(self.discriminator(fake.detach())).mean()
            self.manual_backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            self.untoggle_optimizer(optimizer)
            self.losses[i].append(loss.item())


def loader():
    return DataLoader(TensorDataset(*samples()), BATCH_SIZE, shuffle=True)


def fit(module, *callbacks, **settings):
    seeded()
    model, logger = module(), Logger()
    trainer = L.Trainer(
        **{"max_epochs": 3, "log_every_n_steps": 1, "logger": logger} | QUIET | settings,
        callbacks=[*callbacks],
    )
    trainer.fit(model, loader())
    return model, trainer, logger


LOOPS = {
    "functional loss": (Classifier, {}),
    "loss of the model": (WithItsOwnLoss, {}),
    "clipped": (Classifier, {"gradient_clip_val": 0.1}),
    "in bfloat16": (Classifier, {"precision": "bf16-mixed"}),
    "LBFGS": (ByLBFGS, {}),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_fit_is_recorded_step_by_step_and_left_as_it_is(loop):
    module, settings = LOOPS[loop]
    bare, trainer, _ = fit(module, **settings)
    unrecorded = left(bare, *trainer.optimizers)
    callback = RecorderCallback()
    model, trainer, logger = fit(module, callback, **settings)
    assert_same(left(model, *trainer.optimizers), unrecorded, loop)
    history = callback.history
    assert (history.n_steps, history.n_epochs) == (12, 3)
    assert_array_equal(history.loss, logger.column("loss"))
    assert_array_equal(history.n_samples, [6, 6, 6, 2] * 3)
    assert_allclose(history.gradient_norm, [*model.norms.values()], rtol=1e-6)


def test_accumulated_batches_are_one_step_whose_loss_is_their_sum():
    # What Lightning hands to `on_train_batch_end` is already divided, what it logs is not.
    class Parts(Classifier):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            parts.append(outputs["loss"].item())

    parts, callback = [], RecorderCallback()
    model, _, _ = fit(Parts, callback, accumulate_grad_batches=3)
    by_epoch = np.reshape(parts, (3, 4))
    expected = np.stack([by_epoch[:, :3].sum(1), by_epoch[:, 3]], axis=1)
    assert_allclose(callback.history.loss, expected.ravel(), rtol=1e-15)
    assert_allclose(callback.history.gradient_norm, [*model.norms.values()], rtol=1e-6)


def test_each_optimizer_of_several_has_a_history_and_names_of_its_own():
    bare, trainer, _ = fit(Adversaries)
    unrecorded = left(bare, *trainer.optimizers)
    callback = RecorderCallback(n_samples=BATCH_SIZE)  # two means, of two batches: not seen
    model, trainer, logger = fit(Adversaries, callback)
    assert_same(left(model, *trainer.optimizers), unrecorded, "adversaries")
    for i, history in enumerate(callback.histories):
        assert (history.n_steps, history.n_epochs) == (12, 3)
        assert_array_equal(history.loss, model.losses[i])
        assert_allclose(history.gradient_norm, model.norms[i], rtol=1e-6)
        logged = logger.column(f"sgd_analysis/{i}/running_loss")
        assert_array_equal(logged, history.running_loss.astype(np.float32))
    with pytest.raises(ValueError, match="here are 2: histories has one for each"):
        callback.history  # noqa: B018


def test_the_parameters_have_the_names_that_the_module_gives_them():
    callback = RecorderCallback(also=["norms_by_parameter"])
    model, _, _ = fit(Classifier, callback, max_epochs=1)
    assert [*callback.history.parameter_names] == [name for name, _ in model.named_parameters()]


def test_what_is_known_of_an_epoch_is_logged_and_can_be_monitored():
    callback = RecorderCallback(gradients="norms")
    stops = L.pytorch.callbacks.EarlyStopping(
        "sgd_analysis/running_loss", patience=1, min_delta=100.0
    )
    _, trainer, logger = fit(Classifier, callback, stops, max_epochs=9)
    history = callback.history
    assert history.n_epochs == trainer.current_epoch == 2
    for name in ("running_loss", "mean_batch_loss", "path_gradient_norm", "mean_gradient_norm"):
        assert_array_equal(
            logger.column(f"sgd_analysis/{name}"), history.epochs()[name].astype(np.float32)
        )
    assert not logger.column("sgd_analysis/n_steps")


@pytest.mark.filterwarnings("ignore:the number of samples of .* steps is not known")
def test_what_is_not_known_is_not_logged():
    class OfNoMean(Classifier):
        def training_step(self, batch, batch_idx):
            return self.network(batch[0]).square().logsumexp(0).max()

    _, _, logger = fit(OfNoMean, RecorderCallback(gradients="none"))
    assert logger.column("sgd_analysis/mean_batch_loss")
    assert not logger.column("sgd_analysis/running_loss")


def test_an_error_takes_the_hooks_off_and_keeps_the_steps():
    class Breaks(Classifier):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 5:
                raise RuntimeError("broken")

    callback = RecorderCallback()
    with pytest.raises(RuntimeError, match="broken"):
        fit(Breaks, callback)
    (recorder,) = callback.recorders
    assert repr(recorder) == "Recorder(closed, 5 steps, 1 finished epochs)"


def test_each_fit_is_recorded_anew_and_a_history_continued_when_it_is_given(tmp_path):
    callback = RecorderCallback()
    _, trainer, _ = fit(Classifier, callback, max_epochs=2)
    before = callback.history
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    before.save(tmp_path / "two.npz")
    resumed = RecorderCallback(history=History.load(tmp_path / "two.npz"))
    again = [callback, resumed]
    trainer = L.Trainer(max_epochs=3, logger=False, callbacks=again, **QUIET)
    trainer.fit(Classifier(), loader(), ckpt_path=tmp_path / "two.ckpt")
    assert (callback.history.n_steps, callback.history.n_epochs) == (4, 1)
    assert (resumed.history.n_steps, resumed.history.n_epochs) == (12, 3)
    assert_array_equal(resumed.history.loss[:8], before.loss)
    assert_array_equal(resumed.history.loss[8:], callback.history.loss)


def test_record_takes_the_optimizer_that_lightning_wraps():
    class Recorded(Classifier):
        def on_train_start(self):
            self.recorder = record(self.optimizers())

        def on_train_end(self):
            self.recorder.close()

    model, _, logger = fit(Recorded)
    assert model.recorder.history.n_epochs == 3
    assert_array_equal(model.recorder.history.loss, logger.column("loss"))


def test_the_example_of_the_callback_runs():
    (example,) = doctest.DocTestFinder().find(RecorderCallback, globs={})[:1]
    assert example.examples
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)
