"""`python -m sgd_analysis script.py`: everything is as without it, and what was seen is saved."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from numpy.testing import assert_array_equal

from sgd_analysis import History
from sgd_analysis.__main__ import main

ROOT = Path(__file__).parents[1]
RECORDED = ("-m", "sgd_analysis")

TRAIN = """
import atexit, os, signal, sys, threading, warnings
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from neighbour import data


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(3, 8), torch.nn.Linear(8, 2)
        self.dropout = torch.nn.Dropout()

    def forward(self, x):
        return self.outer(self.dropout(self.inner(x).relu()))


def step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def train():
    model = Net()
    adam = torch.optim.Adam(model.parameters())
    for epoch in range(2):
        for x, y in DataLoader(data, batch_size=4, shuffle=True, num_workers=1):
            print("loss", step(model, adam, x, y))
    torch.save(model, "model.pt")


if __name__ == "__main__":
    torch.manual_seed(0)
    print(sys.argv, input(), sys.path[0], __file__, __spec__, __package__)
    print(sorted({*globals()} - {"__annotations__"}))
    train()
    print(len(warnings.filters), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)])
    print(torch.random.get_rng_state().sum().item(), torch.get_num_threads())
    atexit.register(print, "registered first")
    atexit.register(print, "and then")
    threading.Timer(0.2, print, ["after the end"]).start()
    sys.stdout.flush()
    if not os.fork():
        sys.exit(4)
    os.wait()
    sys.exit(3)
"""
NEIGHBOUR = """
import torch
data = [(torch.randn(3, generator=torch.Generator().manual_seed(k)), k % 2) for k in range(10)]
"""

INTERRUPTED = """
import logging, os, signal, sys
import torch
from .neighbour import data

torch.manual_seed(0)
models = [torch.nn.Linear(3, 2) for _ in range(2)]
kinds = torch.optim.SGD, torch.optim.Adam
optimizers = [kind(model.parameters()) for kind, model in zip(kinds, models)]
logging.basicConfig(stream=sys.stdout)
for optimizer in optimizers:
    optimizer.step()  # without a gradient
for k, (x, y) in enumerate(data):
    for model, optimizer in zip(models, optimizers):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[None]), torch.tensor([y])).backward()
        optimizer.step()
    if k == 6:
        print("enough", sys.argv[1:], __spec__.name)
        sys.stdout.flush()
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""

FAILS = """
import multiprocessing, os, sys
os.environ["OMP_NUM_THREADS"] = "7"

def fail():
    try:
        {}["a"]
    except KeyError:
        raise ValueError("é")

def of_a_child(number):
    return number, __name__, sys.argv, sorted({"torch", "sgd_analysis"} & sys.modules.keys())

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(of_a_child, [1]))
    fail()
"""


