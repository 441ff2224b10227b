"""What a notebook begins with: what it is, and the cell that installs what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from book_names import package_version
from french_words import is_french
from sphinx.application import Sphinx

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


@dataclass(frozen=True)
class Words:
    """What a notebook's first lines say in one language."""

    introduction: str
    states: dict[str, str]
    above: str
    beside: str
    joint: str
    needed: tuple[str, str]  # of one file, of several

    def of_files(self, names: list[str]) -> str:
        return f"{f' {self.joint} '.join(names)} {self.needed[len(names) > 1]}"


ENGLISH = Words(
    introduction="""\
*This is a page of* {title}, *version {version}, {state}.*

Its first cell installs the book's package with what the notebooks need besides, unless it is there.
Its [wheel]({wheel}) lies {place}, on the book's site and in the archive of all notebooks.

On Linux, this brings 5.5 GB of CUDA along; where there is no GPU, first install PyTorch alone, with
the command that [its own site](https://pytorch.org/get-started/locally/) gives for CPU.

{needed} to be in this notebook's folder.""",
    states={
        "": "with what its cells gave when the book was built",
        "to do": "without its solutions, for you to run and to complete",
        "solved": "with its solutions, and with what its cells gave when the book was built",
    },
    above="in the folder above",
    beside="beside this notebook",
    joint="and",
    needed=("has", "have"),
)
FRENCH = Words(
    introduction="""\
*Ce notebook est une page du livre* {title}, *version {version}, {state}.*

Sa première cellule installe la bibliothèque du livre, avec tout ce dont les notebooks ont besoin,
si elle n’est pas déjà là. Son [wheel]({wheel}) se trouve {place}, sur le site du livre et dans
l’archive de tous les notebooks.

Sous Linux, cela entraîne 5,5\u00a0Go de CUDA\u202f; sans carte graphique, installez d’abord PyTorch
seul, avec la commande que [son site](https://pytorch.org/get-started/locally/) donne pour CPU.

{needed} être dans le dossier de ce notebook.""",
    states={
        "": "avec ce que ses cellules ont donné à la construction du livre",
        "to do": "sans ses solutions\u202f; à vous de l’exécuter et de le compléter",
        "solved": "avec ses solutions, et ce que ses cellules ont donné à la construction du livre",
    },
    above="dans le dossier parent",
    beside="à côté de ce notebook",
    joint="et",
    needed=("doit", "doivent"),
)


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
    words = FRENCH if is_french(page) else ENGLISH
    wheel = beside_page(app, page)
    return words.introduction.format(
        title=app.config.html_title,
        version=package_version(Path(app.confdir)),
        state=words.states[state],
        wheel=wheel,
        place=words.above if wheel.startswith("../") else words.beside,
        needed=words.of_files(
            [f"`{name}`" for name in companions(Path(app.confdir, "book"), cells)]
        ),
    )


def installation(app: Sphinx, page: str) -> str:
    """Return the cell that installs the package: from beside the notebook, or from the site."""
    if not app.config.html_baseurl:
        return INSTALLATION.format(wheel=beside_page(app, page))
    address = f"{app.config.html_baseurl.rstrip('/')}/_sources/book/{wheel_name(app)}"
    return INSTALLATION_FROM_SITE.format(wheel=beside_page(app, page), address=address)
