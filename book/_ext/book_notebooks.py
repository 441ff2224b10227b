"""Each page's executed notebook for any Jupyter, to do and solved, and all solutions in one."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from book_names import package_version
from book_numbers import format_plain_text
from book_rebuild import executed_notebook
from book_weight import tidy_svg
from docutils import nodes
from french_words import is_french
from myst_nb.ext.glue.crossref import read_glue_cache
from notebook_opening import installation, introduction
from notebook_solutions import (
    ANSWER,
    ANSWER_IN_FRENCH,
    exercises_and_solutions,
    has_exercises,
    to_do,
)
from plain_notebook import (
    Cell,
    Names,
    UnknownMarkupError,
    joined,
    markdown_cell,
    numbered,
    plain_notebook,
)
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

LOGGER = logging.getLogger(__name__)
SOLUTIONS = "book/solutions.ipynb"
SOLVED = "-solved"  # what follows the page's name in that of the notebook with its solutions


ALL_SOLUTIONS = """\
*The exercises of* {title}*, version {version}, each with its solution and with what it gave when
the book was built.* To run a solution, open the solved notebook of its chapter."""


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
        plain = glued[key]["data"]["text/plain"]
        return format_plain_text(plain, form, french=is_french(page))

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
        french=is_french(page),
    )


def executed(app: Sphinx, page: str) -> dict[str, Any]:
    """Read what a page's cells gave."""
    notebook: dict[str, Any] = json.loads(executed_notebook(app, page).read_text(encoding="utf-8"))
    return notebook


def offer_notebook(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the download menu give the executed notebook."""
    if doctree and executed_notebook(app, page).exists():
        context["ipynb_source"] = f"{page}.ipynb"


def offer_solved_notebook(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the menu give both notebooks of a page with exercises, and Colab open the first."""
    if app.builder.name != "html" or not doctree or "ipynb_source" not in context:
        return  # the page to be printed has no menu
    groups = {group["label"]: group for group in context["header_buttons"]}
    menu = groups["download-buttons"]["buttons"]
    if has_exercises(executed(app, page)["cells"]):
        (first,) = (button for button in menu if button["label"] == "download-notebook-button")
        first |= {"text": "to do .ipynb", "tooltip": "Download the notebook without solutions"}
        solved = {
            "url": first["url"].replace(".ipynb", f"{SOLVED}.ipynb"),
            "text": "solved .ipynb",
            "tooltip": "Download the notebook with its solutions",
            "label": "download-solved-notebook-button",
        }
        menu.insert(menu.index(first) + 1, first | solved)
    if folder := os.environ.get("BOOK_COLAB_URL"):
        context["header_buttons"].insert(
            0,
            {
                "type": "link",
                "url": f"{folder.rstrip('/')}/{page}.ipynb",
                "text": "Colab",
                "tooltip": "Open this page's notebook on Colab",
                "icon": "fas fa-rocket",
                "label": "launch-colab-button",
            },
        )


def write_notebook(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Write a page's notebook; of one with exercises, one to do and one that is solved."""
    if not doctree or not executed_notebook(app, page).exists():
        return
    notebook = executed(app, page)
    cells = "".join(joined(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    versions = {"": ("", notebook)}
    if has_exercises(notebook["cells"]):
        answer = ANSWER_IN_FRENCH if is_french(page) else ANSWER
        undone = notebook | {"cells": list(to_do(notebook["cells"], answer))}
        versions = {"to do": ("", undone), "solved": (SOLVED, notebook)}
    for state, (suffix, version) in versions.items():
        try:
            plain = plain_notebook(
                version,
                names(app, page),
                introduction=introduction(app, page, cells, state),
                installation=installation(app, page),
                tidy_svg=tidy_svg,
            )
        except (UnknownMarkupError, KeyError) as error:
            LOGGER.warning("the notebook to download cannot be written: %s", error, location=page)
            return
        save(plain, Path(app.outdir, "_sources", f"{page}{suffix}.ipynb"))


def save(notebook: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    target.write_text(text, encoding="utf-8")


def in_reading_order(env: BuildEnvironment, page: str) -> Iterator[str]:
    yield page
    for below in env.toctree_includes.get(page, ()):
        yield from in_reading_order(env, below)


def write_solutions(app: Sphinx) -> None:
    """Write one notebook with the exercises of all pages and their solutions."""
    found: list[Cell] = []
    kernel: dict[str, Any] = {}
    for page in in_reading_order(app.env, app.config.root_doc):
        if is_french(page) or not executed_notebook(app, page).exists():
            continue  # the exercises of a French page are those of its twin
        notebook = executed(app, page)
        if solved := list(exercises_and_solutions(notebook["cells"])):
            title = markdown_cell(f"## {app.env.titles[page].astext()}")
            plain = plain_notebook(
                notebook | {"cells": [title, *solved]},
                names(app, page),
                tidy_svg=tidy_svg,
            )
            found, kernel = found + plain["cells"], plain["metadata"]
    if found:
        version = package_version(Path(app.confdir))
        text = ALL_SOLUTIONS.format(title=app.config.html_title, version=version)
        whole = {"cells": [markdown_cell(text), *found], "metadata": kernel}
        save(numbered(whole), Path(app.outdir, "_sources", SOLUTIONS))


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("html-page-context", offer_notebook)
    app.connect("html-page-context", offer_solved_notebook, priority=900)
    # After the theme, which puts the raw notebook there if it offers to launch the page.
    app.connect("html-page-context", write_notebook, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
