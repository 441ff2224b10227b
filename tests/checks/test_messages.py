import re
import string
from pathlib import Path

from sgd_analysis import checks
from sgd_analysis.checks.messages import ENGLISH

SOURCE = {path.name: path.read_text("utf-8") for path in Path(checks.__file__).parent.glob("*.py")}


def test_every_sentence_is_said_somewhere():
    code = "".join(text for name, text in SOURCE.items() if name != "messages.py")
    code += SOURCE["messages.py"].partition("class Said")[2]
    assert [key for key in ENGLISH if f'"{key}"' not in code] == []


def test_a_sentence_begins_small_and_ends_without_a_full_stop():
    for key, sentence in ENGLISH.items():
        assert not re.match(r"[A-Z][a-z]", sentence) and not sentence.endswith("."), key


def test_values_have_names_by_which_a_translation_may_order_them():
    for key, sentence in ENGLISH.items():
        assert all(name is None or name for _, name, *_ in string.Formatter().parse(sentence)), key
