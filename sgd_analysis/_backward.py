"""Standing in for torch's backward pass while someone listens: what it is called on, and when.

No hook of torch's tells what `backward()` was called on. All its ways, `Tensor.backward`,
`torch.autograd.backward` and what frameworks make of them, end in one function of torch's, in
whose place stands one of ours while a recorder is attached. It passes everything on as it comes.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

_LATEST = 64  # the losses scaled last, of which each thread knows the scale


class Listener(Protocol):
    """What is told of each backward pass that accumulates gradients."""

    def begins(self, roots: Sequence[Any], seeds: Sequence[Tensor | None]) -> None:
        """Take note of a pass from these roots, with these gradients of the roots to begin with."""

    def ends(self) -> None:
        """Take note of its end; never called for a pass that raises."""


_listeners: tuple[Listener, ...] = ()  # replaced as a whole: other threads may be going through it
_originals: list[tuple[Any, str, Any, Any]] = []
_lock = threading.Lock()
_of_thread = threading.local()


def listen(listener: Listener) -> None:
    """Tell a listener of every backward pass from now on, in whichever thread."""
    global _listeners
    with _lock:
        if not _listeners:
            _stand_in()
        _listeners = (*_listeners, listener)


def forget(listener: Listener) -> None:
    """Tell it no more; the last one that leaves puts torch's own functions back."""
    global _listeners
    with _lock:
        remaining = tuple(other for other in _listeners if other is not listener)
        if _listeners and not remaining:
            _put_back()
        _listeners = remaining


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


def _stand_in() -> None:
    run = torch.autograd._engine_run_backward  # type: ignore[attr-defined]
    _replace(torch.autograd, "_engine_run_backward", _telling(run))
    scalers: list[Any] = [torch.amp.GradScaler]
    for scaler in scalers:  # and what is derived from it
        scalers += scaler.__subclasses__()
        if "scale" in vars(scaler):
            _replace(scaler, "scale", _remembering(scaler.scale))


def _replace(owner: Any, name: str, new: Any) -> None:
    _originals.append((owner, name, getattr(owner, name), new))
    setattr(owner, name, new)


def _put_back() -> None:
    for owner, name, original, ours in _originals:
        if getattr(owner, name) is ours:  # or else someone stands in for ours, and calls it
            setattr(owner, name, original)
    _originals.clear()


def _telling(run: Callable[..., Any]) -> Callable[..., Any]:
    def run_backward(roots: Sequence[Any], seeds: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        listeners = _listeners
        if (
            not listeners
            or not kwargs.get("accumulate_grad")
            or torch.compiler.is_dynamo_compiling()
            or torch._C._current_graph_task_id() != -1  # a checkpoint's, inside of another pass
        ):
            return run(roots, seeds, *args, **kwargs)
        for listener in listeners:
            listener.begins(roots, seeds)
        result = run(roots, seeds, *args, **kwargs)
        for listener in listeners:
            listener.ends()
        return result

    return run_backward


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
