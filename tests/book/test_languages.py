"""A French page is French in all that is written on it, and leads to its English twin."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag

from tests.book.small_books import CELL, FRONT_MATTER, PAGES, ROOT, build, html, make_book

sys.path.append(str(ROOT / "book/_ext"))
languages = importlib.import_module("book_languages")
numbers = importlib.import_module("book_numbers")
plain = importlib.import_module("plain_notebook")

THIN = "\u202f"
GLUED = CELL.format(
    source="""\
from myst_nb import glue

glue("many", 1234567.5, display=False)
glue("version", "1.5", display=False)"""
)
FRENCH = (
    FRONT_MATTER.replace("# A measured page", "# La feuille")
    + GLUED
    + """
Il y en a {glue:text}`feuille-de-travail.md::many:.1f`, soit {glue:text}`../measured.md::value:.1%`
(version {glue:text}`feuille-de-travail.md::version:s`), selon {cite:t}`robbins1951`.

```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure:
    name: fig-line-fr
    caption: |
      **Une droite de {glue:text}`feuille-de-travail.md::many:.0f` points.**
  image:
    alt: Une droite.
---
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.plot([0, 1], [0, 1]);
```

% de book/worksheet.md 00000000
:::{exercise} Au crayon
:label: ex-fr

% de book/worksheet.md 00000000
Tracez {numref}`fig-line-fr` comme dans {numref}`ex-line` et [ailleurs](../measured.md).
:::

:::{solution-start} ex-fr
:label: sol-fr
:class: dropdown
:::

```{code-cell} ipython3
print("fait")
```

:::{solution-end}
:::

:::{prf:theorem}
:label: thm-fr
Une droite monte.
:::

