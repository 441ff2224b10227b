"""Standing in for torch's backward pass while someone listens: what it is called on, and when.

No hook of torch's tells what `backward()` was called on. All its ways, `Tensor.backward`,
`torch.autograd.backward` and what frameworks make of them, end in one function of torch's, in
whose place stands one of ours while a recorder is attached. It passes everything on as it comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._dynamo.eval_frame import set_eval_frame

from sgd_analysis.recording.standing_in import Place, StandIn

_LATEST = 64  # the losses scaled last, of which each thread knows the scale


class Listener:
    """Who is told of each backward pass that accumulates gradients, in whichever thread.

    Args:
        begins: called with the roots of a pass, and their gradients to begin with.
        ends: called at its end; never for a pass that raises.
    """

    def __init__(
        self,
        begins: Callable[[Sequence[Any], Sequence[Tensor | None]], None],
        ends: Callable[[], None],
    ) -> None:
        self.begins, self.ends = begins, ends

    def listen(self) -> None:
        """Be told of every pass from now on."""
        _listeners.add(self)

    def stop(self) -> None:
        """Be told no more; the last one that leaves puts torch's own functions back."""
        _listeners.remove(self)


def _places() -> Iterator[Place]:
    run = torch.autograd._engine_run_backward  # type: ignore[attr-defined]
    if not getattr(run, "is_ours", False):  # left behind, as someone stood in for it meanwhile
        yield Place(torch.autograd, "_engine_run_backward", _telling(run))
    scalers: list[Any] = [torch.amp.GradScaler]
    for scaler in scalers:  # and what is derived from it
        scalers += scaler.__subclasses__()
        if "scale" in vars(scaler):
            yield Place(scaler, "scale", _remembering(scaler.scale))


_listeners: StandIn[Listener] = StandIn(_places)
_of_thread = threading.local()


class Scaled(NamedTuple):
    """What a GradScaler has scaled, before that, and its factor then."""

    loss: Tensor
    scale: Tensor


def scaled() -> dict[int, Scaled]:
    """Return what was scaled last in this thread, by the `node` of the result."""
    found: dict[int, Scaled] | None = getattr(_of_thread, "scaled", None)
    if found is None:
        found = _of_thread.scaled = {}
    return found


def before_scaling(loss: Tensor) -> Tensor | None:
    """Return a scaled loss as it was before; scaled, it may be too large for its dtype."""
    number = node(loss)
    found = None if number is None else scaled().get(number)
    return None if found is None else found.loss


def node(tensor: Tensor) -> int | None:
    """Return the number of the node that made a tensor, unique in its thread; None for a leaf.

    Unlike the node itself, it keeps no graph alive.
    """
    made_by: Any = tensor.grad_fn
    return None if made_by is None else made_by._sequence_nr()


def reached(roots: Iterable[Any], wanted: set[int]) -> set[int]:
    """Return those of the wanted nodes that a backward pass from the roots comes to first.

    A node's number is larger than those of all nodes below it, so that none has to be looked at
    that is below the last one wanted: not the graph of the model, most often.
    """
    found: set[int] = set()
    lowest = min(wanted)
    seen: set[Any] = set()
    stack = [root.grad_fn if isinstance(root, Tensor) else root.node for root in roots]
    while stack and len(found) < len(wanted):
        here = stack.pop()
        if here is None or here in seen:
            continue
        seen.add(here)
        number = here._sequence_nr()
        if number in wanted:
            found.add(number)
        elif number > lowest:
            stack += [below for below, _ in here.next_functions]
    return found


def reaches(roots: Iterable[Any], parameters: Iterable[Tensor]) -> bool:
    """Return whether a backward pass from the roots comes to one of these parameters.

    As far as the graph tells: not where they are sharded, and others stand in for them.
    """
    wanted, seen = {id(parameter) for parameter in parameters}, set()
    stack = [root.grad_fn if isinstance(root, Tensor) else root.node for root in roots]
    while stack:
        here = stack.pop()
        if here is None or here in seen:
            continue
        seen.add(here)
        if id(getattr(here, "variable", None)) in wanted:
            return True
        stack += [below for below, _ in here.next_functions]
    return False


def _telling(run: Callable[..., Any]) -> Callable[..., Any]:
    is_compiling, task = torch.compiler.is_dynamo_compiling, torch._C._current_graph_task_id

    def run_backward(roots: Sequence[Any], seeds: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if (
            not _listeners
            or not kwargs.get("accumulate_grad")
            or is_compiling()
            or task() != -1  # a checkpoint's, inside of another pass
            or getattr(_of_thread, "told", None) is roots  # by one of ours that someone has wrapped
        ):
            return run(roots, seeds, *args, **kwargs)
        told = list(_listeners)
        try:
            _of_thread.told = roots
            compiler = set_eval_frame(None)  # nothing that it calls is compiled,
            try:
                for listener in told:
                    listener.begins(roots, seeds)
            finally:
                set_eval_frame(compiler)
            result = run(roots, seeds, *args, **kwargs)
        finally:
            _of_thread.told = None
        compiler = set_eval_frame(None)  # whatever the code around it is
        try:
            for listener in told:
                listener.ends()
        finally:
            set_eval_frame(compiler)
        return result

    # Compiled code may call it, after a break of its graph: it is not to be compiled with it.
    untouched: Any = torch.compiler.disable(run_backward, recursive=False)
    untouched.is_ours = True
    return untouched  # type: ignore[no-any-return]


def _remembering(scale: Callable[..., Any]) -> Callable[..., Any]:
    def scale_and_remember(self: Any, outputs: Any) -> Any:
        result = scale(self, outputs)
        if self.is_enabled() and not torch.compiler.is_dynamo_compiling():
            known = scaled()
            for before, after in _pairs(outputs, result):
                if (number := node(after)) is not None:
                    known[number] = Scaled(before.detach(), self._scale)
            while len(known) > _LATEST:
                del known[next(iter(known))]
        return result

    return scale_and_remember


def _pairs(before: Any, after: Any) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(before, Tensor):
        yield before, after
    elif isinstance(before, (list, tuple)):
        for pair in zip(before, after, strict=True):
            yield from _pairs(*pair)
