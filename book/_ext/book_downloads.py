"""What readers take along: notebooks, packed with the package and what lies beside the pages."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from book_names import EDITIONS
from book_notebooks import SOLUTIONS, SOLVED, write_solutions
from book_rebuild import written
from docutils import nodes
from docutils.parsers.rst.states import Inliner
from hatchling.builders.wheel import WheelBuilder
from notebook_opening import companions, wheel_name
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.typing import ExtensionMetadata

ARCHIVES = {"notebooks": "book/notebooks.zip", "solved": "book/notebooks-solved.zip"}


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the package's wheel, the same bytes from the same source."""
    return Path(next(WheelBuilder(str(root)).build(directory=str(folder), versions=["standard"])))


def pack(folder: Path, archive: Path, paths: Iterable[Path]) -> None:
    """Put files of the folder into one archive, with no date."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(paths):
            name = f"sgd-measured/{path.relative_to(folder).as_posix()}"
            entry = zipfile.ZipInfo(name)  # of 1980, and for anyone to read
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def pack_notebooks(folder: Path, archive: Path, built: set[Path], *, solved: bool) -> None:
    """Pack each page's notebook, solved or to do, with what all of them need."""
    there = {path for path in folder.rglob("*") if path.is_file() and path in built}
    beside = {path for path in there if path.suffix not in (".md", ".zip")}
    with_solutions = {path for path in beside if path.stem.endswith(SOLVED)}
    to_do = {
        path.with_name(path.name.replace(f"{SOLVED}.ipynb", ".ipynb")) for path in with_solutions
    }
    left_out = to_do if solved else with_solutions | {folder / Path(SOLUTIONS).name}
    pack(folder, archive, beside - left_out)


def offer_package(app: Sphinx, exception: Exception | None) -> None:
    """Put beside the notebooks what they need, and all of it together into two archives."""
    root, folder = Path(app.confdir), Path(app.outdir, "_sources/book")
    if exception or app.builder.name != "html" or not Path(root, "pyproject.toml").exists():
        return
    for beside in {path.parent for path in folder.rglob("*.ipynb")} | {folder}:
        cells = "".join(path.read_text(encoding="utf-8") for path in beside.glob("*.ipynb"))
        for name in companions(root / "book", cells.replace('\\"', '"')):
            target = beside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / "book" / name, target)
    build_wheel(root, folder)
    write_solutions(app)
    for kind, name in ARCHIVES.items():
        archive = Path(app.outdir, "_sources", name)
        pack_notebooks(folder, archive, written(app), solved=kind == "solved")


def built_file(
    role: str, rawtext: str, text: str, line: int, inliner: Inliner, *_: object
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Link to a file that comes into being with the book: ``{built}`the wheel <wheel>```."""
    app = inliner.document.settings.env.app
    places = {
        "wheel": f"_sources/book/{wheel_name(app)}",
        "solutions": f"_sources/{SOLUTIONS}",
        **{kind: f"_sources/{name}" for kind, name in ARCHIVES.items()},
        "pdf": EDITIONS["book"],
        "pdf-solutions": EDITIONS["solutions"],
    }
    title, _, name = text.rstrip(">").partition(" <")
    if name not in places:
        message = f"expected one of {', '.join(places)} in {rawtext}"
        return [], [inliner.reporter.error(message, line=line)]
    root = "../" * app.env.docname.count("/")
    return [nodes.reference(rawtext, title, refuri=root + places[name])], []


def add_binder(app: Sphinx, config: Config) -> None:
    """Offer to run a page on a BinderHub, where one is named and can see the repository."""
    hub, repository = os.environ.get("BOOK_BINDER_URL"), os.environ.get("BOOK_REPOSITORY_URL", "")
    if hub and repository.startswith("https://github.com/"):
        config.html_theme_options |= {
            "repository_branch": "HEAD",
            "launch_buttons": {"binderhub_url": hub, "notebook_interface": "jupyterlab"},
        }


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_config_value("book_pdf", bool(os.environ.get("BOOK_PDF")), "html", types=(bool,))
    if os.environ.get("BOOK_PDF"):
        app.tags.add("book_pdf")
    app.add_role("built", built_file)
    app.connect("config-inited", add_binder)
    app.connect("build-finished", offer_package)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
