"""Attach to a training loop: every step's loss and gradient, and nothing about the loop changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgd_analysis._arrays import Value
from sgd_analysis._validation import integer_between
from sgd_analysis.history import evaluated
from sgd_analysis.history.history import History
from sgd_analysis.history.writers import PREFIX
from sgd_analysis.recording import sizes
from sgd_analysis.recording.arguments import (
    check_continues,
    check_kinds,
    check_source_of_loss,
    checked_also,
    names_of_parameters,
)
from sgd_analysis.recording.attachment import Attachment
from sgd_analysis.recording.gathering import gather
from sgd_analysis.recording.live import Live
from sgd_analysis.recording.messages import Messages, tell
from sgd_analysis.recording.metadata import metadata_of
from sgd_analysis.recording.parameters import Parameters
from sgd_analysis.recording.processes import has_several_processes
from sgd_analysis.recording.rows import Rows


def record(
    optimizer: torch.optim.Optimizer,
    *criteria: nn.Module,
    steps_per_epoch: int | None = None,
    n_samples: float | Callable[..., float] | None = None,
    loss: Literal["objective", "criteria"] = "objective",
    gradients: Literal["auto", "norms", "none"] = "auto",
    memory: int = 64 << 20,
    weights: bool = False,
    also: Iterable[
        Literal["unclipped_norm", "update_norm", "norms_by_parameter", "fingerprints"]
    ] = (),
    named_parameters: Iterable[tuple[str, Tensor]] | None = None,
    history: History | None = None,
) -> Recorder:
    """Record every step of a training loop from now on, without changing the loop or its numbers.

    Use it in a `with` statement around the loop, or call `close()` on what it returns.

    Args:
        optimizer: the loop's optimizer, of any class from `torch.optim` or derived from one.
        criteria: the loss modules that the loop calls, if it calls some. They tell how many samples
            a batch has; without any, as for a loss that is a function or is computed inside of
            the model, the graph of the loss tells, where it is torch's own or a plain mean.
        steps_per_epoch: the number of optimizer steps after which an epoch ends. None: it ends
            where the loop calls `end_epoch()`; and if it never does, where the `DataLoader` that
            gives the batches has no more, or is iterated anew.
        n_samples: how many samples a batch counts for: its `n_samples` and its `denominator`.
            The number, where it is the same in each backward pass; or a function: of what the
            criterion is called with, and without a criterion of nothing, such as `lambda:
            len(inputs)`, called in each backward pass. By default, the number of samples
            is the length of the criterion's first argument, and the denominator what the mean of
            torch's own losses divides by: the number of targets not ignored, the sum of their
            class weights, or the number of elements. What nothing tells is nan, and said once.
        loss: what a step's loss is. "objective": the function whose gradient the step takes, what
            the loop calls `backward()` on. "criteria": what the criteria say, as means: several
            calls of one averaged by their denominators, several criteria added up, without
            penalties, factors and the divisions of accumulation; `history.objective` has the other.
        gradients: "auto" keeps each step's gradient while all kept vectors fit into `memory`,
            then its norm and the sum of the present epoch only; "norms" does the latter from the
            first step on; "none" looks at no gradient.
        memory: the bytes that all kept vectors together may take.
        weights: whether to keep the weights before each update, too, as long as they fit.
        also: what else to record, each under its name in the `History`. "unclipped_norm": the norm
            of the gradient as a step's last backward pass has left it, before any clipping, at the
            cost of a norm a pass. "update_norm": how far the step moves the weights, at the cost
            of one more copy of them. "norms_by_parameter": the norm of each one's gradient, as
            long as they fit into `memory`. "fingerprints": which samples it has seen, a number of
            64 bits for each that the `DataLoader` has given since the step before, of all tensors
            and arrays in the batch; half of `memory` is theirs, and `repeated_samples` reads them.
        named_parameters: the names of the parameters, `model.named_parameters()`: at least those
            of the optimizer's. By default, what the optimizer was given; or "0", "1", …
        history: an earlier recording to continue, for instance a loaded one.

    Returns:
        A `Recorder`; what was recorded is its `history`.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a number is out of range, or the history does not fit the optimizer.

    Example:
        >>> import torch
        >>> from sgd_analysis import record
        >>> model, criterion = torch.nn.Linear(2, 1), torch.nn.MSELoss()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with record(optimizer, criterion, steps_per_epoch=3) as recorder:
        ...     for _ in range(6):
        ...         optimizer.zero_grad()
        ...         criterion(model(torch.ones(5, 2)), torch.zeros(5, 1)).backward()
        ...         optimizer.step()
        >>> recorder.history.n_epochs, recorder.history.gradient.shape
        (2, (6, 3))
    """
    return Recorder(
        optimizer,
        *criteria,
        steps_per_epoch=steps_per_epoch,
        n_samples=n_samples,
        loss=loss,
        gradients=gradients,
        memory=memory,
        weights=weights,
        also=also,
        named_parameters=named_parameters,
        history=history,
    )


class Recorder:
    """What `record` returns: attached to a loop until `close()` or the end of its `with`.

    One row is recorded at each `optimizer.step()`, just before its update. Its loss is the
    objective: the sum of what `backward()` was called on, over the passes whose gradients the step
    uses, without the factor of a GradScaler. A pass whose gradients were cleared before the step
    does not count, nor one for another optimizer. Where a loop leaves gradients uncleared from one
    step to the next, only the passes of the present step are added up. The criteria tell the number
    of samples: that of the first one's largest call in each of those passes, added up over them; of
    a pass through none the graph of its loss does. Where passes of one step differ in size,
    `history.size_weighted_loss` has the loss as their samples weigh it. Of a step with a closure,
    the closure's first evaluation counts. `observe` overrides the loss.

    Only the thread that makes the steps is looked at.

    The hooks never raise, never warn and never wait for a device within a step. What they have
    to say is logged by the logger "sgd_analysis" when the first epoch has ended, and said as a
    warning by `end_epoch()` or `close()`; the device is waited for when an epoch ends, and when
    `history` is read.

    Args:
        optimizer: the loop's optimizer.
        criteria: the loss modules that the loop calls; they tell how many samples a batch has.
        steps_per_epoch: the number of steps after which an epoch ends; None: `end_epoch()` ends it,
            or the loader of the batches.
        n_samples: how many samples a batch counts for: a number, or a function, as for `record`;
            None: what torch's own losses are means of.
        loss: what a step's loss is, its "objective" or what the "criteria" say, as means.
        gradients: "auto" keeps them while they fit into `memory`, "norms" their norms and the sum
            of the present epoch, "none" nothing.
        memory: the bytes that all kept vectors together may take.
        weights: whether to keep the weights before each update, too, as long as they fit.
        also: what else to record, by its name in the `History`.
        named_parameters: the names of the parameters.
        history: an earlier recording to continue.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a number is out of range, or the history does not fit the optimizer.

    Example:
        >>> import torch
        >>> from sgd_analysis import record
        >>> weight = torch.nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = torch.optim.SGD([weight], lr=0.25)
        >>> recorder = record(optimizer)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     loss = weight.square().sum()
        ...     recorder.observe(loss, n_samples=1)
        ...     loss.backward()
        ...     optimizer.step()
        >>> recorder.end_epoch()
        >>> recorder.close()
        >>> recorder
        Recorder(closed, 3 steps, 1 finished epochs)
        >>> recorder.history.loss.tolist()
        [9.0, 2.25, 0.5625]
        >>> recorder.history.gradient_norm.tolist()
        [6.0, 3.0, 1.5]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *criteria: nn.Module,
        steps_per_epoch: int | None,
        n_samples: float | Callable[..., float] | None,
        loss: str,
        gradients: str,
        memory: int,
        weights: bool,
        also: Iterable[str],
        named_parameters: Iterable[tuple[str, Tensor]] | None,
        history: History | None,
    ) -> None:
        check_kinds(
            optimizer,
            criteria,
            n_samples=n_samples,
            gradients=gradients,
            weights=weights,
            history=history,
        )
        check_source_of_loss(loss, len(criteria))
        self._steps_per_epoch = (
            math.inf
            if steps_per_epoch is None
            else integer_between("steps_per_epoch", steps_per_epoch, 1)
        )
        criteria = tuple(dict.fromkeys(criteria))
        self._metadata = metadata_of(optimizer, criteria) | {"loss": loss}
        also = checked_also(also)
        self._parameters = Parameters(optimizer, names_of_parameters(named_parameters, optimizer))
        check_continues(
            history,
            reduction=self._metadata["reduction"],
            n_parameters=sum(parameter.numel() for parameter in self._parameters.seen),
            gradients=gradients,
            weights=weights,
            also=also,
        )
        averages = gradients != "none" and has_several_processes()
        watches_local = averages and not self._parameters.is_sharded
        self._rows = Rows(
            gradients,
            integer_between("memory", memory, 0),
            weights=weights,
            also=also,
            local=watches_local,
            history=history,
        )
        self._n_before = self._rows.n_steps  # the rows of the recording it continues
        self._evaluated = {} if history is None else dict(history.evaluated)
        self._messages = Messages()
        failed = self._messages.logger_failed
        self._live = Live(self._n_before, self._rows.n_epochs, failed)
        self._is_open = True  # until close()
        self._kept: History | None = None  # once the loop is let go
        self._attachment = Attachment(
            optimizer,
            criteria,
            n_samples,
            parameters=self._parameters,
            rows=self._rows,
            messages=self._messages,
            steps_per_epoch=self._steps_per_epoch,
            epoch_ends=self._live.hand_over,
            from_criteria=loss == "criteria",
            watches_local=watches_local,
            also=also,
        )

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._kept is not None:
            return
        self._detach()
        if error is None:
            self._look_for_epochs()
        tell(self._new_messages(), "the recorder", error, stacklevel=2)

    def __repr__(self) -> str:
        state = "recording" if self._is_open else "closed"
        rows = self._rows if self._kept is None else self._kept
        return f"Recorder({state}, {rows.n_steps} steps, {rows.n_epochs} finished epochs)"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Recorder is tied to a loop and cannot be copied or pickled: use recorder.history"
        )

    @property
    def history(self) -> History:
        """The `History` recorded so far; while recording, too."""
        if self._kept is not None:
            return self._kept
        made_with = self._metadata | {"parameters": self._parameters.sizes}
        if self._parameters.is_sharded:
            made_with["shards"] = self._parameters.shards
        beside = evaluated.padded(self._evaluated, self._rows.n_epochs)
        return self._rows.history(made_with, beside)

    def observe(
        self, loss: float | Tensor, n_samples: float, denominator: float | None = None
    ) -> None:
        """Give the loss of the present step, in place of what the recorder would say.

        Call it in each step before its `optimizer.step()`, just before or after the backward
        pass. Called once for each of several backward passes before one step, the losses are
        averaged by their denominators. What is observed of a batch that leads to no step is
        dropped with its gradients, or replaced by what is observed next.

        Args:
            loss: the mean over the batch, as a number or a tensor of one element.
            n_samples: the number of samples in the batch.
            denominator: what the mean divides by, where that is not the number of samples.

        Raises:
            RuntimeError: if the recorder is closed.
            TypeError: if the loss is neither a number nor a tensor, or n_samples no number.
            ValueError: if the loss has several elements, or n_samples is not positive.
        """
        self._require_open("observe")
        size: Value = n_samples
        if type(loss) is not float or not sizes.is_plain(size):
            sizes.check_loss(loss)  # which costs more than all the rest
            size = sizes.told_size("n_samples", size)
        divides_by = size if denominator is None else sizes.told_size("denominator", denominator)
        self._attachment.losses.observe(loss, size, divides_by)

    def end_epoch(self) -> None:
        """End the epoch after the steps made so far; without any, do nothing.

        With `steps_per_epoch` it ends an epoch early, for instance after a `break`.

        Raises:
            RuntimeError: if the recorder is closed.
        """
        self._require_open("end_epoch")
        if self._rows.steps_in_epoch:
            self._attachment.end_epoch()
        self._warn()

    def evaluate(self, /, **values: float | Tensor | evaluated.Measured) -> None:
        """Keep what the loop has evaluated, beside the epoch that has just finished.

        Call it after `end_epoch()`, or after an epoch's last step, and after `close()`, too. It is
        in `history.evaluated`, in the tables by epoch, and in `history.plot()`. Names that were
        given for this epoch before are overwritten, others stay.

        Args:
            values: numbers and tensors of one element, each under its name; and surveys. A survey
                called `train` gives `train_empirical_risk`, `train_full_gradient_norm`,
                `train_mean_batch_gradient_norm`, and `train_gradient_noise_scale` where that is
                exact.

        Raises:
            RuntimeError: if no epoch has finished, or `record_all` has closed the recorder.
            TypeError: if a value is nothing of the kind.
            ValueError: if a tensor has several elements, or a name is that of another column.

        Example:
            >>> import torch
            >>> from sgd_analysis import record, survey
            >>> model, criterion = torch.nn.Linear(2, 1), torch.nn.MSELoss()
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> data = [(torch.ones(5, 2), torch.zeros(5, 1))] * 3
            >>> with record(optimizer, criterion) as recorder:
            ...     for epoch in range(2):
            ...         for inputs, targets in data:
            ...             optimizer.zero_grad()
            ...             criterion(model(inputs), targets).backward()
            ...             optimizer.step()
            ...         recorder.end_epoch()
            ...         risk = survey(model, criterion, data)
            ...         recorder.evaluate(test=0.5 / (epoch + 1), train=risk)
            >>> recorder.history.evaluated["test"].tolist()
            [0.5, 0.25]
            >>> recorder.history.evaluated["train_empirical_risk"].shape
            (2,)
        """
        if self._kept is not None:
            raise RuntimeError("evaluate() comes too late, record_all() has let the loop go")
        numbers = evaluated.numbers_of(values)
        self._finish_found_epoch()
        n_epochs = self._rows.n_epochs
        self._evaluated = evaluated.with_last(self._evaluated, n_epochs, numbers)
        end = self._rows.n_steps - self._rows.steps_in_epoch
        self._live.hand_over_evaluated(numbers, end)
        if n_steps := self._rows.steps_in_epoch:
            self._messages.evaluated_late(n_steps)
        self._warn()

    def _finish_found_epoch(self) -> None:
        if self._is_open:
            self._attachment.finish_epoch()
        if not self._rows.n_epochs:
            raise RuntimeError(
                "evaluate() keeps values beside the epoch that has just finished, and none has: "
                "give record() steps_per_epoch=, or call recorder.end_epoch() before it"
            )

    def log_to(self, writer: Any, prefix: str = PREFIX) -> None:
        """Hand the rows to a logger while the loop goes on: whenever an epoch ends.

        What is `evaluated` follows when it is, and `close()` hands over what is left. What the
        logger is told is what `history.log_to(writer)` would tell it. If it raises, it is dropped;
        the loop and the recording go on, and a warning says so in the end. With several processes,
        each may have a logger for what it records itself.

        Args:
            writer: a logger, as for `History.log_to`.
            prefix: what the names begin with: another one for each of several optimizers.

        Raises:
            RuntimeError: if the recorder is closed.
            TypeError: if the writer is of no kind that is known.

        Example:
            >>> import torch
            >>> from sgd_analysis import record
            >>> class Printer:
            ...     def log(self, numbers, step):
            ...         print(step, numbers.get("sgd_analysis/running_loss", "-"))
            >>> weight = torch.nn.Parameter(torch.tensor([3.0]))
            >>> optimizer = torch.optim.SGD([weight], lr=0.25)
            >>> with record(optimizer, n_samples=1, steps_per_epoch=2) as recorder:
            ...     recorder.log_to(Printer())
            ...     for _ in range(3):
            ...         optimizer.zero_grad()
            ...         weight.square().sum().backward()
            ...         optimizer.step()
            ...     print("the loop has ended")
            1 -
            2 5.625
            the loop has ended
            3 -
        """
        self._require_open("log_to")
        self._live.add(writer, prefix, lambda: self.history)

    def close(self) -> None:
        """Take every hook off. What was recorded stays; closing twice does no harm."""
        if self._kept is None:
            self._detach()
            self._look_for_epochs()
            self._warn()

    def gather(self) -> History | None:
        """Put the histories of several processes together; every one of them has to call this.

        Returns:
            On rank 0 the global history: its losses are size-weighted means over the ranks (plain
            means if the objectives are sums), its `objective` the plain mean, whose gradient is the
            averaged one, its `n_samples` and denominators sums over them, its gradients the
            averaged ones, and `evaluated` what rank 0 has evaluated; `ranks` holds
            the history of each rank with its local gradients. Of sharded parameters (DTensors, as
            `fully_shard` and `parallelize_module` make them) each rank has recorded its own
            shards, the first of those that hold the same; here they are put together. Ranks of
            them whose losses are the same at all steps have seen the same batches, as in tensor
            parallel, and count once. On the other ranks None. With a single process, `history`.

        Raises:
            RuntimeError: if the ranks have recorded different numbers of steps or epochs.
        """
        return gather(self.history)

    def _let_go(self) -> list[str]:
        """Close, and keep nothing but the history.

        Returns:
            What there is to say.
        """
        if self._kept is not None:
            return []
        self._detach()
        self._look_for_epochs()
        messages = self._new_messages()
        self._kept = self.history
        del self._rows, self._parameters, self._attachment  # which hold the model's tensors
        return messages

    def _detach(self) -> None:
        self._is_open = False
        self._attachment.detach()
        self._attachment.look_for_steps()
        self._attachment.look_at_first_epoch()
        losses = self._attachment.losses
        losses.look_for_shift()
        losses.forget()
        self._live.close()

    def _look_for_epochs(self) -> None:
        if self._rows.n_steps > self._n_before and not self._rows.n_epochs:
            if self._steps_per_epoch == math.inf:
                self._messages.no_epoch()

    def _new_messages(self) -> list[str]:
        self._attachment.look_for_steps()
        self._attachment.samples.look_for_missing()
        if self._attachment.losses.is_late:
            self._messages.late()
        if any(self._attachment.losses.unsure):
            self._messages.unsure()
        self._messages.counts()
        full_at = self._rows.full_at
        if full_at is not None and full_at >= self._n_before:  # and not in what it continues
            self._messages.full(full_at)
        return self._messages.take()

    def _warn(self) -> None:
        tell(self._new_messages(), "the recorder", stacklevel=3)

    def _require_open(self, method: str) -> None:
        if not self._is_open:
            raise RuntimeError(f"{method}() needs a recorder that records, this one is closed")
