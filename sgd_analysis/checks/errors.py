"""Why a reader's function cannot be run, in words: its holes, and the errors that it raises."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from sgd_analysis.checks.messages import NotYet, Said

# What a message of Python or PyTorch contains, and the key of what would help.
_TOLD = {
    "ellipsis": "hole",
    "leaf Variable that requires grad": "no_grad",
    "does not require grad": "no_way_back",
}
_HINTS = {
    "implicitly created only for scalar outputs": "not_scalar",
    "params argument given to the optimizer": "not_a_list",
    "can't optimize a non-leaf Tensor": "not_a_list",
    "'MSELoss'": "criterion",
    "builtin_function_or_method": "not_called",
    "has no attribute 'backward'": "number",
    "Can't call numpy() on Tensor": "number",
    "mean() got an unexpected keyword argument 'axis'": "number",  # numpy.mean of a tensor
    "out of bounds for dimension 0": "out_of_bounds",
    "bitwise_xor": "power",
}


def require_no_hole(function: Callable[..., Any]) -> None:
    """Refuse a function that has three dots where its reader should have written something.

    Those of an index, as in x[..., 0], are no hole. Where the source is not known, nothing is
    refused.

    Args:
        function: a reader's.

    Raises:
        NotYet: if there is a hole, with the line of the first one.
    """
    lines, start, tree = _source(function)
    line = min(_holes(tree), default=None)
    if line is not None:
        code = lines[line - 1].strip()
        raise NotYet("hole", where=Said("where_code", line=start + line - 1, code=code))


def ignores(function: Callable[..., Any], place: int) -> bool:
    """Return whether a function never looks at one of its arguments, as far as can be seen."""
    _, _, tree = _source(function)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    arguments = [*inspect.signature(function).parameters]
    return bool(names) and place < len(arguments) and arguments[place] not in names


def _source(function: Callable[..., Any]) -> tuple[list[str], int, ast.AST]:
    """Return a function's lines, the number of the first, and what they are; or nothing."""
    try:
        lines, start = inspect.getsourcelines(function)
        return lines, start, ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return [], 0, ast.Module([], [])


def _holes(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of three dots outside an index."""
    if isinstance(tree, ast.Constant) and tree.value is ...:
        yield tree.lineno
    inside = [tree.value] if isinstance(tree, ast.Subscript) else ast.iter_child_nodes(tree)
    for node in inside:
        yield from _holes(node)


def told_error(error: BaseException, function: Callable[..., Any], w: Tensor | None = None) -> Said:
    """Return what an error means for whoever wrote a function.

    Args:
        error: what the function has raised.
        function: it.
        w: the weights that it was given, if any.

    Returns:
        A sentence, with the line.
    """
    message, where = str(error), _where(error, function)
    key = _key(message, w, _own_weights(error, function))
    if key:
        return Said(key, where=where)
    told = Said("error", kind=type(error).__name__, message=message, where=where)
    hint = _hint(error)
    return Said("hinted", hint=Said(hint), told=told) if hint else told


def _own_weights(error: BaseException, function: Callable[..., Any]) -> Tensor | None:
    """Return what a loop calls its weights where it raises an error, if that can be seen."""
    names = [*inspect.signature(function).parameters][1:2]
    code = getattr(function, "__code__", None)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            own = [frame.f_locals.get(name) for name in names]
            return next((w for w in own if isinstance(w, Tensor)), None)
    return None


def _key(message: str, w: Tensor | None, own: Tensor | None) -> str | None:
    """Return the key of what a message means, where more can be said than the message does.

    Args:
        message: an error's.
        w: the weights that a loop was given, if any.
        own: what it has in their place, if that is known.

    Returns:
        The key, if there is one.
    """
    nothing = "NoneType" in message and "'backward'" not in message
    if w is not None and own is not None and own is not w:
        if nothing or "does not require grad" in message:
            return "replaced"
    for part, key in _TOLD.items():
        if part in message:
            return key
    if w is None or not nothing or (w.grad is not None and w.any()):
        return None
    if own is None:
        return "no_gradient"
    if w.grad is not None:
        return "returns_no_gradient"
    return "zero_first" if "'zero_'" in message else "before_backward"


def _hint(error: BaseException) -> str | None:
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    if "legacy_get_string" in frames:  # what PyTorch makes of data given to a loss's constructor
        return "criterion"
    return next((hint for part, hint in _HINTS.items() if part in str(error)), None)


def _where(error: BaseException, function: Callable[..., Any]) -> Said | str:
    """Return the last line of the function's own file that the error came through, if any."""
    path = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == path), None)
    if not line:
        return ""
    code = linecache.getline(str(path), line).strip()
    return Said("where_code", line=line, code=code) if code else Said("where", line=line)
