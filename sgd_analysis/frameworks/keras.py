"""Record what Keras 3 fits on torch, with its own optimizers: a callback."""

from __future__ import annotations

from typing import Any

import torch

from sgd_analysis._validation import kind_of
from sgd_analysis.frameworks.fits import RecordsFits
from sgd_analysis.recording.values import number

try:
    from keras import backend
    from keras.callbacks import Callback
    from keras.optimizers import LossScaleOptimizer
except ImportError as error:
    raise ImportError(
        f"{__name__} needs Keras 3: pip install keras, or this library with its extra [frameworks]"
    ) from error


class RecorderCallback(RecordsFits, Callback):
    """Records every `fit` of a model, and adds what is known of each epoch to its logs.

    The losses and norms of `history.epochs()` that are known come into the logs of the epoch, as
    `sgd_analysis/running_loss` for one, and so into the History that `fit` returns, and to the
    callbacks that come later in its list.
    Gradients are those that the optimizer is given: its own clipping comes after.

    Every fit is recorded anew; `history=History.load("run.npz")` continues an earlier recording.

    Args:
        criteria: the loss modules that are called, as for `record`; none needed.
        settings: the other arguments of `record`, such as `gradients="norms"`.

    Example:
        >>> import keras
        >>> from sgd_analysis.frameworks.keras import RecorderCallback
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mean_squared_error")
        >>> callback, inputs = RecorderCallback(n_samples=5), keras.ops.ones((20, 3))
        >>> fit = model.fit(inputs, inputs[:, 0], 5, epochs=2, verbose=0, callbacks=[callback])
        >>> callback.history.n_epochs, callback.history.gradient.shape
        (2, (8, 4))
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attach to the optimizer.

        Raises:
            ValueError: if Keras computes with another backend, or the optimizer does what hides its
                steps.
        """
        if backend.backend() != "torch":
            raise ValueError(
                f"Keras must compute with torch, got {backend.backend()!r}: set the environment "
                "variable KERAS_BACKEND=torch before it is imported"
            )
        optimizer = self.model.optimizer
        if isinstance(optimizer, LossScaleOptimizer) or any(
            getattr(optimizer, name) is not None
            for name in ("loss_scale_factor", "gradient_accumulation_steps")
        ):
            raise ValueError(
                "the optimizer must neither scale losses nor accumulate gradients by itself, which "
                f"cannot be seen from outside, got {kind_of(optimizer)}"
            )
        named = [(variable.path, variable.value) for variable in self.model.trainable_variables]
        self._begin_to_follow(optimizer, "apply", self._groups, named)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """End the epoch, and add what is known of it to the logs."""
        row = self._end_epoch()
        if logs is not None:
            logs.update(row)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take the hooks off."""
        self._end()

    def _groups(self) -> list[dict[str, Any]]:
        rate = self.model.optimizer.learning_rate
        parameters = [variable.value for variable in self.model.trainable_variables]
        return [{"params": parameters, "lr": number(torch.as_tensor(getattr(rate, "value", rate)))}]
