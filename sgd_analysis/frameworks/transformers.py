"""Record what the Trainer of Hugging Face's transformers trains: a callback."""

from __future__ import annotations

from typing import Any

from torch import nn

from sgd_analysis.frameworks.fits import RecordsFits

try:
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    raise ImportError(
        f"{__name__} needs transformers and accelerate: pip install transformers accelerate, or "
        "this library with its extra [frameworks]"
    ) from error


class RecorderCallback(RecordsFits, TrainerCallback):
    """Records every `train()` of a Trainer, and logs what is known of each epoch.

    `trainer.add_callback(RecorderCallback(trainer))` adds it. Epochs end with the Trainer's; the
    losses and norms of `history.epochs()` that are known then go to `trainer.log`, as
    `sgd_analysis/running_loss` for one, and so to wherever the Trainer reports.

    Every training is recorded anew, from its own first step on, also if it resumes from a
    checkpoint; `history=History.load("run.npz")` continues an earlier recording. What the Trainer
    itself logs as `grad_norm` is the norm before clipping.

    Args:
        trainer: the Trainer.
        criteria: the loss modules that are called, as for `record`; none needed.
        settings: the other arguments of `record`, such as `gradients="norms"`.

    Example:
        >>> from sgd_analysis.frameworks.transformers import RecorderCallback
        >>> callback = RecorderCallback(trainer, gradients="norms")
        >>> trainer.add_callback(callback)
        >>> result = trainer.train()
        >>> callback.history.n_epochs == trainer.args.num_train_epochs
        True
    """

    def __init__(self, trainer: Trainer, *criteria: nn.Module, **settings: Any) -> None:
        super().__init__(*criteria, **settings)
        self._trainer = trainer

    def on_train_begin(self, *state: Any, model: Any, optimizer: Any, **kwargs: Any) -> None:
        """Attach to the optimizer, which is inside of accelerate's."""
        self._begin([getattr(optimizer, "optimizer", optimizer)], model.named_parameters())

    def on_epoch_end(self, *state: Any, **kwargs: Any) -> None:
        """End the epoch, and log what is known of it."""
        if row := self._end_epoch():
            self._trainer.log(row)

    def on_train_end(self, *state: Any, **kwargs: Any) -> None:
        """Take the hooks off."""
        self._end()
