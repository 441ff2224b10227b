import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sgd_analysis

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci/run").read_text(encoding="utf-8")
LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]

TOP_LEVEL = {
    "CITATION.cff",
    "LICENSE",
    "README.md",
    "_config.yml",
    "_toc.yml",
    "book",
    "pyproject.toml",
    "requirements.txt",
    "sgd_analysis",
    "tests",
}
MACHINE = re.compile(r"(?<![\w.$}])/(?:home|root|tmp|opt|mnt|work|Users)/\w")
INDEX = re.compile(r"pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]org|npmjs[.]org")


def readme_commands(root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", ".ci/run", "--commands"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def locked_lines() -> list[str]:
    lines = (line.split(" #")[0].strip() for line in LOCK.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def locked() -> dict[str, Version]:
    """The version that requirements.txt pins, by canonical name."""
    pins = {}
    for requirement in map(Requirement, filter(lambda line: line != "-e .", locked_lines())):
        (specifier,) = requirement.specifier
        pins[canonicalize_name(requirement.name)] = Version(specifier.version)
    return pins


def tracked() -> list[str]:
    """The repository's files, those not yet added included; skips outside a git checkout."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not in a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# The README's two commands


def test_ci_takes_the_two_commands_from_the_readme():
    build, test = readme_commands().stdout.splitlines()
    for command in (build, test):
        assert f"\n```sh\n{command}\n```\n" in README
        assert command.startswith("python3 .ci/python && python3 -m venv .venv && ")
        assert " -m pip install -r requirements.txt && " in command
    assert build.endswith(".venv/bin/jupyter-book build . -W -n --keep-going")
    assert test.endswith(".venv/bin/python -m pytest -n 2 --dist loadfile")


BUILD = "```sh\njupyter-book build . -W -n --keep-going\n```\n"
TEST = "```sh\npython -m pytest\n```\n"


def ci_for(readme: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What .ci/run says about another README."""
    (folder / ".ci").mkdir()
    (folder / ".ci/run").write_text(CI, encoding="utf-8")
    (folder / "README.md").write_text(readme, encoding="utf-8")
    return readme_commands(folder)


@pytest.mark.parametrize(
    "between",
    [
        "",
        "text\n",
        "```python\nimport this\n```\n",
        "~~~\n```sh\nquoted\n~~~\n",
        "````md\n```sh\nquoted\n```\n````\n",
    ],
)
def test_ci_reads_past_what_is_no_shell_block(between, tmp_path):
    result = ci_for(f"# Title\n{BUILD}{between}{TEST}", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [block.splitlines()[1] for block in (BUILD, TEST)]


@pytest.mark.parametrize(
    ("readme", "complaint"),
    [
        ("no block at all\n", "found 0"),
        (BUILD, "found 1"),
        (BUILD + TEST + TEST, "found 3"),
        (TEST + BUILD, "should build the book strictly"),
        (BUILD.replace(" -W", "") + TEST, "should build the book strictly"),
        (BUILD + BUILD, "should run the tests"),
        (BUILD + TEST.replace("```sh", "```bash"), "at the left margin, as sh"),
        (BUILD + TEST + "  ```sh\n  make\n  ```\n", "at the left margin, as sh"),
        (BUILD + TEST + "~~~console\n$ make\n~~~\n", "at the left margin, as sh"),
        (BUILD.replace("\n```\n", "\nmake\n```\n") + TEST, "this one holds 2"),
        (BUILD + "```sh\n```\n", "this one holds 0"),
        (BUILD + TEST.removesuffix("```\n"), "not closed"),
    ],
)
def test_ci_refuses_a_readme_without_exactly_two_commands(readme, complaint, tmp_path):
    result = ci_for(readme, tmp_path)
    assert result.returncode != 0
    assert not result.stdout
    assert complaint in result.stderr


@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        ((2, 7, 18), "Python 3.11 or newer is needed, and this is Python 2.7: "),
        ((3, 10, 14), "Python 3.11 or newer is needed, and this is Python 3.10: "),
        ((3, 11, 0), ""),
        ((3, 14, 0), ""),
    ],
)
def test_an_older_python_is_told_what_is_needed_in_a_sentence(version, complaint):
    # pip stopped at a dependency, with a list of versions.
    code = f"import sys; sys.version_info = {version}; exec(open('.ci/python').read())"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr.startswith(complaint)
    assert len(result.stderr.splitlines()) == result.returncode == bool(complaint)


def test_the_readme_and_the_package_need_the_same_python():
    needed = PROJECT["requires-python"].removeprefix(">=")
    assert f"NEEDED = ({needed.replace('.', ', ')})\n" in (ROOT / ".ci/python").read_text("utf-8")
    assert f"With Python {needed} or newer" in README
    assert SETTINGS["tool"]["ruff"]["target-version"] == f"py{needed.replace('.', '')}"
    assert SETTINGS["tool"]["mypy"]["python_version"] == needed


def test_ci_turns_off_the_vector_instructions_as_the_readme_says():
    found = re.search(r'^without_vectors="(.+)"$', CI, re.M)
    assert found
    assert f"\n{found[1]}\n" in README
    assert '"$without_vectors .venv/bin/python -m pytest ' in CI


def test_pre_commit_and_github_run_what_ci_runs():
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    steps = re.findall(r'step "[^"]+" "(.venv/bin/[^"]+)"', CI)
    assert steps == [".venv/bin/ruff check", ".venv/bin/ruff format --check", ".venv/bin/mypy"]
    assert hooks == steps
    assert "run: bash .ci/run\n" in (ROOT / ".github/workflows/book.yml").read_text("utf-8")


def test_ci_adds_the_frameworks_last_and_leaves_what_is_pinned():
    before, found, after = CI.partition('install -q -c "$work/pins" -e ".[frameworks]"')
    assert found and 'step "mypy"' in before
    assert 'requirements.txt >"$work/pins"' in before
    assert 'step "loops of frameworks"' in after and " tests/frameworks" in after


# The locked environment


def test_the_lock_pins_exact_versions_and_installs_the_package_editable():
    lines = locked_lines()
    assert lines.count("-e .") == 1
    for line in lines:
        if line != "-e .":
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
    assert len(locked()) == len(lines) - 1


def test_the_lock_names_neither_an_index_nor_a_machine():
    assert not INDEX.search(LOCK)
    assert "://" not in LOCK
    assert "--" not in LOCK  # no option of pip but -e


def test_the_lock_meets_every_requirement_of_every_extra_but_the_frameworks():
    pins = locked()
    extras = {**PROJECT["optional-dependencies"]}
    assert extras.pop("frameworks")
    for text in [*PROJECT["dependencies"], *(text for extra in extras.values() for text in extra)]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            assert requirement.extras <= PROJECT["optional-dependencies"].keys()
            continue
        name = canonicalize_name(requirement.name)
        assert name in pins, f"requirements.txt lacks {text}: compile it again, see README.md"
        assert requirement.specifier.contains(pins[name], prereleases=True), text


@pytest.mark.skipif(sys.platform != "linux", reason="compiled for Linux")
def test_the_lock_holds_what_its_packages_need_in_turn():
    pins = locked()
    seen = 0
    for name, pin in pins.items():
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        version = Version(distribution.version)
        if version.public != pin.public or (name == "torch" and version.local != "cpu"):
            continue  # not the locked environment; PyTorch with CUDA needs more
        seen += 1
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                needed_name = canonicalize_name(needed.name)
                assert needed_name in pins, f"{name} needs {text}"
                assert needed.specifier.contains(pins[needed_name], prereleases=True), text
    assert seen


def test_the_package_asks_for_lower_bounds_only():
    for text in PROJECT["dependencies"]:
        assert [bound.operator for bound in Requirement(text).specifier] == [">="], text


# The package


def test_the_installed_version_is_the_version_of_the_source():
    assert metadata.version("sgd-analysis") == sgd_analysis.__version__


def test_the_package_says_that_it_is_typed():
    assert (Path(sgd_analysis.__file__).parent / "py.typed").is_file()
    assert SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["sgd_analysis"]


def test_importing_the_package_draws_nothing_and_warns_of_nothing():
    code = """
import sys, sgd_analysis
print(sorted({name.split(".")[0] for name in sys.modules}))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    assert "'sgd_analysis'" in result.stdout
    for heavy in ("matplotlib", "pandas", "sphinx", "IPython", "pytest"):
        assert f"'{heavy}'" not in result.stdout


EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def test_the_readmes_first_example_records_a_loop(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(EXAMPLES[0], names)
    assert "(65,) (65, 4) " in capsys.readouterr().out
    loaded = sgd_analysis.History.load("run.npz")
    assert loaded.loss.tolist() == names["history"].loss.tolist()
    assert loaded.loss[-1] == names["loss"].item()


def test_the_readmes_second_example_measures_what_it_predicts(capsys):
    exec(EXAMPLES[1], {})
    predicted, measured = capsys.readouterr().out.splitlines()
    assert predicted.split()[0] == "predicted:"
    assert measured.split()[0] == "measured:"
    assert predicted.split()[1] == measured.split()[1]


def test_the_readmes_third_example_tells_where_a_gap_comes_from(capsys):
    exec(EXAMPLES[2], {})
    gap, alignment, stops = capsys.readouterr().out.rstrip().rsplit("\n", 2)
    assert "drift" in gap
    assert 0 < float(alignment.split()[-1]) < 1
    assert stops == "stops at epoch: [48.]"


def test_every_command_that_installs_the_package_takes_it_from_where_it_is():
    for path in [
        *ROOT.glob("book/**/*.md"),
        *ROOT.glob("sgd_analysis/**/*.py"),
        ROOT / "README.md",
    ]:
        for command in re.findall(r"pip install ([^`\n]+)", path.read_text(encoding="utf-8")):
            assert not re.match(r"""["']?sgd[-_]analysis""", command), f"{path}: {command}"
            for extra in re.findall(r"[.\w]\[(\w+)\]", command):
                assert extra in PROJECT["optional-dependencies"], f"{path}: {command}"


def test_the_source_distribution_holds_what_is_needed_to_build_test_and_cite(tmp_path):
    archive = next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with tarfile.open(archive) as source:
        names = {name.split("/", 1)[1] for name in source.getnames()}
    for path in ("CITATION.cff", "LICENSE", "README.md", "pyproject.toml", "tests/conftest.py"):
        assert path in names
    assert {
        path for path in names if path.startswith("sgd_analysis/") and path.endswith(".py")
    } == {str(path.relative_to(ROOT)) for path in ROOT.glob("sgd_analysis/**/*.py")}


# How to cite

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_under_these_licences():
    book = CITATION["preferred-citation"]
    assert CITATION["version"] == book["version"] == sgd_analysis.__version__
    assert CITATION["title"] == sgd_analysis.__name__
    assert CITATION["abstract"] == PROJECT["description"]
    assert CITATION["license"] == PROJECT["license"]
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"(SPDX: {book['license']})" in licence
    assert licence.startswith(f"{book['title']}\nCopyright (c) {book['year']}, ")
    assert CITATION["date-released"].startswith(f"{book['year']}-")


def test_the_readme_and_the_book_have_the_title_and_the_authors_of_the_citation():
    book = CITATION["preferred-citation"]
    (author,) = CITATION["authors"]
    assert book["authors"] == [author]
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert (settings["title"], settings["author"]) == (book["title"], author["name"])
    cited = f"{author['name']}. *{book['title']}*. Version {book['version']}, {book['year']}."
    assert f"\n> {cited}\n\n[CITATION.cff](CITATION.cff) " in README


# The repository


def test_the_top_level_holds_nothing_else():
    names = {name.split("/")[0] for name in tracked()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_no_file_names_a_machine_or_a_package_index():
    for name in tracked():
        text = (ROOT / name).read_bytes().decode("utf-8", errors="replace")
        for pattern in (MACHINE, INDEX):
            found = pattern.search(text)
            assert not found, f"{name}: {found.group()}"


def test_the_licence_covers_code_and_text():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "BSD-3-Clause"
    assert PROJECT["license-files"] == ["LICENSE"]
    for name in ("BSD 3-Clause License", "Creative Commons Attribution 4.0 International"):
        assert name in text
    assert "All rights reserved" in text
    assert "Section 8 -- Interpretation." in text
