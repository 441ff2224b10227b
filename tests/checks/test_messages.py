import re
import string
from pathlib import Path

import pytest

from sgd_analysis import checks
from sgd_analysis.checks.english import ENGLISH
from sgd_analysis.checks.errors import _HINTS
from sgd_analysis.checks.french import FRENCH
from sgd_analysis.checks.messages import LANGUAGES, Said

ROOM = Path(checks.__file__).parent
TABLES = pytest.mark.parametrize("table", [ENGLISH, FRENCH], ids=["English", "French"])


def fields(sentence):
    return {name for _, name, *_ in string.Formatter().parse(sentence) if name is not None}


def test_every_sentence_is_said_somewhere():
    finders = [path for path in ROOM.glob("*.py") if path.name not in ("english.py", "french.py")]
    code = "".join(path.read_text("utf-8") for path in finders)
    assert [key for key in ENGLISH if f'"{key}"' not in code] == []


@TABLES
def test_a_sentence_begins_small_and_ends_without_a_full_stop(table):
    for key, sentence in table.items():
        assert not re.match(r"[A-Z][a-z]", sentence) and not sentence.endswith("."), key


@TABLES
def test_a_hint_that_stands_before_an_error_is_no_question(table):
    assert [hint for hint in _HINTS.values() if table[hint].endswith("?")] == []


@TABLES
def test_values_have_names_by_which_a_translation_may_order_them(table):
    for key, sentence in table.items():
        assert "" not in fields(sentence), key


def test_french_has_the_same_sentences_in_the_same_order_with_the_same_values():
    assert [*FRENCH] == [*ENGLISH]
    for key, sentence in FRENCH.items():
        assert fields(sentence) == fields(ENGLISH[key]), key


def test_french_marks_have_their_spaces_and_its_quotes_are_its_own():
    for key, sentence in FRENCH.items():
        prose = re.sub(r"\{[^}]*\}", "…", sentence).replace("t[:, ", "")
        assert not re.search(r"(?<!\u202f)[;!?»]|«(?!\u202f)|(?<!\u00a0):|[“”\"]", prose), key


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "it prints 12,000 lines for 9340 samples"),
        ("fr", "la fonction affiche 12\u202f000 lignes pour 9340 échantillons\u202f;"),
    ],
)
def test_thousands_are_separated_from_five_digits_on(language, expected):
    said = Said("n_lines", n=12_000, expected=9340)
    assert LANGUAGES[language].sentence(said).startswith(expected)


@pytest.mark.parametrize("check", [getattr(checks, name) for name in checks.__all__])
def test_every_check_speaks_french_and_refuses_a_language_that_it_does_not_speak(check):
    expected = "pas encore\u00a0: donnez la fonction elle-même, sans l'appeler\u202f; ceci est 0.5"
    assert check(0.5, language="fr") == expected
    with pytest.raises(ValueError, match=r'^language must be "en" or "fr", got .de.$'):
        check(0.5, language="de")
