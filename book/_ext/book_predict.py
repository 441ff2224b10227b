"""Predictions that a reader can make: marks a question's choices and its answer for predict.js.

A section "Predict: …" holds lists of "(a) …", "(b) …"; the answers stand in bold under the figures
that give them, in the same order: "The answer is (b).", "The second answer is (c)."
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

CHOICE = re.compile(r"\([a-z]\) ")
ANSWER = re.compile(r"\banswer\b.*\([a-z]\)", re.I | re.S)


def questions(document: nodes.document) -> Iterator[nodes.bullet_list]:
    for section in document.findall(nodes.section):
        if section["ids"][0].startswith("predict"):
            for choices in section.findall(nodes.bullet_list):
                if all(CHOICE.match(item.astext()) for item in choices.children):
                    yield choices


def answers(document: nodes.document) -> Iterator[nodes.paragraph]:
    for strong in document.findall(nodes.strong):
        if ANSWER.search(strong.astext()) and isinstance(strong.parent, nodes.paragraph):
            yield strong.parent


def mark(app: Sphinx, document: nodes.document) -> None:
    asked = list(questions(document))
    given = list(answers(document)) if asked else []
    if len(asked) != len(given):
        logging.getLogger(__name__).warning(
            "%d questions to predict, but %d answers in bold (“**The answer is (b).**”)",
            *(len(asked), len(given)),
            location=document,
        )
    for choices in asked:
        choices["classes"].append("choices")
    for number, answer in enumerate(given, 1):
        answer["classes"].append("answer")
        answer["ids"].append(f"answer-{number}")


def add_script(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if doctree and any("choices" in node["classes"] for node in doctree.findall(nodes.bullet_list)):
        app.add_js_file("predict.js")


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("doctree-read", mark)
    app.connect("html-page-context", add_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
