"""Record what fastai's Learner fits, with its own optimizers, too: a callback."""

from __future__ import annotations

from typing import Any

from sgd_analysis.frameworks.fits import RecordsFits

try:
    from fastai.callback.core import Callback
    from fastai.optimizer import OptimWrapper
except ImportError as error:
    raise ImportError(f"{__name__} needs fastai: pip install fastai") from error


class RecorderCallback(RecordsFits, Callback):
    """Records every fit of a Learner; epochs end with its own.

    Every fit is recorded anew; `history=History.load("run.npz")` continues an earlier recording.

    Args:
        criteria: the loss modules that are called, as for `record`; none needed.
        settings: the other arguments of `record`, such as `gradients="norms"`.

    Example:
        >>> from sgd_analysis.frameworks.fastai import RecorderCallback
        >>> callback = RecorderCallback(gradients="norms")
        >>> with learner.no_logging():
        ...     learner.fit(2, cbs=callback)
        >>> callback.history.n_epochs
        2
    """

    def before_fit(self) -> None:
        """Attach to the optimizer, torch's own where it is one."""
        optimizer, named = self.learn.opt, self.learn.model.named_parameters()
        if isinstance(optimizer, OptimWrapper):
            self._begin([optimizer.opt], named)
        else:
            self._begin_to_follow(optimizer, "step", self._groups, named)

    def after_train(self) -> None:
        """End the epoch."""
        self._end_epoch()

    def after_fit(self) -> None:
        """Take the hooks off."""
        self._end()

    def _groups(self) -> list[dict[str, Any]]:
        groups = zip(self.learn.opt.param_lists, self.learn.opt.hypers, strict=True)
        return [{"params": [*params], "lr": hyper["lr"]} for params, hyper in groups]