:::{prf:proof}
Voir {prf:ref}`thm-fr`.
:::
"""
)
ENGLISH = FRONT_MATTER.replace("# A measured page", "# The worksheet") + "\nSee {numref}`ex-fr`.\n"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pages = PAGES | {"worksheet": ENGLISH, "fr/feuille-de-travail": FRENCH}
    root = make_book(tmp_path_factory.mktemp("languages"), pages)
    result = build(root)
    assert result.returncode == 0, result.stdout
    return root


def article(book: Path, page: str) -> Tag:
    found = BeautifulSoup(html(book, page), "html.parser").find("article")
    assert isinstance(found, Tag)
    return found


@pytest.fixture(scope="module")
def french(book: Path) -> Tag:
    return article(book, "fr/feuille-de-travail")


def texts(part: Tag, selector: str) -> list[str]:
    return [" ".join(found.get_text().split()) for found in part.select(selector)]


# What a page says


def test_the_text_of_a_french_page_is_marked_as_french_and_no_other(book: Path) -> None:
    languages = {
        page: article(book, page).section for page in ("measured", "fr/feuille-de-travail")
    }
    assert [section.get("lang") for section in languages.values() if section] == [None, "fr"]
    assert '<html lang="en"' in html(book, "fr/feuille-de-travail")


def test_what_tools_write_on_a_french_page_is_french(french: Tag) -> None:
    assert texts(french, ".caption-number") == ["Fig. 2", "Exercice 2", "Théorème 2"]
    assert texts(french, "summary.admonition-title") == ["Solution"]
    assert texts(french, "div.proof:not(.theorem) em") == ["Démonstration."]
    assert texts(french, "a.reference") == [
        *("1951", "Fig. 2", "Exercice 1", "ailleurs", "Théorème 2")
    ]
    assert texts(french, "details.hide .admonition-title") == [
        *("Afficher le code de cette figure", "Masquer le code de cette figure")
    ]
    assert {link["title"] for link in french.select("a.headerlink")} == {
        *("Lien vers ce titre", "Lien vers cette figure")
    }
    assert "Robbins et Monro" in french.get_text()


def test_an_english_page_stays_english_even_where_it_refers_to_a_french_one(book: Path) -> None:
    assert "See Exercise 2." in article(book, "worksheet").get_text()
    assert "Robbins and Monro" in article(book, "measured").get_text()


def test_glued_numbers_are_written_as_their_page_writes_numbers(french: Tag) -> None:
    assert [found.get_text() for found in french.select(".pasted-text")] == [
        f"1{THIN}234{THIN}567,5",
        f"4100,0{THIN}%",
        "1.5",  # a string
        f"1{THIN}234{THIN}568",
    ]


@pytest.mark.parametrize(
    ("glued", "form", "shown"),
    [
        ("9340", "d", "9340"),
        ("-12345.6", ".1f", f"−12{THIN}345,6"),
        ("1.37225e43", ".3e", "1,372·10⁴³"),
        ("0.85", ".0%", f"85{THIN}%"),
        ("'2.0, or so'", "s", "2.0, or so"),
    ],
)
def test_a_number_in_french(glued: str, form: str, shown: str) -> None:
    assert numbers.format_plain_text(glued, form, french=True) == shown


def test_on_the_page_to_print_only_the_french_pages_are_in_french() -> None:
    english = "<section><p>Exercise 1</p><section><p>Exercise 2</p></section></section>"
    french = english.replace("<section>", '<section id="a" lang="fr">', 1)
    assert languages.in_french(english + french + english) == (
        english + french.replace("Exercise", "Exercice") + english
    )


# The way to the other language


@pytest.mark.parametrize(
    ("page", "language", "name", "twin"),
    [
        ("worksheet", "fr", "Français", "fr/feuille-de-travail.html"),
        ("fr/feuille-de-travail", "en", "English", "../worksheet.html"),
    ],
)
def test_a_page_leads_to_its_twin(
    book: Path, page: str, language: str, name: str, twin: str
) -> None:
    link = article(book, page).select_one(".other-language a")
    assert link
    assert (link["hreflang"], link["lang"], link.get_text()) == (language, language, name)
    assert link["href"] == twin


def test_a_page_without_a_twin_leads_nowhere(book: Path) -> None:
    assert not article(book, "measured").select(".other-language")


def test_the_link_to_the_twin_is_no_part_of_what_the_search_reads(book: Path) -> None:
    index = (book / "_build/html/search-index.js").read_text(encoding="utf-8")
    assert "La feuille" in index and "Français" not in index


# The notebooks of a French page


def notebook(book: Path, name: str) -> list[str]:
    path = book / f"_build/html/_sources/book/fr/{name}.ipynb"
    return [cell["source"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def test_the_notebook_of_a_french_page_is_french(book: Path) -> None:
    opening, _, glue, *cells = notebook(book, "feuille-de-travail-solved")
    assert opening.startswith("*Ce notebook est une page du livre*")
    assert "avec ses solutions" in opening and "dans le dossier du dessus" in opening
    assert "`matplotlibrc` doit être" in opening
    assert "Cite une valeur" in glue
    text = "\n".join(cells)
    for written in (
        f"soit 4100,0{THIN}%\n(version 1.5), selon Robbins et Monro (1951).",
        f"**Fig. 2.** **Une droite de 1{THIN}234{THIN}568 points.**",
        "> **Exercice 2** (Au crayon)",
        "Tracez Fig. 2 comme dans Exercice 1 et [ailleurs](../measured.ipynb).",
        "**Solution de l’exercice 2**",
        "> **Théorème 2**",
        "*Démonstration.* Voir Théorème 2. ∎",
    ):
        assert written in text
    assert "% de" not in text


def test_the_notebook_to_do_of_a_french_page_asks_in_french(book: Path) -> None:
    cells = notebook(book, "feuille-de-travail")
    assert f"sans ses solutions{THIN}; à vous" in cells[0]
    assert "# Votre réponse" in cells and 'print("fait")' not in cells


def test_the_solution_of_a_box_is_named_in_french() -> None:
    names = plain.Names(numbers={"ex-fr": ("exercise", "2")}, french=True)
    shown = plain.plain_markdown(":::{solution} ex-fr\n:label: sol-fr\n\nOui.\n:::", names)
    assert "<summary>Solution de l’exercice 2</summary>" in shown