def run(folder, *arguments, **environment):
    """Run python there, and return what it has printed and left behind."""
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=settings,
        input="a line\n",
        capture_output=True,
        text=True,
    )
    return SimpleNamespace(
        out=result.stdout,
        err=result.stderr,
        status=result.returncode,
        files=sorted(path.name for path in folder.rglob("*.npz")),
        saved={path.name: path.read_bytes() for path in folder.glob("*.pt")},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "package").mkdir()
    for name, text in {
        "train.py": TRAIN,
        "neighbour.py": NEIGHBOUR,
        "package/__init__.py": "",
        "package/neighbour.py": NEIGHBOUR,
        "package/interrupted.py": INTERRUPTED,
        "fails.py": FAILS,
        "wrong.py": "x = 1\nx = = 2\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bare(folder):
    return run(folder, "train.py", "--lr", "1", "--", "-m")


@pytest.fixture(scope="module")
def recorded(folder, bare):
    (folder / "run-1.npz").write_bytes(b"of somebody else")
    return run(folder, *RECORDED, "train.py", "--lr", "1", "--", "-m")


class TestAWholeTraining:
    def test_its_output_and_its_exit_status_are_its_own(self, bare, recorded):
        assert bare.status == 3 and bare.out.endswith("after the end\nand then\nregistered first\n")
        assert (recorded.out, recorded.status) == (bare.out, bare.status)

    def test_what_it_saves_is_the_same_to_the_bit(self, bare, recorded):
        assert bare.saved["model.pt"] == recorded.saved["model.pt"]

    def test_what_was_seen_is_saved_under_the_next_free_number(self, folder, bare, recorded):
        assert recorded.files == ["run-1.npz", "run-2.npz"], "none of a child or a fork"
        assert (folder / "run-1.npz").read_bytes() == b"of somebody else"
        history = History.load(folder / "run-2.npz")
        assert_array_equal(
            history.loss, [float(loss) for loss in re.findall(r"loss (.+)", bare.out)]
        )
        assert (history.n_steps, history.n_epochs, history.gradient_norm.shape) == (6, 2, (6,))
        assert history.n_samples.tolist() == [4, 4, 2] * 2

    def test_a_table_of_it_ends_what_it_writes_to_stderr(self, folder, bare, recorded):
        assert bare.err == ""
        head, names, first, last, saved = recorded.err.splitlines()
        epochs = History.load(folder / "run-2.npz").epochs()
        assert head == "sgd_analysis has recorded 1 optimizer"
        assert names.split()[:4] == ["optimizer", "steps", "at", "loss"]
        loss = [f"{value:.4g}" for value in epochs["running_loss"]]
        assert first.split()[:7] == ["1", "Adam", "6", "epoch", "1", "running", loss[0]]
        assert last.split()[:4] == ["epoch", "2", "running", loss[1]]
        assert saved == "saved as run-2.npz"


@pytest.fixture(scope="module", autouse=True)
def interruptible():
    """Programs that can be interrupted, also where these tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def bare_module(folder):
    return run(folder, "-m", "package.interrupted", "SIGINT")


@pytest.fixture(scope="module")
def recorded_module(folder, bare_module):
    (folder / "runs").mkdir()
    rank = {"WORLD_SIZE": "2", "RANK": "1"}
    asked = ("--out", "runs", "--gradients", "auto", "--steps-per-epoch", "3", "--n-samples", "2")
    what = ("-m", "package.interrupted", "SIGINT")
    return run(folder, *RECORDED, *asked, *what, **rank)


class TestAnInterruptedModule:
    def test_it_ends_as_without_us(self, bare_module, recorded_module):
        assert bare_module.status != 0 and bare_module.out.endswith(
            "['SIGINT'] package.interrupted\n"
        )
        assert (recorded_module.out, recorded_module.status) == (
            bare_module.out,
            bare_module.status,
        )

    def test_its_traceback_begins_in_it(self, bare_module, recorded_module):
        traceback = re.sub(r"  File \"<frozen runpy>.*\n", "", bare_module.err)
        assert traceback.startswith("Traceback") and traceback.endswith("KeyboardInterrupt\n")
        assert f"\n{traceback}sgd_analysis has recorded 2 optimizers\n" in recorded_module.err

    def test_what_is_missing_is_told_at_the_end_of_an_epoch_and_of_all(self, recorded_module):
        first, *_, last = recorded_module.err.splitlines()
        missing = "1 steps were made without a backward pass"
        assert first.startswith(f"sgd_analysis: {missing}")
        told = " ".join(recorded_module.err.split())
        assert f"optimizers 1 (SGD, 2 tensors), 2 (Adam, 2 tensors): {missing}" in told
        assert told.count(missing) == 2
        assert last == "steps_per_epoch= and n_samples= are --steps-per-epoch and --n-samples here"

    def test_what_was_seen_before_is_saved_where_asked_under_the_name_of_the_rank(
        self, folder, recorded_module
    ):
        names = ["run-rank1-1.npz", "run-rank1-2.npz"]
        histories = [History.load(folder / "runs" / name) for name in names]
        assert [history.metadata["optimizer"] for history in histories] == ["SGD", "Adam"]
        for history in histories:
            assert (history.n_epochs, history.gradient.shape) == (2, (8, 8))
            assert_array_equal(history.n_samples[1:], 2)
        assert f"saved as runs/{names[0]}, runs/{names[1]}\n" in recorded_module.err

    def test_it_is_killed_as_without_us_and_then_nothing_is_saved(self, folder):
        killed = run(folder, *RECORDED, "--out", "killed", "-m", "package.interrupted", "SIGTERM")
        assert killed.status == -signal.SIGTERM
        assert "has recorded" not in killed.err and not [*folder.glob("killed*")]


class TestAScriptThatFails:
    def test_its_error_is_its_own_and_what_it_has_set_too_late_is_told(self, folder):
        bare, recorded = run(folder, "fails.py"), run(folder, *RECORDED, "fails.py")
        assert "During handling of the above exception" in bare.err
        assert bare.out == recorded.out == "[(1, '__mp_main__', ['fails.py'], [])]\n"
        assert recorded.err.startswith(bare.err) and recorded.status == bare.status == 1
        nothing, *too_late = recorded.err.removeprefix(bare.err).splitlines()
        assert nothing == "sgd_analysis has recorded no optimizer: none has made a step"
        assert " ".join(too_late).startswith("the script has set OMP_NUM_THREADS, which PyTorch")

    def test_one_that_is_no_python(self, folder):
        bare, recorded = run(folder, "wrong.py"), run(folder, *RECORDED, "wrong.py")
        assert bare.err.endswith("SyntaxError: invalid syntax\n")
        assert recorded.err.startswith(bare.err) and recorded.status == bare.status == 1


class TestItsArguments:
    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (
                ["no.py"],
                2,
                f"{sys.executable}: can't open file '.*no.py': \\[Errno 2\\] No such fil",
            ),
            (["-m", "sgd_no"], f"{sys.executable}: No module named sgd_no", ""),
            (["-m", "sgd_no.a"], f"{sys.executable}: Error while finding module specification", ""),
            ([], 2, "error: give a script to run"),
            (["--gradients", "norms"], 2, "error: give a script to run"),
            (["--gradient", "norms", "no.py"], 2, "can't open file|error"),
            (["--gradients", "all", "no.py"], 2, "invalid choice: 'all'"),
            (["--steps-per-epoch", "0", "no.py"], 2, "must be positive, got 0"),
            (["--n-samples", "inf", "no.py"], 2, "must be positive, got inf"),
            (
                ["--out", "nowhere/run", "no.py"],
                2,
                "--out must begin in a folder that exists, got no",
            ),
            (["--out", "nowhere/", "no.py"], 2, "--out must begin in a folder that exists, got no"),
        ],
    )
    def test_what_is_wrong_with_them_is_said_before_anything_runs(
        self, arguments, status, message, capsys, monkeypatch, tmp_path
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert str(caught.value.code).startswith(str(status))
        assert re.search(message, capsys.readouterr().err)

    def test_its_help_says_what_it_does_and_when_it_does_not(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert caught.value.code == 0
        assert text.startswith("usage: python -m sgd_analysis [options] script.py [arguments of")
        for told in ("SIGTERM", "os._exit", "torchrun", "OMP_NUM_THREADS", "--steps-per-epoch N"):
            assert told in text
