"""What readers take along: the executed notebooks, the package, and what lies beside the pages."""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import zipfile
from pathlib import Path
from typing import Any

from book_names import PDF, package_version
from book_numbers import format_plain_text
from book_rebuild import executed_notebook, written
from book_weight import tidy_svg
from docutils import nodes
from docutils.parsers.rst.states import Inliner
from hatchling.builders.wheel import WheelBuilder
from myst_nb.ext.glue.crossref import read_glue_cache
from plain_notebook import Names, UnknownMarkupError, plain_notebook
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

LOGGER = logging.getLogger(__name__)
NOTEBOOKS = "book/notebooks.zip"

INTRODUCTION = """\
*This is a page of* {title}*, version {version}, with what its cells gave when the book was built.*

To run it, install the book's package with what the notebooks need besides. Its [wheel]({wheel})
lies {place}, on the book's site and in the archive of all notebooks:

```
python -m pip install "{wheel}[notebooks]"
```

On Linux, this brings 5.5 GB of CUDA along; where there is no GPU, first install PyTorch alone, with
the command that [its own site](https://pytorch.org/get-started/locally/) gives for CPU.

{beside} to be in this notebook's folder."""


def wheel_name(app: Sphinx) -> str:
    return f"sgd_analysis-{package_version(Path(app.confdir))}-py3-none-any.whl"


def companions(book: Path, cells: str = "") -> list[str]:
    """Name the files beside the pages that their cells read; Matplotlib looks for the first."""
    candidates = (path for path in sorted(book.glob("_assets/*")) if path.is_file())
    names = (path.relative_to(book).as_posix() for path in candidates)
    return ["matplotlibrc", *(name for name in names if f'"{name}"' in cells)]


def introduction(app: Sphinx, page: str, cells: str) -> str:
    depth = page.count("/") - 1  # of its folder below that of the chapters
    found = [f"`{name}`" for name in companions(Path(app.confdir, "book"), cells)]
    return INTRODUCTION.format(
        title=app.config.html_title,
        version=package_version(Path(app.confdir)),
        wheel=("../" * depth or "./") + wheel_name(app),
        place="in the folder above" if depth else "beside this notebook",
        beside=f"{' and '.join(found)} {'have' if len(found) > 1 else 'has'}",
    )


def citations(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    found = {}
    for citation in env.get_domain("cite").citations:
        persons = citation.entry.persons["author"]
        people = [" ".join(map(str, person.rich_last_names)) for person in persons]
        authors = " and ".join(people) if len(people) < 3 else f"{people[0]} et al."
        found[citation.key] = (authors, citation.entry.fields["year"])
    return found


def names(app: Sphinx, page: str) -> Names:
    env, folder = app.env, posixpath.dirname(page)

    def value(text: str) -> str:
        path, _, rest = text.partition("::")
        key, _, form = rest.partition(":")
        quoted = posixpath.normpath(posixpath.join(folder, path)).removesuffix(".md")
        glued = read_glue_cache(env.mystnb_config.output_folder, quoted)
        return format_plain_text(glued[key]["data"]["text/plain"], form)

    def address(other: str) -> str | None:
        target = posixpath.normpath(posixpath.join(folder, other))
        if executed_notebook(app, target).exists():
            return f"{other}.ipynb"
        site = app.config.html_baseurl
        return f"{site.rstrip('/')}/{target}.html" if site else None

    return Names(
        numbers={
            label.removeprefix("equation-"): (kind, ".".join(map(str, number)))
            for kinds in env.toc_fignumbers.values()
            for kind, labels in kinds.items()
            for label, number in labels.items()
        },
        titles={label: found[2] for label, found in env.get_domain("std").labels.items()},
        citations=citations(env),
        value=value,
        address=address,
    )


def offer_notebook(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the download menu give the executed notebook."""
    if doctree and executed_notebook(app, page).exists():
        context["ipynb_source"] = f"{page}.ipynb"


def write_notebook(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if not doctree or not executed_notebook(app, page).exists():
        return
    notebook = json.loads(executed_notebook(app, page).read_text(encoding="utf-8"))
    cells = "".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    try:
        notebook = plain_notebook(
            notebook,
            names(app, page),
            introduction=introduction(app, page, cells),
            tidy_svg=tidy_svg,
        )
    except (UnknownMarkupError, KeyError) as error:
        LOGGER.warning("the notebook to download cannot be written: %s", error, location=page)
        return
    target = Path(app.outdir, "_sources", f"{page}.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    target.write_text(text, encoding="utf-8")


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the package's wheel, the same bytes from the same source."""
    return Path(next(WheelBuilder(str(root)).build(directory=str(folder), versions=["standard"])))


def pack(folder: Path, archive: Path, built: set[Path]) -> None:
    """Put all that was built into the folder and is no Markdown into one archive, with no date."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path in built)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in paths:
            if path.suffix != ".md" and path != archive:
                name = f"sgd-measured/{path.relative_to(folder).as_posix()}"
                entry = zipfile.ZipInfo(name)  # of 1980, and for anyone to read
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def offer_package(app: Sphinx, exception: Exception | None) -> None:
    """Put beside the notebooks what they need, and all of it together into one archive."""
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
    pack(folder, Path(app.outdir, "_sources", NOTEBOOKS), written(app))


def built_file(
    role: str, rawtext: str, text: str, line: int, inliner: Inliner, *_: object
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Link to a file that comes into being with the book: ``{built}`the wheel <wheel>```."""
    app = inliner.document.settings.env.app
    places = {
        "wheel": f"_sources/book/{wheel_name(app)}",
        "notebooks": f"_sources/{NOTEBOOKS}",
        "pdf": PDF,
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
    app.connect("html-page-context", offer_notebook)
    # After the theme, which puts the raw notebook there if it offers to launch the page.
    app.connect("html-page-context", write_notebook, priority=900)
    app.connect("build-finished", offer_package)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
