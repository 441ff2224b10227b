"""Attach to a training loop: every step's loss and gradient, and nothing about the loop changes."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Iterable
from numbers import Real
from types import TracebackType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from sgd_analysis._arrays import Value
from sgd_analysis._criteria import batch_size_of, denominator_of
from sgd_analysis._validation import integer_between, kind_of, positive_number
from sgd_analysis.history.history import History
from sgd_analysis.recording import backward, processes
from sgd_analysis.recording.attribution import SeenLosses
from sgd_analysis.recording.gradients import on_this_process, unscaled
from sgd_analysis.recording.hooks import InertInCopies
from sgd_analysis.recording.metadata import check_continues, metadata_of
from sgd_analysis.recording.rows import Rows
from sgd_analysis.recording.steps import Steps

# A criterion's arguments -> what its mean divides by, the number of samples.
Sizes: TypeAlias = Callable[..., tuple[Value, Value]]


def record(
    optimizer: torch.optim.Optimizer,
    *criteria: nn.Module,
    steps_per_epoch: int | None = None,
    n_samples: Callable[..., float] | None = None,
    loss: Literal["objective", "criteria"] = "objective",
    gradients: Literal["auto", "norms", "none"] = "auto",
    memory: int = 64 << 20,
    weights: bool = False,
    history: History | None = None,
) -> Recorder:
    """Record every step of a training loop from now on, without changing the loop or its numbers.

    Use it in a `with` statement around the loop, or call `close()` on what it returns.

    Args:
        optimizer: the loop's optimizer, of any class from `torch.optim` or derived from one.
        criteria: the loss modules that the loop calls: they tell how many samples a batch has.
            Without any, as for a loss that is a function, losses and gradients are recorded all
            the same; sizes, running loss and path gradient are nan unless `observe` tells the
            sizes.
        steps_per_epoch: the number of optimizer steps after which an epoch ends; with a loader
            that accumulates no gradients, `len(loader)`. None: the loop calls `end_epoch()`.
        n_samples: how many samples a batch counts for, a function of what the criterion is
            called with: its `n_samples` and its `denominator`. By default, the number of samples
            is the length of the criterion's first argument, and the denominator what the mean of
            torch's own losses divides by: the number of targets not ignored, the sum of their
            class weights, or the number of elements.
        loss: what a step's loss is. "objective": the function whose gradient the step takes, what
            the loop calls `backward()` on. "criteria": what the criteria say, as means: several
            calls of one averaged by their denominators, several criteria added up, without
            penalties, factors and the divisions of accumulation; `history.objective` has the other.
        gradients: "auto" keeps each step's gradient while all kept vectors fit into `memory`,
            then its norm and the sum of the present epoch only; "norms" does the latter from the
            first step on; "none" looks at no gradient.
        memory: the bytes that all kept vectors together may take.
        weights: whether to keep the weights before each update, too, as long as they fit.
        history: an earlier recording to continue, for instance a loaded one.

    Returns:
        A `Recorder`; what was recorded is its `history`.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a number is out of range, or the history does not fit the optimizer.

    Example:
        >>> import torch
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
        history=history,
    )


