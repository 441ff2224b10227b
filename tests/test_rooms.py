"""The house keeps its shape: data flows one way through its rooms, and the README names them."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sgd_analysis"
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What each room may use, besides the helpers at the top level and what those rooms use.
ROOMS = {
    "history": [],
    "diagnosis": ["history"],
    "recording": ["history"],
    "frameworks": ["recording"],
    "surveying": ["history"],
    "curvature": ["surveying"],
    "problems": ["surveying"],
    "training": ["recording", "problems"],
    "ensemble": ["training"],
    "theory": ["problems"],
    "checks": ["problems"],
}
READ_AS_A_WHOLE = ["checks"]  # whose names are read from the room, not from `sgd_analysis`


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path):
    """Return the modules of the package that a file imports, also for types or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (named & MODULES.keys()) or {str(node.module)}
    return found & MODULES.keys()


USES = {name: imports(path) for name, path in MODULES.items()}


def room_of(name):
    _, *inside = name.split(".")
    return inside[0] if len(inside) == 2 or (inside and inside[0] in ROOMS) else ""


def may_use(room):
    return {room}.union(*(may_use(other) for other in ROOMS[room]))


def test_every_folder_is_a_room_that_says_what_it_is_for():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == ROOMS.keys()
    for room in rooms:
        tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
        first = str(ast.get_docstring(tree)).split("\n\n")[0]
        assert len(tree.body) == 1 or room in READ_AS_A_WHOLE, room
        assert re.fullmatch(r"[A-Z][^.]*\.", first), room


def test_no_module_comes_back_to_itself_by_way_of_others():
    inner = {name: used for name, used in USES.items() if name != "sgd_analysis"}
    assert len([*TopologicalSorter(inner).static_order()]) >= len(inner)  # or raises CycleError


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name)])
def test_a_module_uses_no_room_that_comes_after_its_own(name):
    used = {room_of(other) for other in USES[name] if room_of(other)}
    assert used <= may_use(room_of(name))
    assert "sgd_analysis" not in USES[name], "import what is meant from its own module"


@pytest.mark.parametrize("name", [n for n in MODULES if n.count(".") == 1 and not room_of(n)])
def test_what_all_rooms_share_uses_none_of_them(name):
    used = {room_of(other) for other in USES[name] if room_of(other)}
    assert not used or name in ("sgd_analysis.figures", "sgd_analysis.__main__")


def test_the_tests_have_the_same_folders():
    folders = {path.name for path in (ROOT / "tests").iterdir() if [*path.glob("test_*.py")]}
    assert folders == ROOMS.keys() | {"book", "benchmarks"}


def test_every_file_that_the_readme_tells_a_contributor_of_is_there():
    section = README.partition("## Contribute")[2].partition("## Cite")[0]
    paths = re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:md|yml|toml|bib))`", section)
    assert len(paths) > 15
    for path in paths:
        if path != "book/my-question":
            place = PACKAGE if path.rstrip("/") in ROOMS else ROOT
            assert (place / path).exists() or path.startswith(".venv/"), path


def test_the_readme_lists_the_rooms_in_their_order():
    listed = re.findall(r"^\| `(\w+)/` \|", README, re.M)
    assert listed == [*ROOMS]
