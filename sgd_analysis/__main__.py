"""`python -m sgd_analysis script.py`: run a script, and record every optimizer in it."""

from __future__ import annotations

import argparse
import atexit
import builtins
import importlib.util
import io
import logging
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import NamedTuple

from sgd_analysis.history.history import History
from sgd_analysis.recording.everywhere import Everywhere
from sgd_analysis.recording.report import report

_USAGE = """python -m sgd_analysis [options] script.py [arguments of the script]
       python -m sgd_analysis [options] -m module [arguments of the module]"""
_DESCRIPTION = """
Run a script as python does, and record every optimizer in it: each step's loss, step size and
gradient norm. The script's numbers, output, signals and exit status stay as they are. At its end,
what each optimizer saw is written to run-1.npz, run-2.npz, ..., always the next free number, and a
table of it to stderr; after an error or Ctrl-C, too, but not if the process is killed (SIGTERM,
SIGKILL) or left by os._exit. sgd_analysis.History.load reads such a file. In the table, "step norm"
is the mean norm of an epoch's gradients, and "path norm" the norm of their mean.
"""
_EPILOG = """
Processes that the script starts are not recorded. Of those that torchrun starts, by
"torchrun -m sgd_analysis script.py", each writes its own files, run-rank0-1.npz and so on. PyTorch
is imported before the script is: variables that it reads then, such as OMP_NUM_THREADS, are to be
set outside of the script.
"""
_WIDTH = 80
_N_PATHS = 4  # that are shown
_READ_ON_IMPORT = (
    "ATEN_CPU_CAPABILITY",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_NUM_THREADS",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)


class Before(NamedTuple):
    """How things stand before the script runs, which may change them."""

    process: int
    folder: str
    environment: Sequence[str | None]


def main(arguments: Sequence[str]) -> None:
    """Run what the arguments name; at the end of the process, save and show what was recorded."""
    parser = _parser()
    options = parser.parse_args(arguments)
    name, *rest = options.module or options.script or [None]
    if name is None:
        parser.error("give a script to run")
    recorded = ("gradients", "steps_per_epoch", "n_samples")
    everywhere = Everywhere({option: getattr(options, option) for option in recorded})
    try:
        prefix = _prefix(options.out)
    except ValueError as error:
        parser.error(str(error))
    module, compiled = _module(name) if options.module else _script(name)
    sys.argv = [str(module.__file__) if options.module else name, *rest]
    environment = [os.environ.get(variable) for variable in _READ_ON_IMPORT]
    before = Before(os.getpid(), os.getcwd(), environment)
    _log_to_stderr()
    atexit.register(_finish, everywhere, prefix, before)
    everywhere.start()
    _run(module, compiled)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sgd_analysis",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("script", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    add("-m", dest="module", nargs=argparse.REMAINDER, help="run a module instead of a script")
    add(
        "--out",
        default="run",
        metavar="PREFIX",
        help="write PREFIX-1.npz, ..., or into a folder, run-1.npz, ... (default: run)",
    )
    add(
        "--gradients",
        choices=("norms", "auto", "none"),
        default="norms",
        help="of each step keep the norm of its gradient, the whole of it while 64 MiB last, or "
        "nothing (default: norms)",
    )
    add(
        "--steps-per-epoch",
        type=_positive(int),
        metavar="N",
        help="the number of steps after which an epoch ends",
    )
    add(
        "--n-samples",
        type=_positive(float),
        metavar="N",
        help="the number of samples in each backward pass",
    )
    return parser


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"must be positive, got {text}")
        return value

    return number


def _prefix(out: str) -> str:
    """Return what the names of the files begin with.

    Raises:
        ValueError: if they would be in no folder.
    """
    prefix = os.path.join(os.path.abspath(out), "run") if os.path.isdir(out) else out
    folder = os.path.dirname(os.path.abspath(prefix))
    if not os.path.isdir(folder) or prefix.endswith(os.sep):
        raise ValueError(f"--out must begin in a folder that exists, got {out}: make it first")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        prefix += f"-rank{os.environ.get('RANK', '')}"
    return os.path.abspath(prefix)


def _script(name: str) -> tuple[ModuleType, Callable[[], CodeType | None]]:
    """Return the module for a script to run in, as python makes it, and what compiles it."""
    path = os.path.abspath(name)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        problem = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.executable}: can't open file {path!r}: {problem}", file=sys.stderr)
        sys.exit(2)
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    module = _main_module()
    module.__file__ = path
    module.__loader__ = SourceFileLoader("__main__", path)
    return module, lambda: compile(source, path, "exec", dont_inherit=True)


