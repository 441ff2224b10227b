"""Books of a few tiny pages, built as the real one is."""

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

FRONT_MATTER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
  language: python
---

# A measured page
"""
CELL = "\n```{{code-cell}} ipython3\n{source}\n```\n"
FIGURE = """
```{code-cell} ipython3
---
mystnb:
  figure:
    name: fig-line
    caption: >-
      The line ends at {glue:text}`measured.md::value:d`,
      see {cite:t}`robbins1951` and {eq}`eq-line`.
  image:
    alt: A rising line.
---
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.plot([0, 1], [0, VALUE]);
```

$$
y = x
$$ (eq-line)

:::{exercise} With code
:label: ex-line
Draw {numref}`fig-line` and {prf:ref}`thm-line`.
:::

:::{solution-start} ex-line
:label: sol-line
:class: dropdown
:::

```{code-cell} ipython3
print("solved", VALUE)
```

:::{solution-end}
:::

:::{prf:theorem}
:label: thm-line
A line rises.
:::
"""
MEASURE = CELL.format(
    source="""\
import numpy as np
from myst_nb import glue

from sgd_analysis import VALUE

print("measured", VALUE)
glue("value", VALUE, display=False)
glue("tiny", np.float64(3e-7), display=False)
glue("quoted", 300, display=False)"""
)
PAGES = {
    "index": (
        "# A book\n\nMeasured {glue:text}`measured.md::value:d`, $x^2$.\n\n```{bibliography}\n```\n"
    ),
    "measured": FRONT_MATTER + MEASURE + FIGURE,
    "quoting": (
        "---\nmyst:\n  html_meta:\n    description: Quotes a number.\n---\n\n# Another page\n\n"
        "{claim}`measured, cited` Elsewhere, {glue:text}`measured.md::quoted:d` was quoted, and "
        "{glue:text}`measured.md::tiny:.1e`.\n\n"
        "| a |\n| --- |\n| 1 |\n\nAnd\n\n| b |\n| --- |\n| 2 |\n\n"
        "## Below\n\n| c |\n| --- |\n| 3 |\n"
    ),
}
BIBLIOGRAPHY = """\
@article{robbins1951,
  author = {Robbins, Herbert and Monro, Sutton},
  title = {A stochastic approximation method},
  journal = {The Annals of Mathematical Statistics},
  year = {1951},
}
"""


def make_book(root: Path, pages: dict[str, str]) -> Path:
    book = root / "book"
    book.mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", root)
    for name in ("conftest.py", "matplotlibrc"):
        shutil.copy(ROOT / "book" / name, book)
    for name in ("_ext", "_assets"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "book" / name, book / name, ignore=ignored)
    for name, text in pages.items():
        page = book / f"{name}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, encoding="utf-8")
    (book / "references.bib").write_text(BIBLIOGRAPHY, encoding="utf-8")
    first, *others = (f"book/{name}" for name in pages)
    toc: dict[str, object] = {"format": "jb-book", "root": first}
    if others:
        toc["chapters"] = [{"file": page} for page in others]
    (root / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (root / "sgd_analysis").mkdir()
    write_package(root, value=41)
    return root


def write_package(root: Path, value: int) -> None:
    package = root / "sgd_analysis" / "__init__.py"
    package.write_text(f"VALUE = {value}\n", encoding="utf-8")


def replace_in_page(root: Path, page: str, old: str, new: str) -> None:
    path = root / "book" / f"{page}.md"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def command(root: Path, program: str, *arguments: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if "BOOK_" not in name}
    return {
        "args": [Path(sysconfig.get_path("scripts"), program), *arguments],
        "cwd": root,
        "env": environment | {"PYTHONPATH": str(root)},
        "stderr": subprocess.STDOUT,
    }


def finish(command: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(**command, text=True, stdout=subprocess.PIPE, check=False)
    result.stdout = re.sub(r"\x1b\[[\d;]*m", "", result.stdout)
    return result


def run(root: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return finish(command(root, program, *arguments))


def build_command(root: Path) -> dict[str, Any]:
    return command(root, "jupyter-book", "build", ".", "-W", "-n", "--keep-going")


def build(root: Path, settings: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    build = build_command(root)
    build["env"] |= settings or {}
    return finish(build)


def executed(result: subprocess.CompletedProcess[str]) -> set[str]:
    """Name the pages whose cells a build has executed, to their end."""
    return set(re.findall(r"/book/([\w-]+)\.md: Executed notebook", result.stdout))


def html(root: Path, page: str) -> str:
    return (root / "_build/html/book" / f"{page}.html").read_text(encoding="utf-8")


def site_pages(root: Path) -> list[Path]:
    site = root / "_build/html"
    return [path for path in site.rglob("*.html") if site / "_static" not in path.parents]


def digests(root: Path) -> dict[str, str]:
    site = root / "_build/html"
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
    }
