"""The commit that a build is of: told to the cells that ask for it, in BOOK_REVISION."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
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


def tell_cells(app: Sphinx, config: Config) -> None:
    os.environ[NAME] = revision(Path(app.srcdir))


def pages_that_ask(app: Sphinx, env: BuildEnvironment, *_: object) -> list[str]:
    """Name the pages to execute again when the commit is another one."""
    told, env.book_revision = getattr(env, "book_revision", None), os.environ[NAME]
    if told == env.book_revision:
        return []
    return [
        page
        for page in sorted(env.found_docs)
        if NAME in Path(env.doc2path(page)).read_text(encoding="utf-8")
    ]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("config-inited", tell_cells)
    app.connect("env-get-outdated", pages_that_ask)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