def _module(name: str) -> tuple[ModuleType, Callable[[], CodeType | None]]:
    """Return the same for a module, or for the program of a package."""
    try:
        spec = importlib.util.find_spec(name)
    except ImportError as error:
        problem = f"{type(error).__name__}: {error}"
        sys.exit(
            f"{sys.executable}: Error while finding module specification for {name!r} ({problem})"
        )
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or not isinstance(loader := spec.loader, importlib.abc.InspectLoader):
        sys.exit(f"{sys.executable}: No module named {name}")
    module = _main_module()
    module.__spec__, module.__package__ = spec, spec.parent
    module.__file__, module.__loader__ = spec.origin, loader
    module.__cached__ = spec.cached  # type: ignore[attr-defined]
    return module, lambda: loader.get_code(spec.name)


def _main_module() -> ModuleType:
    module = ModuleType("__main__")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    module.__cached__ = None  # type: ignore[attr-defined]
    module.__package__ = None
    return module


def _log_to_stderr() -> None:
    """Keep what is logged at an epoch's end out of where the script sends its own logs."""
    logger = logging.getLogger("sgd_analysis")
    logger.addHandler(handler := logging.StreamHandler(sys.__stderr__))
    handler.setFormatter(logging.Formatter("sgd_analysis: %(message)s"))
    logger.propagate = False


def _run(module: ModuleType, compiled: Callable[[], CodeType | None]) -> None:
    sys.modules["__main__"] = module
    try:
        code = compiled()
        assert code is not None
        exec(code, vars(module))
    except SystemExit:
        raise
    except BaseException:
        _leave_out_what_is_above(module)
        raise


def _leave_out_what_is_above(module: ModuleType) -> None:
    """Have the traceback that python is about to print begin in the script."""
    print_error = sys.excepthook

    def print_its_part(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        while traceback is not None and traceback.tb_frame.f_globals is not vars(module):
            traceback = traceback.tb_next
        print_error(kind, error.with_traceback(traceback), traceback)

    sys.excepthook = print_its_part


def _finish(everywhere: Everywhere, prefix: str, before: Before) -> None:
    """Save what was recorded, and show it, unless this is a fork of the process it belongs to."""
    if os.getpid() != before.process:
        return
    messages = everywhere.stop()
    histories = [recorder.history for recorder in everywhere.recorders]
    several = "s" * (len(histories) > 1)
    lines = [f"sgd_analysis has recorded {len(histories) or 'no'} optimizer{several}"]
    if not histories:
        lines[0] += ": none has made a step"
    else:
        lines.append(report(histories))
        lines.append(_saved(histories, prefix, before.folder))
    for message in [*_too_late(before.environment), *messages]:
        lines.append(textwrap.fill(message, _WIDTH, subsequent_indent="  "))
    print("\n".join(lines), file=sys.__stderr__)


def _too_late(before: Sequence[str | None]) -> Iterator[str]:
    for name, value in zip(_READ_ON_IMPORT, before, strict=True):
        if os.environ.get(name) != value:
            yield (
                f"the script has set {name}, which PyTorch reads when it is imported, and it was "
                "before: the numbers may be others than without this command; set it outside"
            )


def _saved(histories: Sequence[History], prefix: str, folder: str) -> str:
    """Save histories.

    Returns:
        What there is to say of it.
    """
    paths: list[str] = []
    problem = ""
    try:
        for history in histories:
            paths.append(os.path.relpath(_save(history, prefix), folder))
    except OSError as error:
        problem = f"{len(histories) - len(paths)} not saved: {error}"
    shown = paths if len(paths) <= _N_PATHS else [paths[0], "...", paths[-1]]
    return "\n".join(filter(None, [f"saved as {', '.join(shown)}" * bool(paths), problem]))


def _save(history: History, prefix: str) -> str:
    """Save a history under the next free number.

    Returns:
        The path.
    """
    path = _claimed(prefix)
    try:
        history.save(path)
    except BaseException:
        os.remove(path)
        raise
    return path


def _claimed(prefix: str) -> str:
    """Return the path of a new file, empty, so that no other process takes its number."""
    number = 1
    while True:
        path = f"{prefix}-{number}.npz"
        try:
            open(path, "xb").close()
        except FileExistsError:
            number += 1
        else:
            return path


if __name__ == "__main__":
    main(sys.argv[1:])
