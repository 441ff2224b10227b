"""Attach to a training loop: every step's loss and gradient, and nothing about the loop changes."""

import math
import operator
import platform
import sys
import warnings
from collections.abc import Callable, Iterable
from numbers import Real
from types import FrameType, TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sgd_analysis import _distributed, _gradients
from sgd_analysis._columns import Value
from sgd_analysis._denominators import denominator_of
from sgd_analysis._hooks import InertInCopies, is_running
from sgd_analysis._losses import SeenLosses
from sgd_analysis._rows import Rows
from sgd_analysis._validation import integer_between, positive_number
from sgd_analysis.history import History


def record(
    optimizer: torch.optim.Optimizer,
    *criteria: nn.Module,
    steps_per_epoch: int | None = None,
    n_samples: Callable[..., float] | None = None,
    gradients: Literal["auto", "norms", "none"] = "auto",
    memory: int = 64 << 20,
    weights: bool = False,
    history: History | None = None,
) -> "Recorder":
    """Record every step of a training loop from now on, without changing the loop or its numbers.

    Use it in a `with` statement around the loop, or call `close()` on what it returns.

    Args:
        optimizer: the loop's optimizer, of any class from `torch.optim` or derived from one.
        criteria: the loss modules that the loop calls; their losses are added up. For a loss
            that is a function, give none and call `observe` in the loop.
        steps_per_epoch: the number of optimizer steps after which an epoch ends; with a loader
            that accumulates no gradients, `len(loader)`. None: the loop calls `end_epoch()`.
        n_samples: how many samples a batch counts for, a function of what the criterion is
            called with. By default, the denominator of torch's own losses (the number of
            targets not ignored, the sum of their class weights, or the number of elements), and
            for other criteria the length of their first argument.
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
        gradients=gradients,
        memory=memory,
        weights=weights,
        history=history,
    )


class Recorder:
    """What `record` returns: attached to a loop until `close()` or the end of its `with`.

    One row is recorded at each `optimizer.step()`, just before its update. A loss counts for the
    step that uses its gradient: one computed without gradients, or whose gradients were cleared
    before the step, does not. Several backward passes of one criterion in a step are averaged,
    weighted by their sizes; several criteria are added up. Of a step with a closure, the
    closure's first evaluation counts.

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
        gradients: str,
        memory: int,
        weights: bool,
        history: History | None,
    ) -> None:
        _check_kinds(optimizer, criteria, n_samples, gradients, history)
        if steps_per_epoch is not None:
            steps_per_epoch = integer_between("steps_per_epoch", steps_per_epoch, 1)
        self._optimizer = optimizer
        self._steps_per_epoch = steps_per_epoch
        self._parameters = _gradients.parameters_of(optimizer.param_groups)
        self._metadata = _metadata(optimizer, criteria)
        _check_continues(history, self._metadata, self._parameters)
        sums = [getattr(criterion, "reduction", "mean") == "sum" for criterion in criteria]
        self._losses = SeenLosses(sums, self._guarded)
        self._local = _distributed.local_gradients()
        self._rows = Rows(
            gradients,
            integer_between("memory", memory, 0),
            weights=weights,
            local=self._local is not None,
            takes_sums=self._metadata["reduction"] == "sum",
            history=history,
        )
        self._in_groups: list[Tensor] = []
        self._attached = self._works = True
        self._messages: list[str] = []  # that no warning has told of yet
        self._said: list[str] = []
        self._was_full = self._rows.full_at is not None
        self._n_unseen = 0  # the steps without a loss that no warning has told of yet
        self._step: FrameType | None = None  # the frame of the step being made, if one is
        self._awaits_closure = False
        self._handles: list[Any] = []
        try:
            self._follow(optimizer.param_groups)
            self._attach(dict.fromkeys(criteria), n_samples)
        except BaseException:
            self._detach()
            raise

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._detach()
        if error is None:
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

    def observe(self, loss: float | Tensor, n_samples: float) -> None:
        """Give the loss of the step that follows, in place of what the criteria say.

        Call it when the loss has been computed, before its backward pass. Several calls before
        one step are averaged, weighted by their sizes.

        Args:
            loss: the mean over the batch, as a number or a tensor of one element.
            n_samples: the number of samples it is the mean of.

        Raises:
            RuntimeError: if the recorder is closed.
            TypeError: if the loss is neither a number nor a tensor, or n_samples no number.
            ValueError: if the loss has several elements, or n_samples is not positive.
        """
        self._require_attached("observe")
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                raise ValueError(
                    "loss must have one element, the mean over the batch, got shape "
                    f"{tuple(loss.shape)}"
                )
        elif not isinstance(loss, Real):
            raise TypeError(f"loss must be a number or a tensor, got {type(loss).__name__}")
        count = (
            n_samples if isinstance(n_samples, Tensor) else positive_number("n_samples", n_samples)
        )
        self._losses.observe(loss, count)

    def end_epoch(self) -> None:
        """End the epoch after the steps made so far; without any, do nothing.

        With `steps_per_epoch` it ends an epoch early, for instance after a `break`.

        Raises:
            RuntimeError: if the recorder is closed.
        """
        self._require_attached("end_epoch")
        if self._rows.steps_in_epoch:
            self._rows.end_epoch()
        self._warn()

    def close(self) -> None:
        """Take every hook off. What was recorded stays; closing twice does no harm."""
        self._detach()
        self._warn()

    def gather(self) -> History | None:
        """Put the histories of several processes together; every one of them has to call this.

        Returns:
            On rank 0 the global history: its losses are size-weighted means over the ranks (sums
            if the criterion takes sums), its `n_samples` sums over them, its gradients the
            averaged ones; `ranks` holds the history of each rank with its local gradients. On
            the other ranks None. With a single process, `history`.

        Raises:
            RuntimeError: if the ranks have recorded different numbers of steps or epochs.
        """
        return _distributed.gather(self.history)

    def _attach(
        self, criteria: Iterable[nn.Module], n_samples: Callable[..., float] | None
    ) -> None:
        for index, criterion in enumerate(criteria):
            hook = InertInCopies(self._forward_hook(index, n_samples or denominator_of(criterion)))
            self._handles.append(criterion.register_forward_hook(hook, with_kwargs=True))
        before, after = InertInCopies(self._before_step), InertInCopies(self._after_step)
        self._handles.append(self._optimizer.register_step_pre_hook(before))
        self._handles.append(self._optimizer.register_step_post_hook(after))

    def _detach(self) -> None:
        self._attached = False
        self._step = None
        for handle in self._handles:
            handle.remove()
        if self._local is not None:
            self._local.close()
        self._losses.forget()

    # The hooks. Whatever goes wrong in one must not reach the user's loop.

    def _forward_hook(self, index: int, denominator: Callable[..., Any]) -> Callable[..., None]:
        def after_forward(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            if not self._works or torch.compiler.is_compiling():
                return
            try:
                if not isinstance(output, Tensor):
                    self._say_once(
                        f"{type(module).__name__} returned {type(output).__name__} instead of a "
                        "tensor: call recorder.observe(loss, n_samples) in the loop"
                    )
                elif output.requires_grad:
                    try:
                        count = denominator(*args, **kwargs)
                        if type(count) is not float:
                            count = _number(count)
                    except Exception as error:
                        count = math.nan
                        self._say_once(
                            "the number of samples of a batch is not known, and is nan "
                            f"({error!r}): "
                            "give record(..., n_samples=...) a function of what "
                            f"{type(module).__name__} is called with"
                        )
                    self._losses.add(index, output, count)
            except Exception as error:
                self._give_up(error)

        return after_forward

    def _guarded(self, hook: Callable[..., None]) -> Callable[..., None]:
        def guarded(*args: Any) -> None:
            if self._attached and self._works:
                try:
                    hook(*args)
                except Exception as error:
                    self._give_up(error)

        return guarded

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self._works or torch.compiler.is_compiling():
            return None
        try:
            # A subclass that calls super().step() comes here twice; a step that raised never got
            # to `_after_step`. Only the stack tells one from the other.
            if self._step is not None:
                if is_running(self._step):
                    return None
                self._end_epoch_if_full()
            self._step = sys._getframe(1)
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            if not callable(closure):
                self._add_row()
                return None
            self._awaits_closure = True
            closure = self._then_add_row(closure)
            if len(args) > 1:
                return (args[0], closure, *args[2:]), kwargs
            return args, {**kwargs, "closure": closure}
        except Exception as error:
            self._give_up(error)
            return None

    def _then_add_row(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            loss = closure(*args, **kwargs)
            if self._awaits_closure:
                self._awaits_closure = False
                try:
                    self._add_row()
                except Exception as error:
                    self._give_up(error)
            return loss

        return evaluate

    def _after_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not self._works or self._step is not sys._getframe(1):
            return
        try:
            self._step = None
            if self._awaits_closure:  # the optimizer has not called it
                self._awaits_closure = False
                self._add_row()
            if len(args) > 1 or kwargs:
                self._losses.forget()  # what a closure's later evaluations have left
            self._end_epoch_if_full()
        except Exception as error:
            self._give_up(error)

    def _add_row(self) -> None:
        groups = self._optimizer.param_groups
        found = [parameter for group in groups for parameter in group["params"]]
        known = self._in_groups
        if len(found) != len(known) or not all(map(operator.is_, found, known)):
            self._follow(groups)
        gradients = [parameter.grad for parameter in self._parameters]
        skipped: Value = False
        overflow = getattr(self._optimizer, "found_inf", None)  # set by a GradScaler
        if isinstance(overflow, Tensor):
            scale = getattr(self._optimizer, "grad_scale", None)
            gradients = _gradients.unscaled(gradients, 1.0 if scale is None else scale, overflow)
            skipped = bool(overflow) if overflow.is_cpu else overflow > 0
        seen = self._losses.take(any(gradient is not None for gradient in gradients))
        if seen is None:
            self._n_unseen += 1
            seen = math.nan, math.nan
        step_sizes = [group.get("lr", math.nan) for group in groups]
        if any(type(step_size) is not float for step_size in step_sizes):
            step_sizes = [_number(step_size) for step_size in step_sizes]
        local = () if self._local is None else self._local.take(self._parameters)
        self._rows.append(*seen, step_sizes, gradients, local, skipped)

    def _follow(self, groups: list[dict[str, Any]]) -> None:
        """Notice parameters that were added to the optimizer, or taken out of it."""
        self._in_groups = [parameter for group in groups for parameter in group["params"]]
        self._parameters = _gradients.parameters_of(groups)
        self._rows.lay_out(self._parameters)
        self._losses.lay_out(self._parameters)
        if self._local is not None:
            self._local.watch(self._parameters)

    def _end_epoch_if_full(self) -> None:
        if self._steps_per_epoch is not None and self._rows.steps_in_epoch >= self._steps_per_epoch:
            self._rows.end_epoch()

    def _give_up(self, error: Exception) -> None:
        self._works = False  # the hooks stay until close(): one may be running
        self._say_once(
            f"recording stopped after step {self._rows.n_steps}, what was recorded until then is "
            f"kept ({type(error).__name__}: {error})"
        )

    # What the hooks have to say.

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.append(message)
            self._messages.append(message)

    def _new_messages(self) -> list[str]:
        messages, self._messages = self._messages, []
        rows = self._rows
        if self._n_unseen:
            messages.append(
                f"{self._n_unseen} steps were made without a loss that the recorder has seen, and "
                "hold nan: give record() the criterion the loop calls (not compiled, or compiled "
                "after that), or call recorder.observe(loss, n_samples) before each backward pass; "
                "gradients cleared between backward() and step() look the same"
            )
            self._n_unseen = 0
        if rows.full_at is not None and not self._was_full:
            self._was_full = True
            messages.append(
                f"the vectors of {rows.full_at} steps fill the memory given to them; later steps "
                "keep norms and the sum of the present epoch: give record() more memory=, or "
                'gradients="norms" to have no more than that from the first step on'
            )
        return messages

    def _warn(self) -> None:
        if messages := self._new_messages():
            warnings.warn("\n".join(messages), stacklevel=3)

    def _require_attached(self, method: str) -> None:
        if not self._attached:
            raise RuntimeError(f"{method}() needs a recorder that records, this one is closed")


def _number(value: Any) -> Value:
    """Return a number, or a copy of a tensor that is on a device."""
    if isinstance(value, Tensor):
        return value.item() if value.is_cpu else value.detach().clone()
    return float(value)


def _metadata(optimizer: torch.optim.Optimizer, criteria: tuple[nn.Module, ...]) -> dict[str, Any]:
    """Return what the run is made with, in terms that JSON knows."""
    import sgd_analysis  # for its version; it imports this module

    reductions = {getattr(criterion, "reduction", "mean") for criterion in criteria} or {"mean"}
    plain = (bool, int, float, str, type(None))
    return {
        "reduction": reductions.pop() if len(reductions) == 1 else "mixed",
        "criteria": [type(criterion).__name__ for criterion in criteria],
        "optimizer": type(optimizer).__name__,
        "parameter_groups": [
            {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in group.items()
                if name != "params" and isinstance(value, (*plain, tuple))
            }
            for group in optimizer.param_groups
        ],
        "versions": {
            "sgd_analysis": sgd_analysis.__version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _check_continues(
    history: History | None, metadata: dict[str, Any], parameters: list[Tensor]
) -> None:
    if history is None or not history.n_steps:
        return
    before = history.metadata.get("reduction", "mean")
    if (before == "sum") != (metadata["reduction"] == "sum"):
        raise ValueError(
            f"history must continue with the reduction it began with, {before!r}, got criteria "
            f"with {metadata['reduction']!r}"
        )
    n_parameters = sum(parameter.numel() for parameter in parameters)
    for name in ("gradients", "local_gradients"):
        vectors = getattr(history, name)
        if vectors is not None and vectors.kept.shape[1] > n_parameters:
            raise ValueError(
                f"history must have at most the optimizer's {n_parameters} parameters, got "
                f"{vectors.kept.shape[1]}: is it another model's?"
            )


def _check_kinds(
    optimizer: object,
    criteria: tuple[object, ...],
    n_samples: object,
    gradients: object,
    history: object,
) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    for criterion in criteria:
        if not isinstance(criterion, nn.Module):
            raise TypeError(
                "each criterion must be a module such as torch.nn.MSELoss(), got "
                f"{type(criterion).__name__}: give none for a loss that is a function, and call "
                "recorder.observe(loss, n_samples) in the loop"
            )
    if n_samples is not None and not callable(n_samples):
        raise TypeError(
            "n_samples must be a function of what the criterion is called with, such as "
            f"lambda predictions, targets: len(targets), got {n_samples!r}"
        )
    if gradients not in {"auto", "norms", "none"}:
        raise ValueError(f'gradients must be "auto", "norms" or "none", got {gradients!r}')
    if history is not None and not isinstance(history, History):
        raise TypeError(f"history must be a History, got {type(history).__name__}")
