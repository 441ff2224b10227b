"""French pages: what tools write on them, their numbers, and the way to their twins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from docutils import nodes
from french_words import ENGLISH, KINDS, PROOF, TWINS, french_authors, is_french
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.util.typing import ExtensionMetadata

SECTION = re.compile(r"<(/?)section\b([^>]*)>")
TITLES = {
    "Link to this heading": "Lien vers ce titre",
    "Link to this image": "Lien vers cette figure",
    "Link to this equation": "Lien vers cette équation",
    "Link to this table": "Lien vers ce tableau",
}
PROMPTS = {
    "Show the code of this figure": "Afficher le code de cette figure",
    "Hide the code of this figure": "Masquer le code de cette figure",
}


def one_of(words: dict[str, str]) -> str:
    return "|".join(map(re.escape, words))


# (what tools write, what stands there in French)
WORDS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (re.compile(rf"(?<=>)(?:{one_of(KINDS)})(?= [\d.]* ?<)"), lambda found: KINDS[found[0]]),
    (re.compile(rf'(?<= title=")(?:{one_of(TITLES)})(?=")'), lambda found: TITLES[found[0]]),
    (re.compile('(?<= aria-label=")Table:'), lambda found: "Tableau\u00a0:"),
    (re.compile(rf"(?<=>)(?:{one_of(PROMPTS)})(?=<)"), lambda found: PROMPTS[found[0]]),
    (
        re.compile(r'(<div class="proof admonition"[^>]*>\s*<p>(?:<em>)?)Proof\.'),
        lambda found: found[1] + PROOF,
    ),
    (
        re.compile(r'<span class="bibtex-citation".*?</span>', re.S),
        lambda found: re.sub(r"(?<=>)[^<]+", lambda text: french_authors(text[0]), found[0]),
    ),
]


def mark_language(app: Sphinx, doctree: nodes.document) -> None:
    """Mark a French page's text: docutils writes lang="fr" for this class."""
    if is_french(app.env.docname):
        next(doctree.findall(nodes.section))["classes"].append("language-fr")


def share_numbers(app: Sphinx, builder: Builder) -> None:
    """Give what is the French one of another, as its label says, the number of that one.

    That is for writing only: kept, it would look as if numbers had changed since the last build.
    """
    numbers = builder.env.toc_fignumbers
    labelled = {
        (kind, label): number
        for page, kinds in numbers.items()
        if not is_french(page)
        for kind, labels in kinds.items()
        for label, number in labels.items()
    }
    for page in filter(is_french, numbers):
        for kind, labels in numbers[page].items():
            for label, number in labels.items():
                twin = (kind, label.removesuffix("-fr"))
                labels[label] = labelled.get(twin, number)


def end_of_section(body: str, start: int) -> int:
    depth = 0
    for tag in SECTION.finditer(body, start):
        depth += -1 if tag[1] else 1
        if not depth:
            return tag.end()
    raise ValueError(f"a section of the page has no end: {body[start : start + 80]}")


def french_parts(body: str) -> Iterator[tuple[int, int]]:
    """Yield where each French page begins and ends: the page to print holds all of them."""
    end = 0
    for tag in SECTION.finditer(body):
        if tag.start() >= end and 'lang="fr"' in tag[2]:
            end = end_of_section(body, tag.start())
            yield tag.start(), end


def in_french(body: str) -> str:
    """Say in French what tools have written on French pages."""
    written, last = [], 0
    for start, end in french_parts(body):
        part = body[start:end]
        for pattern, words in WORDS:
            part = pattern.sub(words, part)
        written += [body[last:start], part]
        last = end
    return "".join([*written, body[last:]])


def switch(app: Sphinx, page: str) -> str:
    """Return the link to the page that says the same in the other language, if there is one."""
    french = is_french(page)
    twin = (ENGLISH if french else TWINS).get(page)
    if twin not in app.env.found_docs:
        return ""
    language, name = ("en", "English") if french else ("fr", "Français")
    address = app.builder.get_relative_uri(page, twin)
    link = f'<a href="{address}" hreflang="{language}" lang="{language}">{name}</a>'
    return f'<p class="other-language">{link}</p>\n'


def speak_the_language(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if doctree is None or "body" not in context:
        return
    context["body"] = in_french(context["body"])
    if app.builder.name == "html":
        context["body"] = switch(app, page) + context["body"]


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("doctree-read", mark_language)
    app.connect("write-started", share_numbers)
    app.connect("html-page-context", speak_the_language)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
