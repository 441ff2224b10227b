"""What a notebook begins with: what it is, and the cell that installs what it needs."""

from __future__ import annotations

from pathlib import Path

from book_names import package_version
from sphinx.application import Sphinx

INTRODUCTION = """\
*This is a page of* {title}*, version {version}, {state}.*

Its first cell installs the book's package with what the notebooks need besides, unless it is there.
Its [wheel]({wheel}) lies {place}, on the book's site and in the archive of all notebooks.

On Linux, this brings 5.5 GB of CUDA along; where there is no GPU, first install PyTorch alone, with
the command that [its own site](https://pytorch.org/get-started/locally/) gives for CPU.

{beside} to be in this notebook's folder."""
STATES = {
    "": "with what its cells gave when the book was built",
    "to do": "without its solutions, for you to run and to complete",
    "solved": "with its solutions, and with what its cells gave when the book was built",
}
INSTALLATION = """\
import importlib.util

if importlib.util.find_spec("sgd_analysis") is None:
    %pip install --quiet "{wheel}[notebooks]"
"""
INSTALLATION_FROM_SITE = """\
import importlib.util
from pathlib import Path

package = "{wheel}[notebooks]"
if not Path("{wheel}").exists():
    package = "sgd-analysis[notebooks] @ {address}"
if importlib.util.find_spec("sgd_analysis") is None:
    %pip install --quiet "{{package}}"
"""


def wheel_name(app: Sphinx) -> str:
    return f"sgd_analysis-{package_version(Path(app.confdir))}-py3-none-any.whl"


def companions(book: Path, cells: str = "") -> list[str]:
    """Name the files beside the pages that their cells read; Matplotlib looks for the first."""
    candidates = (path for path in sorted(book.glob("_assets/*")) if path.is_file())
    names = (path.relative_to(book).as_posix() for path in candidates)
    return ["matplotlibrc", *(name for name in names if f'"{name}"' in cells)]


def beside_page(app: Sphinx, page: str) -> str:
    """Return the wheel's place, seen from a page's notebook."""
    depth = page.count("/") - 1  # of its folder below that of the chapters
    return ("../" * depth or "./") + wheel_name(app)


def introduction(app: Sphinx, page: str, cells: str, state: str) -> str:
    found = [f"`{name}`" for name in companions(Path(app.confdir, "book"), cells)]
    wheel = beside_page(app, page)
    return INTRODUCTION.format(
        title=app.config.html_title,
        version=package_version(Path(app.confdir)),
        state=STATES[state],
        wheel=wheel,
        place="in the folder above" if wheel.startswith("../") else "beside this notebook",
        beside=f"{' and '.join(found)} {'have' if len(found) > 1 else 'has'}",
    )


def installation(app: Sphinx, page: str) -> str:
    """Return the cell that installs the package: from beside the notebook, or from the site."""
    if not app.config.html_baseurl:
        return INSTALLATION.format(wheel=beside_page(app, page))
    address = f"{app.config.html_baseurl.rstrip('/')}/_sources/book/{wheel_name(app)}"
    return INSTALLATION_FROM_SITE.format(wheel=beside_page(app, page), address=address)
