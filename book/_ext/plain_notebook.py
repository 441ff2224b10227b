"""An executed page as a notebook that reads and runs in any Jupyter, without the book around it.

The book's Markdown has roles and directives that Jupyter would show as they are written. Here each
becomes what the page shows: a number, a name, a quotation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from french_words import KINDS as FRENCH_KINDS
from french_words import PROOF, french_authors

Cell = dict[str, Any]

FENCE = re.compile(
    r"^:::\{(?P<name>[\w:-]+)\}[ ]*(?P<argument>.*)\n(?P<options>(?::[\w-]+:.*\n)*)"
    r"(?P<content>(?:.*\n)*?):::[ ]*$",
    re.M,
)
EQUATION = re.compile(r"^([ ]*\$\$)\n((?:(?!\$\$).)*)\n[ ]*\$\$ \(([\w-]+)\)[ ]*$", re.M | re.S)
ROLE = re.compile(r"``.*?``|\{([a-z]+(?::[a-z]+)?)\}`([^`]+)`", re.S)  # or what is quoted as it is
TARGET = re.compile(r"^\([\w-]+\)=\n", re.M)
COMMENT = re.compile(r"^% .*\n+", re.M)
LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)*[\w/-]+)\.md(?:#[\w-]*)?\)")
KINDS = {"figure": "Fig."}  # others are called by their own name

GLUE_IMPORT = re.compile(r"^from myst_nb import glue\n", re.M)
GLUE = '''\
def glue(name, value, display=True):
    """{}"""'''
DOES_NOTHING = (
    "Quote a value in the book's text, which needs the book: here there is nothing to do."
)
DOES_NOTHING_FR = "Cite une valeur dans le texte du livre : hors du livre, il n’y a rien à faire."


class UnknownMarkupError(ValueError):
    """Markup that has no reading in a plain notebook yet."""


@dataclass(frozen=True)
class Names:
    """What the book calls the things that a page refers to."""

    numbers: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # label: (kind, "4.1")
    titles: Mapping[str, str] = field(default_factory=dict)  # label of a section: its title
    citations: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # key: (authors, year)
    value: Callable[[str], str] = str  # "page.md::key:format": the text
    address: Callable[[str], str | None] = lambda page: None  # "page": where a link leads
    french: bool = False

    def numbered(self, label: str) -> str:
        kind, number = self.numbers[label]
        name = KINDS.get(kind, kind.capitalize())
        return f"{FRENCH_KINDS.get(name, name) if self.french else name} {number}"

    def solved(self, label: str) -> str:
        number = self.numbered(label)
        return (
            f"Solution de l’{number[0].lower()}{number[1:]}"
            if self.french
            else f"Solution of {number}"
        )

    def cited(self, role: str, keys: str) -> str:
        cited = [self.citations[key.strip()] for key in keys.split(",")]
        if self.french:
            cited = [(french_authors(authors), year) for authors, year in cited]
        if role == "cite:t":
            return ", ".join(f"{authors} ({year})" for authors, year in cited)
        return f"({'; '.join(f'{authors}, {year}' for authors, year in cited)})"

    def spoken(self, role: str, text: str) -> str:
        """Say what a role shows."""
        label = re.sub(r"^.*<([^>]+)>$", r"\1", text, flags=re.S)
        if role == "glue:text":
            return self.value(text)
        if role in ("cite:t", "cite:p"):
            return self.cited(role, text)
        if label != text:
            return text[: text.rindex("<")].strip()
        if role == "eq":
            return f"({self.numbers[label][1]})"
        if role in ("numref", "prf:ref"):
            return self.numbered(label)
        if role == "claim":
            return f"*({text})*"
        if role == "ref":
            return self.titles.get(label) or self.numbered(label)
        raise UnknownMarkupError(f"the role {role} has no reading in a plain notebook")


def quoted(title: str, content: str) -> str:
    lines = f"{title}\n\n{content.strip()}".strip().split("\n")
    return "\n".join(f"> {line}".rstrip() for line in lines)


def plain_directive(directive: re.Match[str], names: Names) -> str:
    name, argument, content = directive["name"], directive["argument"], directive["content"]
    if name == "admonition":
        return quoted(f"**{argument}**", content)
    if name == "prf:proof":
        proof = PROOF if names.french else "Proof."
        return quoted("", f"*{proof}* {content.strip()} ∎")
    if name == "exercise" or name.startswith("prf:"):
        found = re.search(r"^:label: (.+)$", directive["options"], re.M)
        number = names.numbered(found[1].strip()) if found else name.removeprefix("prf:").title()
        return quoted(f"**{number}**" + (f" ({argument})" if argument else ""), content)
    if name == "solution":
        summary = f"<summary>{names.solved(argument)}</summary>"
        return f"<details>{summary}\n\n{content.strip()}\n\n</details>"
    if name == "solution-start":
        return f"**{names.solved(argument)}**"
    if name in ("solution-end", "only", "live"):
        return ""
    raise UnknownMarkupError(f"the directive {name} has no reading in a plain notebook")


def plain_markdown(text: str, names: Names) -> str:
    """Say in Markdown alone what the page says with the book's roles and directives."""

    def linked(link: re.Match[str]) -> str:
        address = names.address(link[2])
        return f"[{link[1]}]({address})" if address else link[1]

    def tagged(equation: re.Match[str]) -> str:
        dollars, formula, label = equation.groups()
        return f"{dollars}\n{formula} \\tag{{{names.numbers[label][1]}}}\n{dollars}"

    text = COMMENT.sub("", TARGET.sub("", text + "\n"))
    text = EQUATION.sub(tagged, text)
    text = FENCE.sub(lambda found: plain_directive(found, names), text)
    text = ROLE.sub(lambda role: names.spoken(role[1], role[2]) if role[1] else role[0], text)
    return LINK.sub(linked, text).strip()


