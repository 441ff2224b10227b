"""What a recorder has to say, kept until it may: when an epoch ends, or the recording."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Sequence

from sgd_analysis._arrays import Value
from sgd_analysis._validation import kind_of
from sgd_analysis.recording.step_loss import StepLoss

_logger = logging.getLogger("sgd_analysis")


class Messages:
    """The messages that no warning has told of yet: each is said once, counts as they grow."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._said: set[str] = set()
        self._has_logged = False
        self._n_unseen = self._n_unsized = self._n_uncounted = 0

    def count(self, seen: StepLoss) -> None:
        """Count a step whose loss, or whose number of samples, is not known."""
        if seen.loss is math.nan:
            self._n_unseen += 1
        elif _is_nan(seen.denominator):
            self._n_unsized += 1
        elif _is_nan(seen.n_samples):
            self._n_uncounted += 1

    def log(self) -> None:
        """Log what there is to say as soon as an epoch has ended; a warning will say it again.

        A hook must not warn, since a warning can be an error. It is logged once a recording.
        """
        if self._has_logged:
            return
        self._has_logged = True
        for message in (*self._waiting, *self._counted()):
            with contextlib.suppress(Exception):  # of a handler
                _logger.warning("%s", message)

    def take(self) -> list[str]:
        """Return what is to be said now; it has been said then."""
        taken, self._waiting = self._waiting, []
        return taken

    def failure(self, n_steps: int, error: Exception) -> None:
        """Say that a hook has failed."""
        self._once("failure", f"recording stopped after {n_steps} steps, which are kept: {error!r}")

    def unknown_size(self, criterion: object, error: Exception) -> None:
        """Say that the function failed which tells the number of samples."""
        self._once(
            "unknown size",
            f"the number of samples of a batch is not known, and is nan ({error!r}): "
            "give record(..., n_samples=...) a function of what "
            f"{kind_of(criterion)} is called with that returns a positive number",
        )

    def unknown_size_of_pass(self, error: Exception) -> None:
        """Say that the function failed which tells it of a backward pass."""
        self._once(
            "unknown size",
            f"the number of samples of a batch is not known, and is nan ({error!r}): without a "
            "criterion, n_samples= is a number, or a function that is called with nothing in each "
            "backward pass and returns a positive number",
        )

    def no_step(self, n_passes: int) -> None:
        """Say that backward passes led to no step."""
        self._once(
            "no step",
            f"{n_passes} backward passes were seen, but no step of the "
            "optimizer: give record() the optimizer that the loop steps with, inside any "
            "wrapper, and do not compile its step()",
        )

    def no_step_of_what_has_moved(self) -> None:
        """Say that parameters have changed without one."""
        self._once(
            "no step",
            "the parameters have changed, but no step of the optimizer was seen: give record() "
            "the optimizer that the loop steps with, inside any wrapper; of a training step "
            "that is compiled as a whole nothing can be seen: compile the model, or what "
            "computes the loss, and leave backward() and step() outside",
        )

    def no_epoch(self) -> None:
        """Say that no epoch has ended."""
        self._once(
            "no epoch",
            "no epoch has ended, and what history has by epoch, its running_loss for one, "
            "is empty: none could be found, as no DataLoader gave the batches up to its end: give "
            "record() steps_per_epoch=, or call recorder.end_epoch()",
        )

    def rescaled(self, least: float, most: float) -> None:
        """Say that the gradients of the first epoch were multiplied by hand."""
        by = f"{least:.4g}" if f"{least:.3g}" == f"{most:.3g}" else f"{least:.4g} to {most:.4g}"
        self._once(
            "rescaled",
            f"gradients were multiplied by {by} between backward() and step(), in the first epoch: "
            "the loss of a row is what backward() was called on, and its gradient as many times "
            "that of the loss; divide the loss instead, or recorder.observe() the one you mean",
        )

    def one_vote_each(self, loss: float, by_size: float, change: float) -> None:
        """Say that the passes of a step differ in size, and weigh the same."""
        self._once(
            "one vote each",
            "the backward passes of a step had one vote each, though their batches differ in size: "
            f"its loss is {loss:.4g} on average, {by_size:.4g} weighted by size, as "
            f"history.size_weighted_loss has it (in the median step they differ by {change:.1%}), "
            "and its gradient differs with it: multiply each mean by its share of the step's "
            "samples or tokens, in place of dividing it by the number of passes",
        )

    def late(self) -> None:
        """Say that losses were observed after their steps."""
        self._once(
            "late",
            "observe() was called after the step whose loss it gave: call it before "
            "optimizer.step(). Rows in which that was seen hold what backward() was called "
            "on; others may hold the loss of the step before",
        )

    def unsure(self) -> None:
        """Say that it cannot be told whether gradients were cleared."""
        self._once(
            "unsure",
            "between two backward passes all gradients were zero: whether the loop had cleared "
            "them, by grad.data.zero_() for one, cannot be told, and the loss of that step is "
            "nan: clear them by optimizer.zero_grad()",
        )

    def counts(self) -> None:
        """Say how many steps have been counted since the last time."""
        self._waiting += self._counted()
        self._n_unseen = self._n_unsized = self._n_uncounted = 0

    def _counted(self) -> Iterator[str]:
        if self._n_unseen:
            yield (
                f"{self._n_unseen} steps were made without a backward pass that the recorder has "
                "seen, and their loss is nan: call recorder.observe(loss, n_samples) before each "
                "step; gradients cleared between backward() and step() look the same"
            )
        if self._n_unsized:
            yield (
                f"the number of samples of {self._n_unsized} steps is not known and nan, and so is "
                "the running loss: give n_samples= their number in each backward pass, or a "
                "function that returns it; give record() the criterion that the loop calls (not "
                "compiled, or compiled after that); or call recorder.observe(loss, n_samples) in "
                "each step"
            )
        if self._n_uncounted:
            yield (
                f"how many samples the batches of {self._n_uncounted} steps have is not known, and "
                "n_samples is nan: sequences may have been flattened, or come with time first. The "
                "denominators, and with them the running loss, are known"
            )

    def evaluated_late(self, n_steps: int) -> None:
        """Say that an epoch was evaluated when so many steps of the next one had been made."""
        self._once(
            "evaluated late",
            f"evaluate() was called {n_steps} steps after the end of the epoch beside which it "
            "keeps values: call it before the next step, or end_epoch() before it",
        )

    def logger_failed(self, logger: object, n_steps: int, error: Exception) -> None:
        """Say that a logger has raised, and is handed nothing more."""
        self._once(
            f"logger {id(logger)}",
            f"{kind_of(logger)} was handed {n_steps} steps and no more, since it raised {error!r}: "
            "recorder.history.log_to() hands them all to another",
        )

    def full(self, n_kept: int) -> None:
        """Say that the memory is full."""
        self._once(
            "full",
            f"whole vectors were kept for the first {n_kept} steps, more do not fit into "
            "memory=; later steps keep norms and the sum of the present epoch: give record() "
            'more, or gradients="norms" to have no more than that from the first step on',
        )

    def no_more_fingerprints(self, n_kept: int, reason: str) -> None:
        """Say after how many steps fingerprints have ended."""
        self._once(
            "fingerprints", f"fingerprints were kept of the first {n_kept} steps only: {reason}"
        )

    def no_samples_seen(self) -> None:
        """Say that there was nothing to take fingerprints of."""
        self._once(
            "fingerprints",
            "no fingerprint was taken: no DataLoader gave the batches in the thread that makes the "
            "steps, and what else gives them cannot be seen",
        )

    def _once(self, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._waiting.append(message)


def tell(
    messages: Sequence[str], teller: str, error: BaseException | None = None, *, stacklevel: int
) -> None:
    """Say messages as one warning, or where a loop has ended by an error, as notes on that.

    A warning that is an error would take the place of the loop's own.
    """
    if error is not None:
        for message in messages:
            error.add_note(f"From {teller}: {message}")
    elif messages:
        warnings.warn("\n".join(messages), stacklevel=stacklevel + 1)


def _is_nan(value: Value) -> bool:
    """Return whether a number is nan; of one on a device nothing is said."""
    return isinstance(value, float) and math.isnan(value)
