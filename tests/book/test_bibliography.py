"""The bibliography as a reader sees it: its links, and the capitals of names."""

from pathlib import Path

import pytest
from pybtex.backends.html import Backend
from pybtex.database import Entry, parse_file
from pybtex.style.formatting.unsrt import Style

ENTRIES = parse_file(Path(__file__).parents[2] / "book/references.bib").entries
LEADS_TO = {"doi": "https://doi.org/{}", "eprint": "https://arxiv.org/abs/{}", "url": "{}"}
NAMES = ("Kaczmarz", "Newton", "Lyapunov", "RMSprop", "Adam", "SGD")


def shown(entry: Entry) -> str:
    (formatted,) = Style().format_entries([entry])
    return str(formatted.text.render(Backend()))


@pytest.mark.parametrize("key", ENTRIES)
def test_a_reference_leads_to_where_it_can_be_read(key: str) -> None:
    entry = ENTRIES[key]
    for field, address in LEADS_TO.items():
        if field in entry.fields:
            assert f'href="{address.format(entry.fields[field])}"' in shown(entry)
    assert "arXiv" not in entry.fields.get("note", ""), "an arXiv number is an eprint"


@pytest.mark.parametrize("key", ENTRIES)
def test_a_name_in_a_title_keeps_its_capital(key: str) -> None:
    title = ENTRIES[key].fields["title"].replace("{", "").replace("}", "")
    for name in NAMES:
        assert shown(ENTRIES[key]).count(name) >= title.count(name)
