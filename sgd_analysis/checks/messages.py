"""What a check has found, and how it is said in a language."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, TypeVar

from sgd_analysis._random_state import undisturbed
from sgd_analysis.checks.english import ENGLISH
from sgd_analysis.checks.french import FRENCH

Student = TypeVar("Student")
_POWER = re.compile(r"e([-+]\d+)")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Said:
    """A sentence by its key, and what it quotes: values, and others of its kind.

    Numbers, and tuples of them, are written as the language does; a string stays what it is.
    """

    def __init__(self, key: str, /, **values: object) -> None:
        self.key, self.values = key, values


class NotYet(Exception):
    """What keeps a function from being right: a sentence, or its key and what it quotes."""

    def __init__(self, what: Said | str, /, **values: object) -> None:
        super().__init__(what)
        self.said = Said("not_yet", what=what if isinstance(what, Said) else Said(what, **values))


class Language(Formatter):
    """The sentences of a language, and how it writes the numbers in them.

    Args:
        sentences: by their keys.
        marks: what it writes for the marks in Python's numbers.
        between: what it writes between two numbers.
    """

    def __init__(self, sentences: Mapping[str, str], marks: dict[str, str], between: str) -> None:
        self.sentences = sentences
        self._marks, self._between = str.maketrans(marks), between

    def sentence(self, said: Said) -> str:
        """Return a sentence with all that it quotes."""
        return self.vformat(self.sentences[said.key], (), said.values)

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return what stands in a sentence for a value."""
        if isinstance(value, Said):
            return self.sentence(value)
        if isinstance(value, tuple):
            return self._between.join(self.format_field(one, format_spec) for one in value)
        if isinstance(value, int) and value >= 10_000:
            format_spec = ","
        text = format(value, format_spec)
        if isinstance(value, int | float):
            text = _POWER.sub(lambda e: "·10" + str(int(e[1])).translate(_RAISED), text)
            return text.translate(self._marks)
        return text


LANGUAGES = {
    "en": Language(ENGLISH, {"-": "−"}, ", "),
    "fr": Language(FRENCH, {"-": "−", ".": ",", ",": "\u202f"}, "\u202f; "),
}


def told(check: Callable[[Student], Said], function: Student, language: str) -> str:
    """Return in a sentence what a check finds, and leave the global random states as they were.

    Args:
        check: returns that the function is right.
        function: what it looks at.
        language: a key of `LANGUAGES`.

    Returns:
        The sentence.

    Raises:
        ValueError: if there is no such language.
    """
    if language not in LANGUAGES:
        known = " or ".join(f'"{name}"' for name in LANGUAGES)
        raise ValueError(f"language must be {known}, got {language!r}")
    with undisturbed(None):
        try:
            said = check(function)
        except NotYet as found:
            said = found.said
    return LANGUAGES[language].sentence(said)
