"""One run of a published loop: recorded or not, and what the script knows of itself."""

import contextlib
import warnings

import torch

from sgd_analysis import record


class Steps:
    """What a script knows of the steps of one optimizer."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.losses, self.norms = [], []
        self.n_samples, self.denominators = [], []
        self.history, self.said = None, ""
        self._looked = []
        optimizer.register_step_pre_hook(self._before)

    def _before(self, optimizer, args, kwargs):
        if not args[1:] and not kwargs:  # or else there is a closure, and no gradient yet
            self.look()

    def look(self):
        """Look at the gradient; that of a step is the first one that is seen."""
        groups = self.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        entries = [g.detach().to_dense().double().flatten() for g in gradients]
        self._looked.append(torch.cat(entries).norm().item())

    def __call__(self, loss, n_samples, denominator=None):
        """Tell the loss of the step just made, and what it is about.

        Args:
            loss: what the script descends; or a list, where several backward passes add up.
            n_samples: how many samples that was.
            denominator: what the loss would have to be divided by were it a sum, if not by that.
        """
        losses = loss if isinstance(loss, list) else [loss]
        self.losses.append(sum(one.item() for one in losses))
        self.n_samples.append(n_samples)
        self.denominators.append(n_samples if denominator is None else denominator)
        self.norms.append(self._looked[0])
        self._looked.clear()


class Script:
    """A run of a loop; with settings, recorded with these."""

    def __init__(self, settings=None):
        self.settings = settings
        self.steps = []  # one for each optimizer

    @contextlib.contextmanager
    def record(self, optimizer):
        """Stand for `record(optimizer)`, the line that is added to a script."""
        steps = Steps(optimizer)
        self.steps.append(steps)
        if self.settings is None:
            yield steps
            return
        recorder = record(optimizer, **self.settings)
        try:
            yield steps
        finally:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                recorder.close()
            steps.said = "\n".join(str(warning.message) for warning in caught)
            steps.history = recorder.history
