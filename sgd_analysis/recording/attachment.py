"""The hooks of a recorder on a loop, and what they do at each step: one row is recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import nn

from sgd_analysis._arrays import Value
from sgd_analysis.recording.attribution import SeenLosses
from sgd_analysis.recording.backward import Listener
from sgd_analysis.recording.criteria import Criteria
from sgd_analysis.recording.found_epochs import FoundEpochs
from sgd_analysis.recording.gradients import norm, on_this_process
from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.messages import Messages
from sgd_analysis.recording.parameters import Parameters
from sgd_analysis.recording.pass_sizes import PassSizes
from sgd_analysis.recording.processes import LocalGradients
from sgd_analysis.recording.rows import Rows
from sgd_analysis.recording.seen_samples import SeenSamples
from sgd_analysis.recording.steps import Steps
from sgd_analysis.recording.updates import Updates
from sgd_analysis.recording.votes import Votes


class Attachment:
    """Attached to a loop until `detach`.

    A criterion's call tells the sizes of a batch, a backward pass its objective, and the step that
    uses the pass's gradients makes a row of them.

    Args:
        optimizer: whose steps.
        criteria: the modules that tell the sizes.
        n_samples: their number in each backward pass, or the user's own function that tells it;
            None to know oneself.
        parameters: those of the optimizer.
        rows: where the steps are recorded.
        messages: where it is noted what there is to say.
        steps_per_epoch: the number of steps after which an epoch ends, maybe infinity.
        epoch_ends: called after an epoch has.
        from_criteria: whether a step's loss is what the criteria say instead of its objective.
        watches_local: whether to record this process's own gradients, too.
        also: what else to record, by the names that a history has for it.

    Raises:
        TypeError: if a criterion takes no hooks.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        criteria: Sequence[nn.Module],
        n_samples: float | Callable[..., float] | None,
        *,
        parameters: Parameters,
        rows: Rows,
        messages: Messages,
        steps_per_epoch: float,
        epoch_ends: Callable[[], None],
        from_criteria: bool,
        watches_local: bool,
        also: Collection[str],
    ) -> None:
        self._parameters, self._rows, self._messages = parameters, rows, messages
        self._steps_per_epoch, self._epoch_ends = steps_per_epoch, epoch_ends
        self._n_before = rows.n_steps  # those of the recording it continues
        self._has_ended = False  # whether the step whose row is the last one has
        self._guard = guard = Guard(self._failed)
        of_calls = callable(n_samples) and bool(criteria)  # and not of passes
        sizes = None if of_calls else PassSizes(n_samples, messages.unknown_size_of_pass, guard)
        measure = self._norm_of_gradients if "unclipped_norm" in also else None
        self.losses = losses = SeenLosses(
            _are_sums(criteria), sizes, guard, from_criteria=from_criteria, measure=measure
        )
        self._votes = Votes()
        self._updates = Updates(parameters) if "update_norm" in also else None
        self.samples = SeenSamples(rows, messages, guard)
        self._local = LocalGradients(guard) if watches_local else None
        self._listener = Listener(guard(losses.begins), guard(losses.ends))
        self._criteria: Criteria | None = None
        self._steps: Steps | None = None
        self._found: FoundEpochs | None = None
        if steps_per_epoch == math.inf:
            self._found = FoundEpochs(rows, self._end_epoch, self._no_steps, guard)
        try:
            self._lay_out()
            unknown = messages.unknown_size
            self._criteria = Criteria(criteria, n_samples, losses.add, unknown, guard)
            starts = None if self._updates is None else self._step_starts
            self._steps = Steps(optimizer, self._add_row, self._step_ends, guard, starts)
            self._listener.listen()
            self.samples.listen()
            if self._found is not None:
                self._found.listen()
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Take every hook off."""
        self.finish_epoch()
        self._stop_finding()
        self._guard.stop()
        self._listener.stop()
        self.samples.stop()
        if self._criteria is not None:
            self._criteria.remove()
        if self._steps is not None and self._steps.remove():
            self._steps = None  # otherwise its hooks do nothing until this is called again
        if self._local is not None:
            self._local.close()

    def end_epoch(self) -> None:
        """End the epoch after the steps made so far: from now on, only where the loop says so."""
        self._stop_finding()
        self._end_epoch()

    def finish_epoch(self) -> None:
        """End the epoch if no one else does, and its loader has no more batches."""
        if self._found is not None:
            self._found.finish()

    def look_for_steps(self) -> None:
        """Say if none was seen though there was something to see."""
        if self._rows.n_steps > self._n_before:
            return
        if n_waiting := self.losses.n_waiting:
            self._messages.no_step(n_waiting)
        elif self._parameters.have_moved():
            self._messages.no_step_of_what_has_moved()

    def look_at_first_epoch(self) -> None:
        """Say if the loop has multiplied gradients by hand, or its passes weigh by no sizes."""
        if factors := self.losses.rescaling.found():
            self._messages.rescaled(*factors)
        if losses := self._votes.found():
            self._messages.one_vote_each(*losses)

    def _add_row(self) -> None:
        """Record the step that is about to be made."""
        if not self._has_ended and self._is_epoch_full():  # the step before has raised
            self._end_epoch()
        self._has_ended = False
        if self._found is not None:
            self._found.step_begins()
        self._follow()
        parameters = self._parameters
        gradients, skipped = parameters.gradients()
        seen = self.losses.take(gradients)
        self._messages.count(seen)
        self._votes.step(seen.loss, seen.size_weighting, seen.votes)
        local = () if self._local is None else self._local.take(parameters.seen)
        self._rows.append(
            seen,
            parameters.step_sizes(),
            gradients,
            local,
            skipped,
            self.losses.unclipped,
            self.samples.take(),
        )

    def _step_starts(self) -> None:
        self._follow()
        if self._updates is not None:
            self._updates.begin()

    def _step_ends(self, had_closure: bool) -> None:
        if self._updates is not None:
            self._rows.step_ends(self._updates.norm())
        if had_closure:
            self.losses.forget()  # what its later evaluations have left
        if self._is_epoch_full():
            self._end_epoch()
        elif self._found is not None:
            self._found.step_ends()
        self._has_ended = True

    def _end_epoch(self) -> None:
        self._rows.end_epoch()
        self.losses.end_epoch()
        self.look_at_first_epoch()
        self._epoch_ends()
        self._messages.log()

    def _no_steps(self) -> None:
        self.look_for_steps()
        self._messages.log()

    def _stop_finding(self) -> None:
        if self._found is not None:
            self._found.stop()
            self._found = None

    def _is_epoch_full(self) -> bool:
        return self._rows.steps_in_epoch >= self._steps_per_epoch

    def _norm_of_gradients(self) -> Value:
        """Return the norm of the gradients that there are now."""
        self._follow()
        return norm(self._parameters.held())

    def _follow(self) -> None:
        """Take the parameters as they are, if they have changed."""
        if self._parameters.have_changed():
            self._parameters.follow()
            self._lay_out()

    def _lay_out(self) -> None:
        """Say over which parameters the steps that follow go."""
        parameters = self._parameters.seen
        self._rows.lay_out([on_this_process(parameter) for parameter in parameters])
        self.losses.lay_out(parameters)
        if self._updates is not None:
            self._updates.lay_out()
        if self._local is not None:
            self._local.watch(parameters)

    def _failed(self, error: Exception) -> None:
        self._messages.failure(self._rows.n_steps, error)


def _are_sums(criteria: Sequence[nn.Module]) -> list[bool]:
    return [getattr(criterion, "reduction", "mean") == "sum" for criterion in criteria]
