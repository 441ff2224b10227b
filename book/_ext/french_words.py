"""French for what the book's tools write by themselves, and where it is written."""

from __future__ import annotations

FOLDER = "book/fr/"
TWINS = {  # a page, and what says the same in French
    "book/index": f"{FOLDER}reponses",
    "book/worksheet": f"{FOLDER}feuille-de-travail",
    "book/notation": f"{FOLDER}glossaire",
    "book/notes-on-the-source": f"{FOLDER}notes-sur-le-notebook",
}
ENGLISH = {french: english for english, french in TWINS.items()}
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
FRAME = {  # what stands around a page's text, and is not a title
    "Skip to main content": "Aller au contenu",
    "Search this book...": "Rechercher dans ce livre…",
    "Search this book": "Rechercher dans ce livre",
    "Search": "Rechercher",
    "Home": "Accueil",
    "Main": "Plan du livre",
    "Toggle primary sidebar": "Plan du livre",
    "Toggle secondary sidebar": "Sommaire de la page",
    "Download this page": "Télécharger cette page",
    "Download notebook file": "Télécharger le notebook",
    "Download the notebook without solutions": "Télécharger le notebook sans solutions",
    "Download the notebook with its solutions": "Télécharger le notebook avec solutions",
    "to do .ipynb": "à faire .ipynb",
    "solved .ipynb": "résolu .ipynb",
    "Download source file": "Télécharger le texte source",
    "Print to PDF": "Imprimer ou enregistrer en PDF",
    "Fullscreen mode": "Plein écran",
    "Colours:": "Couleurs\u00a0:",
    "light": "claires",
    "dark": "sombres",
    "as the system": "celles du système",
    "Contents": "Sommaire",
    "Page": "Sommaire de la page",
    "previous page": "page précédente",
    "next page": "page suivante",
    "previous": "précédente",
    "next": "suivante",
    "Text:": "Texte\u00a0:",
    ". Code:": ". Code\u00a0:",
    "By The sgd_analysis contributors": "Par les contributeurs de sgd_analysis",
    "Back to top": "Haut de la page",
    "Version warning": "Avertissement de version",
}


def is_french(page: str) -> bool:
    return page.startswith(FOLDER)


def french_number(number: str) -> str:
    """Write a number that is formatted in English, 12,345.6%, as it is in French: 12 345,6 %."""
    number = number.replace(",", NARROW_SPACE).replace(".", ",")
    return number.replace("%", f"{NARROW_SPACE}%")


def french_authors(authors: str) -> str:
    return authors.replace(" and ", " et ")
