"""Run a program as python does: a script by its path, or a module by its name."""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import InspectLoader
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType
from typing import Any, NamedTuple


class Program(NamedTuple):
    """A program: the `__main__` that it runs in, what compiles it, and what it is called."""

    module: ModuleType
    compiled: Callable[[], Any]
    name: str

    def run(self, arguments: Sequence[str]) -> None:
        """Run it in this process, for which it is from now on what python was started with.

        An error that comes out of it passes through. If nobody catches it, the traceback that
        python prints begins where it would have begun without us.
        """
        sys.argv = [self.name, *arguments]
        sys.modules["__main__"] = self.module
        try:
            exec(self.compiled(), vars(self.module))
        except BaseException as error:
            if not isinstance(error, SystemExit):
                _leave_out_what_is_above(self.module)
            raise


def script(name: str) -> Program:
    """Return a script, and have it import what lies beside it.

    Raises:
        SystemExit: if it cannot be read; it is said as python does.
    """
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
    main = _main_module()
    main.__file__ = path
    main.__loader__ = SourceFileLoader("__main__", path)
    return Program(main, lambda: compile(source, path, "exec", dont_inherit=True), name)


def module(name: str) -> Program:
    """Return a module, or the `__main__` of a package.

    Raises:
        SystemExit: if it cannot be found, with what python says then.
    """
    try:
        spec = importlib.util.find_spec(name)
    except ImportError as error:
        problem = f"{type(error).__name__}: {error}"
        sys.exit(
            f"{sys.executable}: Error while finding module specification for {name!r} ({problem})"
        )
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or not isinstance(loader := spec.loader, InspectLoader):
        sys.exit(f"{sys.executable}: No module named {name}")
    main = _main_module()
    main.__spec__, main.__package__ = spec, spec.parent
    main.__file__, main.__loader__ = spec.origin, loader
    main.__cached__ = spec.cached  # type: ignore[attr-defined]
    return Program(main, lambda: loader.get_code(spec.name), str(spec.origin))


def _main_module() -> ModuleType:
    main = ModuleType("__main__")
    main.__builtins__ = builtins  # type: ignore[attr-defined]
    main.__cached__ = None  # type: ignore[attr-defined]
    main.__package__ = None
    return main


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
