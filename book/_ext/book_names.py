"""What the site, the printed book and their tests have to call by the same name."""

from __future__ import annotations

import runpy
from pathlib import Path

TEMPLATE = "book/template"  # a chapter to copy: no page of the book
PDF = "stochastic-gradient-descent-measured.pdf"
EDITIONS = {"book": PDF, "solutions": PDF.replace(".pdf", "-solutions.pdf")}  # what is printed
BROWSERS = ("chromium", "google-chrome", "chromium-browser")  # the first on the PATH is taken


def package_version(root: Path) -> str:
    """Read the version without the package, whose import takes seconds; tiny books have none."""
    source = root / "sgd_analysis/_version.py"
    return str(runpy.run_path(str(source))["__version__"]) if source.exists() else "0"