def markdown_cell(text: str) -> Cell:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code_cell(source: str, *, folded: bool = True) -> Cell:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"jupyter": {"source_hidden": True}} if folded else {},
        "outputs": [],
        "source": source,
    }


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def plain_outputs(outputs: list[Any], tidy_svg: Callable[[str], str]) -> Iterator[Any]:
    for output in outputs:
        data = output.get("data", {})
        if any(kind.startswith("application/papermill.record/") for kind in data):
            continue  # glued
        if drawing := data.get("image/svg+xml"):
            data = data | {"image/svg+xml": tidy_svg(joined(drawing))}
        yield output | ({"data": data, "metadata": {}} if data else {})


def plain_code(cell: Cell, names: Names, tidy_svg: Callable[[str], str]) -> Iterator[Cell]:
    """Yield a code cell without the book's settings, and the caption of its figure."""
    settings = cell["metadata"]
    folded = any(tag.startswith(("hide-", "remove-")) for tag in settings.get("tags", ()))
    yield cell | {
        "metadata": {"jupyter": {"source_hidden": True}} if folded else {},
        "outputs": list(plain_outputs(cell["outputs"], tidy_svg)),
        "source": GLUE_IMPORT.sub("", joined(cell["source"])),
    }
    if figure := settings.get("mystnb", {}).get("figure"):
        caption = plain_markdown(figure["caption"], names)
        yield markdown_cell(f"**{names.numbered(figure['name'])}.** {caption}")


def numbered(notebook: dict[str, Any]) -> dict[str, Any]:
    """Give each cell of a notebook the name of its place."""
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number}"
    return notebook | {"nbformat": 4, "nbformat_minor": 5}


def plain_notebook(
    notebook: dict[str, Any],
    names: Names,
    *,
    introduction: str = "",
    installation: str = "",
    tidy_svg: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Turn a page's executed notebook into one for any Jupyter."""
    cells = [markdown_cell(introduction)] if introduction else []
    if installation:
        cells.append(code_cell(installation, folded=False))
    if any(GLUE_IMPORT.search(joined(cell["source"])) for cell in notebook["cells"]):
        cells.append(code_cell(GLUE.format(DOES_NOTHING_FR if names.french else DOES_NOTHING)))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cells += plain_code(cell, names, tidy_svg)
        elif text := plain_markdown(joined(cell["source"]), names):
            cells.append(markdown_cell(text))
    return numbered(
        {"cells": cells, "metadata": {"kernelspec": notebook["metadata"]["kernelspec"]}}
    )
