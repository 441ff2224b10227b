"""The French glossary has each French word of the notation page, with what stands beside it there.

`python -m tests.book.test_glossaire` prints the entries as they should stand, in French order.
"""

import re
import unicodedata

import pytest

from tests.book.contents import ROOT
from tests.book.markup import Page

NOTATION, GLOSSAIRE = (Page(ROOT / f"book/{page}.md") for page in ("notation", "fr/glossaire"))
TABLE = re.compile(r"^\| (symbol|name) \|.*\n\| ---.*\n((?:\|.*\n)+)", re.M)
ENTRY = re.compile(r"^(?P<word>\S.*)\n: (?P<names>.*?)\. (?P<meaning>\S.*)$", re.M)
NAME = re.compile(r"`[^`]+`")


def in_french_order(word: str) -> tuple[str, str]:
    """Sort by the letters; their accents, hyphens and apostrophes tell equal words apart."""
    letters = unicodedata.normalize("NFD", re.sub(r"\$[^$]*\$", "", word).casefold())
    return re.sub(r"[\W_]+", " ", re.sub(r"[\u0300-\u036f]", "", letters)), word


def entries() -> dict[str, str]:
    """Return each French word of the notation page with its English one, symbol and names."""
    found = {}
    for kind, table in TABLE.findall(NOTATION.text):
        for line in table.splitlines():
            first, words, code, french = (cell.strip() for cell in line[1:].split("|")[:4])
            english = re.split("[:;,] ", words.replace("**", ""))[0]
            symbol = first if kind == "symbol" else ""
            names = NAME.findall(code if kind == "symbol" else first + code)
            said = [f"[{english}]{{.language-en}}", symbol, *dict.fromkeys(names)]
            if french:
                found[french] = ", ".join(filter(None, said))
    return dict(sorted(found.items(), key=lambda entry: in_french_order(entry[0])))


def in_glossary() -> dict[str, str]:
    return {entry["word"]: entry["names"] for entry in ENTRY.finditer(GLOSSAIRE.text)}


def test_the_glossary_has_the_words_of_the_notation_page() -> None:
    expected, found = entries(), in_glossary()
    wrong = [
        f"{GLOSSAIRE}: “{word}” should stand beside {expected.get(word, 'nothing')}, "
        f"not {found.get(word, 'nothing')}"
        for word in expected.keys() | found.keys()
        if expected.get(word) != found.get(word)
    ]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
    assert len(expected) > 80


def test_the_glossary_is_sorted_in_french() -> None:
    assert list(in_glossary()) == list(entries())
    words = ["écrêtage", "écart-type", "ensemble", "écart au", "époque", "graine"]
    in_order = ["écart au", "écart-type", "écrêtage", "ensemble", "époque", "graine"]
    assert sorted(words, key=in_french_order) == in_order


if __name__ == "__main__":
    for word, said in entries().items():
        print(f"{word}\n: {said}.", end="\n\n")
