"""`python -m sgd_analysis script.py`: run a script, and record every optimizer in it."""

from __future__ import annotations

import argparse
import atexit
import logging
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sgd_analysis.history.history import History
from sgd_analysis.recording import programs
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
    program = programs.module(name) if options.module else programs.script(name)
    environment = [os.environ.get(variable) for variable in _READ_ON_IMPORT]
    before = Before(os.getpid(), os.getcwd(), environment)
    _log_to_stderr()
    atexit.register(_finish, everywhere, prefix, before)
    everywhere.start()
    program.run(rest)


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
        help="the number of steps after which an epoch ends, where no DataLoader tells",
    )
    add(
        "--n-samples",
        type=_positive(float),
        metavar="N",
        help="the number of samples in each backward pass, where its loss does not tell",
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


def _log_to_stderr() -> None:
    """Keep what is logged at an epoch's end out of where the script sends its own logs."""
    logger = logging.getLogger("sgd_analysis")
    logger.addHandler(handler := logging.StreamHandler(sys.__stderr__))
    handler.setFormatter(logging.Formatter("sgd_analysis: %(message)s"))
    logger.propagate = False


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
    if messages:
        lines.append("steps_per_epoch= and n_samples= are --steps-per-epoch and --n-samples here")
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
