"""A French page is French in all that is written on it, and leads to its English twin."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup, Tag

from tests.book.small_books import CELL, FRONT_MATTER, PAGES, ROOT, build, digests, html, make_book

sys.path.append(str(ROOT / "book/_ext"))
languages = importlib.import_module("book_languages")
numbers = importlib.import_module("book_numbers")
plain = importlib.import_module("plain_notebook")
frame = importlib.import_module("book_frame")

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
:label: ex-line-fr

% de book/worksheet.md 00000000
Tracez {numref}`fig-line-fr` comme dans {numref}`ex-line` et [ailleurs](../measured.md).
:::

:::{solution-start} ex-line-fr
:label: sol-line-fr
:class: dropdown
:::

```{code-cell} ipython3
print("fait")
```

:::{solution-end}
:::

:::{prf:theorem}
:label: thm-line-fr
Une droite monte.
:::

:::{prf:proof}
Voir {prf:ref}`thm-line-fr`.
:::
"""
)
ENGLISH = (
    FRONT_MATTER.replace("# A measured page", "# The worksheet") + "\nSee {numref}`ex-line-fr`.\n"
)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pages = PAGES | {"worksheet": ENGLISH, "fr/feuille-de-travail": FRENCH, "after": "# After\n"}
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


def test_a_french_page_is_marked_as_french_and_no_other(book: Path) -> None:
    for page, language, of_text in (
        ("measured", "en", None),
        ("fr/feuille-de-travail", "fr", "fr"),
    ):
        assert f'<html lang="{language}"' in html(book, page)
        section = article(book, page).section
        assert section and section.get("lang") == of_text


def test_what_tools_write_on_a_french_page_is_french(french: Tag) -> None:
    assert texts(french, ".caption-number") == ["Fig. 1", "Exercice 1", "Théorème 1"]
    assert texts(french, "summary.admonition-title") == ["Solution"]
    assert texts(french, "div.proof:not(.theorem) em") == ["Démonstration."]
    assert texts(french, "a.reference") == [
        *("1951", "Fig. 1", "Exercice 1", "ailleurs", "Théorème 1")
    ]
    assert texts(french, "details.hide .admonition-title") == [
        *("Afficher le code de cette figure", "Masquer le code de cette figure")
    ]
    assert {link["title"] for link in french.select("a.headerlink")} == {
        *("Lien vers ce titre", "Lien vers cette figure")
    }
    assert "Robbins et Monro" in french.get_text()


def test_an_english_page_stays_english_even_where_it_refers_to_a_french_one(book: Path) -> None:
    assert "See Exercise 1." in article(book, "worksheet").get_text()
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


def test_a_line_does_not_break_between_a_formula_and_the_mark_after_its_space() -> None:
    formula = '<span class="math notranslate nohighlight">\\(x\\)</span>'
    cures = importlib.import_module("book_html").CURES
    for after in (f"{THIN};", "\u00a0:", ")\u00a0:", ".", f"{THIN}»."):
        text = f"soit {formula}{after} et"
        for pattern, replacement in cures:
            text = pattern.sub(replacement, text)
        assert text == f'soit <span class="unbroken">{formula}{after}</span> et'


# The numbers of what says the same


def test_what_says_the_same_in_french_has_the_same_number(french: Tag, book: Path) -> None:
    english = texts(article(book, "measured"), ".caption-number")
    assert english == ["Fig. 1", "Exercise 1", "Theorem 1"]
    assert texts(french, ".caption-number") == ["Fig. 1", "Exercice 1", "Théorème 1"]


def test_what_has_no_english_twin_keeps_its_own_number() -> None:
    numbers = {
        "book/a": {"figure": {"fig-a": (2, 1)}},
        "book/fr/b": {"figure": {"fig-a-fr": (4,), "fig-b-fr": (5,)}, "exercise": {"fig-a": (6,)}},
    }
    languages.share_numbers(None, SimpleNamespace(env=SimpleNamespace(toc_fignumbers=numbers)))
    assert numbers["book/fr/b"] == {
        "figure": {"fig-a-fr": (2, 1), "fig-b-fr": (5,)},
        "exercise": {"fig-a": (6,)},
    }


def test_a_build_in_which_nothing_has_changed_writes_nothing_anew(book: Path) -> None:
    before = digests(book)
    assert build(book).returncode == 0
    assert digests(book) == before


