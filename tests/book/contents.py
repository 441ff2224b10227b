"""The pages that _toc.yml names, in its order, without suffix: the root first."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PARTS = [(part, [entry["file"] for entry in part["chapters"]]) for part in TOC["parts"]]
LISTED = [TOC["root"], *(page for _, pages in PARTS for page in pages)]
NUMBERED = [page for part, pages in PARTS if part.get("numbered") for page in pages]
CASEBOOK = "book/casebook"  # a chapter of another kind: many short cases
CHAPTERS = [page for page in NUMBERED if not page.startswith("book/further/") and page != CASEBOOK]
