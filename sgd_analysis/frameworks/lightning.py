"""Record what Lightning's Trainer fits: a callback."""

from __future__ import annotations

from sgd_analysis.frameworks.fits import RecordsFits

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer
    except ImportError as error:
        raise ImportError(
            f"{__name__} needs Lightning: pip install lightning, or this library with its extra "
            "[frameworks]"
        ) from error


class RecorderCallback(RecordsFits, Callback):
    """Records every fit of a Trainer, and logs what is known of each epoch.

    Each optimizer has a recorder of its own; epochs end with the Trainer's. The losses and norms
    of `history.epochs()` that are known are logged by `log_dict`: the loggers have them, and
    `EarlyStopping` or `ModelCheckpoint` can monitor them, as `sgd_analysis/running_loss` for one.
    Of several optimizers these are `sgd_analysis/0/running_loss`, `sgd_analysis/1/running_loss`
    and so on, in the order of `trainer.optimizers`, and `histories` has their histories. Each
    process records, and logs, its own batches.

    Every fit is recorded anew, from its own first step on, also if it resumes from a checkpoint;
    `history=History.load("run.npz")` continues an earlier recording.

    Args:
        criteria: the loss modules that are called, as for `record`; none needed.
        settings: the other arguments of `record`, such as `gradients="norms"`.

    Example:
        >>> import torch
        >>> from lightning.pytorch import LightningModule, Trainer
        >>> from sgd_analysis.frameworks.lightning import RecorderCallback
        >>> class Line(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(3, 1)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         return self.layer(batch).square().mean()
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> callback = RecorderCallback()
        >>> trainer = Trainer(
        ...     max_epochs=2,
        ...     callbacks=[callback],
        ...     logger=False,
        ...     enable_checkpointing=False,
        ...     enable_model_summary=False,
        ...     enable_progress_bar=False,
        ... )
        >>> trainer.fit(Line(), torch.utils.data.DataLoader(torch.ones(20, 3), batch_size=5))
        >>> callback.history.n_epochs, callback.history.gradient.shape
        (2, (8, 4))
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the optimizers."""
        self._begin(trainer.optimizers, pl_module.named_parameters())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch, and log what is known of it."""
        pl_module.log_dict(self._end_epoch())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off."""
        self._end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the hooks off."""
        self._end(exception)