# What stands around the text


def around(book: Path, page: str) -> set[str]:
    """Return what is seen or said around a page's text: titles of pages aside."""
    whole = BeautifulSoup(html(book, page), "html.parser")
    for part in whole.select(
        "article, script, style, .bd-links a, .bd-toc, .prev-next-title, head"
    ):
        part.decompose()
    names = ("title", "aria-label", "placeholder")
    said = {str(tag[name]) for name in names for tag in whole.select(f"[{name}]")}
    return {*said, *whole.stripped_strings}


def test_what_stands_around_a_french_page_is_french(book: Path) -> None:
    page = "fr/feuille-de-travail"
    same = around(book, page) & around(book, "measured")
    names = {"Stochastic gradient descent, measured", "Ctrl", "+", "K", ".md", ".pdf", "html"}
    assert same - names == {"CC BY 4.0", "BSD-3-Clause", "."}
    assert {"Plein écran", "résolu .ipynb"} <= around(book, page)


def test_titles_in_the_other_language_are_marked_where_they_are_listed(book: Path) -> None:
    def listed(page: str) -> dict[str, tuple[str | None, str | None]]:
        links = BeautifulSoup(html(book, page), "html.parser").select(".bd-links a")
        return {
            link.get_text(" ").strip(): (link.get("lang"), link.get("hreflang")) for link in links
        }

    assert listed("measured")["La feuille"] == ("fr", "fr")
    assert listed("measured")["The worksheet"] == (None, None)
    assert listed("fr/feuille-de-travail")["La feuille"] == (None, None)
    assert listed("fr/feuille-de-travail")["The worksheet"] == ("en", "en")


def test_a_caption_of_the_contents_is_in_the_language_of_its_pages() -> None:
    caption = '<p class="caption"><span class="caption-text">{}</span></p><ul><li>'
    link = '<a class="reference internal" href="{}">x</a></li></ul>'
    contents = caption.format("One") + link.format("a.html")
    contents += caption.format("Deux") + link.format("fr/b.html")
    marked = frame.mark_contents(contents, "book/index")
    assert 'caption-text">One' in marked and 'caption-text" lang="fr">Deux' in marked
    marked = frame.mark_contents(contents.replace("fr/b.html", "#"), "book/fr/b")
    assert 'caption-text">Deux' in marked


def test_the_pages_before_and_after_are_those_of_the_same_language(book: Path) -> None:
    def beside(page: str) -> list[object]:
        links = BeautifulSoup(html(book, page), "html.parser").select(".prev-next-area a")
        return [link["href"] for link in links]

    pages = [*PAGES, "worksheet", "fr/feuille-de-travail", "after"]
    assert beside("fr/feuille-de-travail") == []
    assert beside("worksheet") == [f"{pages[-4]}.html", "after.html"]
    assert beside("after") == ["worksheet.html"]


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
    assert "avec ses solutions" in opening and "dans le dossier parent" in opening
    assert "`matplotlibrc` doit être" in opening
    assert "Cite une valeur" in glue
    text = "\n".join(cells)
    for written in (
        f"soit 4100,0{THIN}%\n(version 1.5), selon Robbins et Monro (1951).",
        f"**Fig. 1.** **Une droite de 1{THIN}234{THIN}568 points.**",
        "> **Exercice 1** (Au crayon)",
        "Tracez Fig. 1 comme dans Exercice 1 et [ailleurs](../measured.ipynb).",
        "**Solution de l’exercice 1**",
        "> **Théorème 1**",
        "*Démonstration.* Voir Théorème 1. ∎",
    ):
        assert written in text
    assert "% de" not in text


def test_the_notebook_to_do_of_a_french_page_asks_in_french(book: Path) -> None:
    cells = notebook(book, "feuille-de-travail")
    assert f"sans ses solutions{THIN}; à vous" in cells[0]
    assert "# Votre réponse" in cells and 'print("fait")' not in cells


def test_the_solution_of_a_box_is_named_in_french() -> None:
    names = plain.Names(numbers={"ex-line-fr": ("exercise", "2")}, french=True)
    shown = plain.plain_markdown(
        ":::{solution} ex-line-fr\n:label: sol-line-fr\n\nOui.\n:::", names
    )
    assert "<summary>Solution de l’exercice 2</summary>" in shown
