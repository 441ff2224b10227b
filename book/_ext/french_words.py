"""French for what the book's tools write by themselves, and where it is written."""

from __future__ import annotations

FOLDER = "book/fr/"
TWINS = {  # a page, and what says the same in French
    "book/index": f"{FOLDER}reponses",
    "book/worksheet": f"{FOLDER}feuille-de-travail",
    "book/notation": f"{FOLDER}glossaire",
    "book/notes-on-the-source": f"{FOLDER}notes-sur-le-notebook",
}
NARROW_SPACE = "\u202f"  # between thousands; before ; ! ? %
KINDS = {
    "Corollary": "Corollaire",
    "Definition": "Définition",
    "Example": "Exemple",
    "Exercise": "Exercice",
    "Lemma": "Lemme",
    "Proposition": "Proposition",
    "Remark": "Remarque",
    "Theorem": "Théorème",
}
PROOF = "Démonstration."


def is_french(page: str) -> bool:
    return page.startswith(FOLDER)


def french_number(number: str) -> str:
    """Write a number that is formatted in English, 12,345.6%, as it is in French: 12 345,6 %."""
    number = number.replace(",", NARROW_SPACE).replace(".", ",")
    return number.replace("%", f"{NARROW_SPACE}%")


def french_authors(authors: str) -> str:
    return authors.replace(" and ", " et ")