class Recorder:
    """What `record` returns: attached to a loop until `close()` or the end of its `with`.

    One row is recorded at each `optimizer.step()`, just before its update. Its loss is the
    objective: the sum of what `backward()` was called on, over the passes whose gradients the step
    uses, without the factor of a GradScaler. A pass whose gradients were cleared before the step
    does not count, nor one for another optimizer. Where a loop leaves gradients uncleared from one
    step to the next, only the passes of the present step are added up. The criteria tell the
    number of samples: that of the first one's largest call in each of those passes, added up over
    them. Of a step with a closure, the closure's first evaluation counts. `observe` overrides the
    loss.

    Only the thread that makes the steps is looked at.

    The hooks never raise, never warn and never wait for a device within a step. What they have
    to say is said as a warning by `end_epoch()` or `close()`; the device is waited for when an
    epoch ends, and when `history` is read.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *criteria: nn.Module,
        steps_per_epoch: int | None,
        n_samples: Callable[..., float] | None,
        loss: str,
        gradients: str,
        memory: int,
        weights: bool,
        history: History | None,
    ) -> None:
        _check_kinds(optimizer, criteria, n_samples, gradients, weights, history)
        if loss not in ("objective", "criteria") or (loss == "criteria" and not criteria):
            raise ValueError(
                'loss must be "objective", or "criteria" together with at least one of them, got '
                f"{loss!r} and {len(criteria)} criteria"
            )
        criteria = tuple(dict.fromkeys(criteria))
        self._optimizer = optimizer
        self._steps_per_epoch = (
            math.inf
            if steps_per_epoch is None
            else integer_between("steps_per_epoch", steps_per_epoch, 1)
        )
        self._metadata = metadata_of(optimizer, criteria) | {"loss": loss}
        check_continues(
            history, self._metadata, optimizer.param_groups, gradients=gradients, weights=weights
        )
        self._parameters: list[Tensor] = []  # in the order in which they were seen first
        self._removed: set[Tensor] = set()
        self._in_groups: list[Tensor] = []  # as they were found last
        sums = [getattr(criterion, "reduction", "mean") == "sum" for criterion in criteria]
        self._losses = SeenLosses(sums, self._guarded, from_criteria=loss == "criteria")
        self._is_sharded = processes.is_sharded(optimizer.param_groups)
        watches_local = (
            gradients != "none" and not self._is_sharded and processes.has_several_processes()
        )
        self._local = processes.LocalGradients(self._guarded) if watches_local else None
        self._rows = Rows(
            gradients,
            integer_between("memory", memory, 0),
            weights=weights,
            local=watches_local,
            history=history,
        )
        self._n_before = self._rows.n_steps  # the rows of the recording it continues
        self._attached = self._works = True  # until close(), or until a hook fails
        self._messages: list[str] = []  # that no warning has told of yet
        self._said: set[str] = set()
        self._was_full = self._rows.full_at is not None
        self._n_unseen = self._n_unsized = 0  # the steps without a loss, or without its
        # number of samples, that no warning has told of yet
        self._handles: list[Any] = []
        self._steps: Steps | None = None
        self._listener = backward.Listener(
            self._guarded(self._losses.begins), self._guarded(self._losses.ends)
        )
        try:
            self._follow(optimizer.param_groups)
            self._versions = self._versions_now()
            self._attach(criteria, n_samples)
        except BaseException:
            self._detach()
            raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._detach()
        if error is None:
            self._look_for_epochs()
            self._warn()
        else:  # a warning that is an error must not take the place of this one
            for message in self._new_messages():
                error.add_note(f"From the recorder: {message}")

    def __repr__(self) -> str:
        state = "recording" if self._attached else "closed"
        steps = self._rows.n_steps
        return f"Recorder({state}, {steps} steps, {self._rows.n_epochs} finished epochs)"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Recorder is tied to a loop and cannot be copied or pickled: use recorder.history"
        )

    @property
    def history(self) -> History:
        """The `History` recorded so far; while recording, too."""
        return self._rows.history(self._metadata)

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
        self._require_attached("observe")
        size: Value = n_samples
        if type(loss) is not float or type(size) is not float or not 0 < size < math.inf:
            size = _checked_size(loss, size)  # which costs more than all the rest
        divides_by = size
        if denominator is not None:
            divides_by = _checked_size(loss, denominator, "denominator")
        self._losses.observe(loss, size, divides_by)

    def end_epoch(self) -> None:
        """End the epoch after the steps made so far; without any, do nothing.

        With `steps_per_epoch` it ends an epoch early, for instance after a `break`.

        Raises:
            RuntimeError: if the recorder is closed.
        """
        self._require_attached("end_epoch")
        if self._rows.steps_in_epoch:
            self._end_epoch()
        self._warn()

    def close(self) -> None:
        """Take every hook off. What was recorded stays; closing twice does no harm."""
        self._detach()
        self._look_for_epochs()
        self._warn()

    def gather(self) -> History | None:
        """Put the histories of several processes together; every one of them has to call this.

        Returns:
            On rank 0 the global history: its losses are size-weighted means over the ranks (plain
            means if the objectives are sums), its `n_samples` and denominators sums over them, its
            gradients the averaged ones; `ranks` holds the history of each rank with its local
            gradients. Of sharded parameters (DTensors, as `fully_shard` makes them) each rank has
            recorded its own shards, the first of those that hold the same; here they are put
            together. On the other ranks None. With a single process, `history`.

        Raises:
            RuntimeError: if the ranks have recorded different numbers of steps or epochs.
        """
        return processes.gather(self.history)

    def _attach(
        self, criteria: Iterable[nn.Module], n_samples: Callable[..., float] | None
    ) -> None:
        for index, criterion in enumerate(criteria):
            sizes = _sizes_of(criterion) if n_samples is None else _given_sizes(n_samples)
            hook = InertInCopies(self._guarded(self._forward_hook(index, sizes)))
            self._handles.append(_hooked(criterion, hook))
        self._steps = Steps(self._optimizer, self._add_row, self._step_ends, self._guarded)
        self._listener.listen()

    def _detach(self) -> None:
        self._attached = self._works = False
        self._listener.stop()
        for handle in self._handles:
            handle.remove()
        if self._steps is not None and self._steps.remove():
            self._steps = None  # otherwise its hooks do nothing until close() is called again
        if self._local is not None:
            self._local.close()
        self._look_for_steps()
        self._losses.look_for_shift()
        self._losses.forget()

    def _guarded(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook without what would disturb the loop: errors, and being compiled with it."""
        is_compiled = torch.compiler.is_dynamo_compiling

        def guarded(*args: Any) -> Any:
            if self._works and not is_compiled():
                try:
                    return hook(*args)
                except Exception as error:
                    # The hooks stay until close(): torch is going through them just now.
                    self._works = False
                    self._say_once(
                        "failure",
                        f"recording stopped after {self._rows.n_steps} steps, which are kept: "
                        f"{error!r}",
                    )
            return None

        return guarded

    def _forward_hook(self, index: int, sizes: Sizes) -> Callable[..., None]:
        def after_forward(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            loss = output if isinstance(output, Tensor) else _loss_in(output)
            if loss is None or not loss.requires_grad or _is_transformed(loss):
                return
            try:
                denominator, n_samples = sizes(*args, **kwargs)
            except Exception as error:
                denominator = n_samples = math.nan
                self._say_once(
                    "n_samples",
                    f"the number of samples of a batch is not known, and is nan ({error!r}): "
                    "give record(..., n_samples=...) a function of what "
                    f"{kind_of(module)} is called with that returns a positive number",
                )
            self._losses.add(index, loss, denominator, n_samples)

        return after_forward

    def _add_row(self) -> None:
        if self._is_epoch_full():  # the step before raised when its row had been added
            self._end_epoch()
        groups = self._optimizer.param_groups
        found = groups[0]["params"]
        if len(groups) > 1:
            found = [parameter for group in groups for parameter in group["params"]]
        known = self._in_groups
        if len(found) != len(known) or not all(map(operator.is_, found, known)):
            self._follow(groups)
        elif found and _kind_of(found[0]) != self._kind:  # model.double(), model.to(device)
            self._follow(groups)
        gradients = [parameter.grad for parameter in self._parameters]
        if self._removed:
            pairs = zip(gradients, self._parameters, strict=True)
            gradients = [None if p in self._removed else gradient for gradient, p in pairs]
        if self._is_sharded:
            gradients = processes.own_shards(gradients, self._metadata["shards"])
        skipped: Value = False
        overflow = getattr(self._optimizer, "found_inf", None)  # set by a GradScaler
        if isinstance(overflow, Tensor):
            scale = getattr(self._optimizer, "grad_scale", None)
            gradients = unscaled(gradients, 1.0 if scale is None else scale, overflow)
            skipped = bool(overflow) if overflow.is_cpu else overflow > 0
        seen = self._losses.take(gradients)
        if seen.loss is math.nan:
            self._n_unseen += 1
        elif seen.denominator is math.nan:
            self._n_unsized += 1
        step_sizes: list[Value] = []
        for group in groups:
            step_size = group.get("lr", math.nan)
            step_sizes.append(step_size if type(step_size) is float else _number(step_size))
        local = () if self._local is None else self._local.take(self._parameters)
        self._rows.append(seen, step_sizes, gradients, local, skipped)

    def _step_ends(self, had_closure: bool) -> None:
        if had_closure:
            self._losses.forget()  # what its later evaluations have left
        if self._is_epoch_full():
            self._end_epoch()

    def _is_epoch_full(self) -> bool:
        return self._rows.steps_in_epoch >= self._steps_per_epoch

    def _follow(self, groups: list[dict[str, Any]]) -> None:
        """Notice parameters that were added to the optimizer, taken out of it, or changed."""
        self._in_groups = [parameter for group in groups for parameter in group["params"]]
        self._removed = set(self._parameters) - set(self._in_groups)
        self._parameters = list(dict.fromkeys([*self._parameters, *self._in_groups]))
        self._kind = _kind_of(self._in_groups[0]) if self._in_groups else None
        if self._is_sharded:
            self._metadata["shards"] = processes.shards_of(self._parameters)
        self._rows.lay_out([on_this_process(p) for p in self._parameters])
        self._losses.lay_out(self._parameters)
        if self._local is not None:
            self._local.watch(self._parameters)

    def _end_epoch(self) -> None:
        self._rows.end_epoch()
        self._losses.end_epoch()

    def _say_once(self, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._messages.append(message)

    def _versions_now(self) -> list[int]:
        return [parameter._version for parameter in self._in_groups]

    def _look_for_steps(self) -> None:
        if self._rows.n_steps > self._n_before:
            return
        if self._losses.n_waiting:
            self._say_once(
                "steps",
                f"{self._losses.n_waiting} backward passes were seen, but no step of the "
                "optimizer: give record() the optimizer that the loop steps with, inside any "
                "wrapper, and do not compile its step()",
            )
        elif self._versions_now() != self._versions:
            self._say_once(
                "steps",
                "the parameters have changed, but no step of the optimizer was seen: give record() "
                "the optimizer that the loop steps with, inside any wrapper; of a training step "
                "that is compiled as a whole nothing can be seen: compile the model, or what "
                "computes the loss, and leave backward() and step() outside",
            )

    def _look_for_epochs(self) -> None:
        if self._rows.n_steps > self._n_before and not self._rows.n_epochs:
            if self._steps_per_epoch == math.inf:
                self._say_once(
                    "epochs",
                    "no epoch has ended, and what history has by epoch, its running_loss for one, "
                    "is empty: give record() steps_per_epoch=, or call recorder.end_epoch()",
                )

    def _new_messages(self) -> list[str]:
        self._look_for_steps()
        if self._losses.is_late:
            self._say_once(
                "late",
                "observe() was called after the step whose loss it gave: call it before "
                "optimizer.step(). Rows in which that was seen hold what backward() was called "
                "on; others may hold the loss of the step before",
            )
        if any(self._losses.unsure):
            self._say_once(
                "unsure",
                "between two backward passes all gradients were zero: whether the loop had cleared "
                "them, by grad.data.zero_() for one, cannot be told, and the loss of that step is "
                "nan: clear them by optimizer.zero_grad()",
            )
        messages, self._messages = self._messages, []
        rows = self._rows
        if self._n_unseen:
            messages.append(
                f"{self._n_unseen} steps were made without a backward pass that the recorder has "
                "seen, and their loss is nan: call recorder.observe(loss, n_samples) before each "
                "step; gradients cleared between backward() and step() look the same"
            )
            self._n_unseen = 0
        if self._n_unsized:
            messages.append(
                f"the number of samples of {self._n_unsized} steps is not known and nan, and so is "
                "the running loss: give record() the criterion that the loop calls (not compiled, "
                "or compiled after that), or call recorder.observe(loss, n_samples) in each step"
            )
            self._n_unsized = 0
        if rows.full_at is not None and not self._was_full:
            self._was_full = True
            messages.append(
                f"whole vectors were kept for the first {rows.full_at} steps, more do not fit into "
                "memory=; later steps keep norms and the sum of the present epoch: give record() "
                'more, or gradients="norms" to have no more than that from the first step on'
            )
        return messages

    def _warn(self) -> None:
        if messages := self._new_messages():
            warnings.warn("\n".join(messages), stacklevel=3)

    def _require_attached(self, method: str) -> None:
        if not self._attached:
            raise RuntimeError(f"{method}() needs a recorder that records, this one is closed")


def _sizes_of(criterion: nn.Module) -> Sizes:
    """Return a function of a criterion's arguments: what its mean divides by, and n_samples."""
    denominator, batch_size = denominator_of(criterion), batch_size_of(criterion)
    return lambda *args, **kwargs: (denominator(*args, **kwargs), batch_size(*args, **kwargs))


def _given_sizes(n_samples: Callable[..., float]) -> Sizes:
    """Return the same where the user tells the number of samples.

    Raises:
        ValueError: when it is called, if what the user's function returns is no such number.
    """

    def sizes(*args: Any, **kwargs: Any) -> tuple[Value, Value]:
        given = n_samples(*args, **kwargs)
        if isinstance(given, Tensor) and given.numel() == 1 and not given.is_complex():
            size = _number(given)
        else:
            size = given
        if not isinstance(size, Tensor):
            size = positive_number("n_samples", size)
        return size, size

    return sizes


def _hooked(criterion: nn.Module, hook: Callable[..., None]) -> Any:
    """Hang a hook on a criterion.

    Returns:
        Its handle.

    Raises:
        TypeError: if it takes none.
    """
    try:
        return criterion.register_forward_hook(hook, with_kwargs=True)
    except RuntimeError as error:
        raise TypeError(
            f"{kind_of(criterion)} takes no hooks ({error}): leave it out, and tell the "
            "number of samples by recorder.observe(loss, n_samples)"
        ) from None


def _loss_in(output: Any) -> Tensor | None:
    """Return the loss in what a criterion returns, the first tensor in it that has a gradient."""
    loss = getattr(output, "loss", None)
    parts = [loss] if isinstance(loss, Tensor) else output
    if isinstance(parts, dict):
        parts = list(parts.values())
    if isinstance(parts, (tuple, list)):
        return next((p for p in parts if isinstance(p, Tensor) and p.requires_grad), None)
    return None


def _kind_of(parameter: Tensor) -> tuple[torch.dtype, bool]:
    return parameter.dtype, parameter.is_cpu


def _checked_size(
    loss: float | Tensor, n_samples: float | Tensor, name: str = "n_samples"
) -> Value:
    """Return a number of samples as it is recorded, or raise unless it and the loss are numbers.

    Raises:
        TypeError: if one of them is neither a number nor a tensor.
        ValueError: if one of them has several elements, or n_samples is not positive.
    """
    if isinstance(loss, Tensor):
        if loss.numel() != 1 or loss.is_complex():
            raise ValueError(
                "loss must have one real element, the mean over the batch, got shape "
                f"{tuple(loss.shape)} of {loss.dtype}"
            )
    elif not isinstance(loss, Real):
        raise TypeError(f"loss must be a number or a tensor, got {kind_of(loss)}")
    if isinstance(n_samples, Tensor):
        if n_samples.numel() != 1 or n_samples.is_complex():
            raise ValueError(f"{name} must be one real number, got {n_samples}")
        n_samples = _number(n_samples)
    if not isinstance(n_samples, Tensor):
        n_samples = positive_number(name, n_samples)
    return n_samples


def _number(value: Any) -> Value:
    """Return a number, or a copy of a tensor that is on a device; nan for what is no number."""
    if isinstance(value, Tensor):
        scalar = value.detach().reshape(())
        return float(scalar.item()) if value.is_cpu else scalar.clone()
    return float(value) if isinstance(value, Real) else math.nan


def _is_transformed(tensor: Tensor) -> bool:
    """Return whether a tensor is inside torch.func's transformations, and has no value yet."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _check_kinds(
    optimizer: object,
    criteria: tuple[object, ...],
    n_samples: object,
    gradients: object,
    weights: object,
    history: object,
) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {kind_of(optimizer)}")
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise TypeError(
            f"optimizer must take hooks, and {kind_of(optimizer)} does not, having left out "
            "super().__init__(): give the optimizer it wraps"
        )
    for criterion in criteria:
        if not isinstance(criterion, nn.Module):
            raise TypeError(
                "each criterion must be a module such as torch.nn.MSELoss(), got "
                f"{kind_of(criterion)}: give none for a loss that is a function; it is "
                "recorded all the same, and recorder.observe(loss, n_samples) in the loop tells "
                "the number of samples"
            )
    if n_samples is not None and not callable(n_samples):
        raise TypeError(
            "n_samples must be a function of what the criterion is called with, such as "
            f"lambda predictions, targets: len(targets), got {n_samples!r}"
        )
    if gradients not in ("auto", "norms", "none"):
        raise ValueError(f'gradients must be "auto", "norms" or "none", got {gradients!r}')
    if not isinstance(weights, bool):
        raise TypeError(f"weights must be True or False, got {weights!r}")
    if history is not None and not isinstance(history, History):
        raise TypeError(f"history must be a History, got {kind_of(history)}")
