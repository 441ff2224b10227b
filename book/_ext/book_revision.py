"""The commit that a build is of: told to the cells that ask for it, in BOOK_REVISION."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

NAME = "BOOK_REVISION"


def revision(root: Path) -> str:
    """Name the commit checked out at root, its date, and whether files differ from it.

    Empty without git, or where root is no repository: one that it merely lies in does not count.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(root.resolve().parent)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=root,
            env=environment,
            text=True,
            check=True,
            capture_output=True,
        ).stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H of %cs")
        return f"{commit}, with changes" if git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return ""


def setup(app: Sphinx) -> ExtensionMetadata:
    os.environ[NAME] = revision(Path(app.srcdir))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
