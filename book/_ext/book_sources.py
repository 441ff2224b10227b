"""Fingerprints of what pages are made from: of all of it, and of what cells compute with."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

SHOWS_SOURCE = re.compile(r"\bhelp\b|__doc__|getdoc|getsource|^\?|^[\w.]+\?", re.M)
OWN_VARIABLE = re.compile(r"\bBOOK_\w+")
OF_THE_PROCESSOR = ("ATEN_", "MKL_", "OMP_", "ONEDNN_")
STYLES = {".bib", ".css", ".html", ".js", ".svg"}


class WithoutStrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        value = node.value
        return None if isinstance(value, ast.Constant) and isinstance(value.value, str) else node


@functools.cache
def code(module: bytes) -> bytes:
    """Return what Python executes of a module, whatever its docstrings, comments, line breaks."""
    try:
        return ast.dump(WithoutStrings().visit(ast.parse(module))).encode()
    except SyntaxError:
        return module


@functools.cache
def libraries() -> str:
    return "\n".join([sys.version, *sorted({f"{d.name} {d.version}" for d in distributions()})])


def package() -> dict[str, Path]:
    found = find_spec("sgd_analysis")
    roots = [Path(root) for root in found.submodule_search_locations or ()] if found else []
    return {str(path.relative_to(root)): path for root in roots for path in root.rglob("*.py")}


def beside(book: Path) -> dict[str, Path]:
    """Name what lies beside the pages, and the pins."""
    return {
        str(path.relative_to(book.parent)): path
        for path in [*book.rglob("*"), book.parent / "requirements.txt"]
        if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts
    }


def can_be_read(path: Path, cells: str) -> bool:
    """Whether cells may read a file beside their page: one of the site only if they name it."""
    of_the_site = path.suffix in STYLES or path.parent.name == "_ext"
    return not of_the_site or path.name in cells


def digest(parts: dict[str, bytes]) -> str:
    sha = hashlib.sha256(libraries().encode())
    variables = {k: v.encode() for k, v in os.environ.items() if k.startswith(OF_THE_PROCESSOR)}
    for name, content in sorted((variables | parts).items()):
        sha.update(f"{name} {len(content)} ".encode() + content)
    return sha.hexdigest()


def of_pages(book: Path) -> str:
    """Fingerprint what a page may be made from, besides its text."""
    files = {name: path.read_bytes() for name, path in (package() | beside(book)).items()}
    return digest(files | {k: v.encode() for k, v in os.environ.items() if OWN_VARIABLE.match(k)})


def of_cells(book: Path, cells: str) -> str:
    """Fingerprint what decides what cells give: themselves, and all that they may compute with."""
    as_seen = bytes if SHOWS_SOURCE.search(cells) else code
    parts = {name: as_seen(path.read_bytes()) for name, path in package().items()}
    parts |= {n: path.read_bytes() for n, path in beside(book).items() if can_be_read(path, cells)}
    parts |= {name: os.environ.get(name, "").encode() for name in OWN_VARIABLE.findall(cells)}
    return digest(parts | {"cells": cells.encode()})
