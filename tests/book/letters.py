"""The letters of a page's formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.book.markup import FRONT_MATTER, Page

GREEK = (
    "alpha|beta|gamma|delta|varepsilon|epsilon|zeta|eta|theta|kappa|lambda|mu|nu|xi|rho|sigma|tau"
    "|varphi|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Phi|Psi|Omega|ell"
)
ACCENTS = "hat|tilde|bar|mathcal|mathbb|overline|widehat"
ACCENT = rf"\\(?:{ACCENTS})(?![a-zA-Z]) ?\{{?"
WORDS = re.compile(r"\\(?:text|textbf|operatorname|mathrm|begin|end|label|tag)\*?\{[^}]*\}")
NAMED = re.compile(r"_\{?\\mathrm\{(\w+)\}\}?")
SIGN = re.compile(rf"\\(?!(?:{GREEK}|{ACCENTS})(?![a-zA-Z]))[a-zA-Z]+")
LETTER = re.compile(rf"(?:{ACCENT})?(?:\\(?:{GREEK})(?![a-zA-Z])|[a-zA-Z])")
MARK = re.compile(r"\}?(\^\*)?(?:_(\{(?:[^{}]|\{[^{}]*\})*\}|\w|\\\w+))?")
FORMULA = re.compile(r"\$\$(.*?)\$\$|(?<![\\$])\$([^$\n]+)\$", re.S)


def formulas(page: Page) -> Iterator[tuple[int, str]]:
    """Yield each formula of a page's text and captions, with its line."""
    text = FRONT_MATTER.sub("", page.text)
    code = re.compile(r"^```\{code-cell\}.*?^```[ \t]*$|^```.*?^```[ \t]*$", re.M | re.S)
    for cell in page.cells:
        caption = str(cell.settings.get("figure", {}).get("caption", ""))
        for found in FORMULA.finditer(caption):
            yield cell.line, found[1] or found[2]
    offset = page.text.count("\n") - text.count("\n")
    text = code.sub(lambda found: "\n" * found[0].count("\n"), text)
    text = re.sub(r"`[^`\n]*`", "", text)
    for found in FORMULA.finditer(text):
        yield offset + text.count("\n", 0, found.start()) + 1, found[1] or found[2]


def letters(formula: str) -> Iterator[str]:
    """Yield its letters, each with its accent and star, and with its index if that is a name.

    An index that counts, as in w_k, is told as w_ whatever it is called, and is no letter itself.
    """
    formula = SIGN.sub(" ", WORDS.sub(" ", NAMED.sub(r"_{\1}", formula)))
    end = 0
    for found in LETTER.finditer(formula):
        if found.start() < end:
            continue  # within an index
        mark = MARK.match(formula, found.end())
        star, index = mark.groups() if mark else (None, None)
        end = mark.end() if mark else found.end()
        name = index if index and re.fullmatch(r"c|[a-z]{3,}", index.strip("{}")) else ""
        letter = re.sub(r"[{\s]", "", found[0]).replace("widehat", "hat").replace("overline", "bar")
        yield letter + ("*" if star else "") + (f"_{name.strip('{}')}" if index else "")
