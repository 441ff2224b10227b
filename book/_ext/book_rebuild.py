"""Rebuilds that give what a build from nothing would give.

Sphinx reads a page again when its text changes. A page also depends on the package it runs, on the
files beside it, on the libraries installed, and on the last build having come to its end. Whatever
of these changes, all pages are read again, which takes a third of a second each: what their cells
gave is another module's to keep. Which pages quote, link to or list which others is a longer story,
too: so all are written again if any was read, after what earlier builds wrote has been removed.
What others have put into the output folder (a `.git`, a `CNAME`) stays.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from book_sources import of_pages
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata


def note_sources(app: Sphinx, config: Config) -> None:
    config.book_fingerprint = of_pages(Path(app.confdir, "book"))


def reading(app: Sphinx) -> Path:
    """There from a build's start until all pages are read, and kept, without a warning."""
    return Path(app.doctreedir, "reading")


def site(app: Sphinx) -> Path:
    """There if the output folder holds a whole site; tells from which reading of which pages."""
    return Path(app.doctreedir, f"site-{Path(app.outdir).name}")


def journal(app: Sphinx) -> Path:
    """Names each file that was written to the output folder, relative to it: one a line."""
    return Path(app.doctreedir, f"written-{Path(app.outdir).name}")


def written(app: Sphinx) -> set[Path]:
    """Return what this build and those before it wrote; a killed one, too."""
    path = journal(app)
    names = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return {Path(app.outdir, name) for name in names if name}


def keep_journal(app: Sphinx) -> None:
    """Write down the name of each file of the output folder before it is opened for writing."""
    folder = os.path.join(os.path.abspath(app.outdir), "")
    names = open(journal(app), "a", encoding="utf-8", buffering=1)  # a line at a time

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wax+")
            writes = writes and not isinstance(path, int)
        elif writes := event == "os.rename":
            path = arguments[1]
        if writes:
            full = os.path.abspath(os.fsdecode(path))
            if full.startswith(folder):
                names.write(Path(full[len(folder) :]).as_posix() + "\n")

    sys.addaudithook(note)


def remove_what_was_written(app: Sphinx) -> None:
    for path in written(app):
        if path.is_file() or path.is_symlink():
            path.unlink()
        with suppress(OSError):  # as soon as a folder holds something else, or is not there
            for folder in path.relative_to(app.outdir).parents:
                Path(app.outdir, folder).rmdir()
    journal(app).write_text("", encoding="utf-8")


def begin(app: Sphinx, config: Config) -> None:
    """Read everything again if the last reading was interrupted or had warnings.

    What it left behind looks up to date, and its warnings would not be seen again.
    """
    if reading(app).exists():
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)
    reading(app).parent.mkdir(parents=True, exist_ok=True)
    reading(app).touch()
    keep_journal(app)


def forget_all_pages(app: Sphinx) -> None:
    """Leave nothing of what earlier builds executed: a file may be cut off, or its page gone."""
    if app.fresh_env_used:
        shutil.rmtree(app.env.mystnb_config.output_folder, ignore_errors=True)


def forget_page(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    """Forget what a page glued, which it may not glue again."""
    notebook = executed_notebook(app, page)
    notebook.unlink(missing_ok=True)
    notebook.with_suffix(".glue.json").unlink(missing_ok=True)


def pages_to_write(app: Sphinx, env: BuildEnvironment) -> Iterable[str]:
    """Name all pages, and remove the old ones, unless the site there is whole and up to date."""
    if app.builder.format != "html" or (is_whole(app) and not [*app.builder.get_outdated_docs()]):
        return []
    site(app).unlink(missing_ok=True)
    remove_what_was_written(app)
    return sorted(env.found_docs)


def is_whole(app: Sphinx) -> bool:
    return site(app).exists() and site(app).read_text(encoding="utf-8") == pages_read(app)


def pages_read(app: Sphinx) -> str:
    return "\n".join([app.builder.name, *(f"{page} {at}" for page, at in app.env.all_docs.items())])


def finish_reading(app: Sphinx, *_: object) -> None:
    if not app._warncount:
        reading(app).unlink(missing_ok=True)


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and not app._warncount:
        finish_reading(app)
        site(app).write_text(pages_read(app), encoding="utf-8")


def executed_notebook(app: Sphinx, page: str) -> Path:
    return Path(app.env.mystnb_config.output_folder, f"{page}.ipynb")


def setup(app: Sphinx) -> ExtensionMetadata:
    # The pages' own kernel: figures as SVG, no progress bars.
    os.environ["JUPYTER_PATH"] = str(Path(__file__).parent)
    app.add_config_value("book_fingerprint", "", "env", types=(str,))
    app.connect("config-inited", note_sources)
    app.connect("config-inited", begin)
    app.connect("builder-inited", forget_all_pages, priority=900)  # when MyST-NB is set up
    app.connect("env-purge-doc", forget_page)
    app.connect("env-updated", pages_to_write)
    app.connect("write-started", finish_reading)
    app.connect("build-finished", finish, priority=900)  # when the others have copied their files
    return {"parallel_read_safe": True, "parallel_write_safe": True}
