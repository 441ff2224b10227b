"""A history in the loggers of others, seen by stand-ins that have the real ones' signatures."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_equal

from sgd_analysis import History
from sgd_analysis.history.vectors import Vectors
from sgd_analysis.history.writers import rows


class Tensorboard:
    """`torch.utils.tensorboard.SummaryWriter`."""

    def __init__(self):
        self.calls = []

    def add_scalar(
        self,
        tag,
        scalar_value,
        global_step=None,
        walltime=None,
        new_style=False,
        double_precision=False,
    ):
        assert type(scalar_value) in (float, int) and walltime is None
        self.calls.append((global_step, {tag: scalar_value}))


class Trackio:
    """The module trackio, or a run of it."""

    def __init__(self):
        self.calls = []

    def log(self, metrics, step=None):
        self.calls.append((step, dict(metrics)))


class Wandb:
    """A run of wandb, which drops what is out of order."""

    __module__ = "wandb.sdk.wandb_run"

    def __init__(self, step=0):
        self.calls, self.step = [], step

    def log(self, data, step=None, commit=None):
        assert commit is None
        if step >= self.step:
            self.step = step
            self.calls.append((step, dict(data)))


class WandbModule:
    def __init__(self, run):
        self.run, self.log = run, run.log

    @property
    def calls(self):
        return self.run.calls


class Mlflow:
    """The module mlflow; the loggers of Lightning have the first two arguments."""

    def __init__(self):
        self.calls = []

    def log_metric(self, key, value, step=None):
        raise AssertionError("one call for many numbers is faster")

    def log_metrics(self, metrics, step=None, synchronous=None, run_id=None, timestamp=None):
        assert synchronous is run_id is timestamp is None
        self.calls.append((step, dict(metrics)))


KINDS = {
    "tensorboard": Tensorboard,
    "trackio": Trackio,
    "wandb's run": Wandb,
    "wandb": lambda: WandbModule(Wandb()),
    "mlflow": Mlflow,
}


def told(writer):
    """What a logger was told, by step."""
    by_step = {}
    for step, numbers in writer.calls:
        by_step.setdefault(step, {}).update(numbers)
    return by_step


@pytest.fixture
def history():
    """Two finished epochs of three steps, one skipped and one of unknown size; then one step."""
    norm = np.array([1, 2, 3, 4, np.nan, 6, 7.0])
    return History(
        loss=[8.0, 6.0, 1.0, 4.0, np.inf, np.nan, 3.0],
        n_samples=[10, 10, 5, 10, np.nan, 5, 10],
        epoch=[0, 0, 0, 1, 1, 1, 2],
        step_size=np.full((7, 2), [0.5, 0.25]),
        n_epochs=2,
        skipped=np.arange(7) == 4,
        gradients=Vectors(np.zeros((7, 1)), norm),
        evaluated={"test": [0.5, 0.25], "accuracy": [np.nan, 1.0]},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_the_steps_and_at_an_epochs_last_step_the_epoch(history, kind):
    writer = KINDS[kind]()
    history.log_to(writer)
    steps = [step for step, _ in writer.calls]
    assert steps == sorted(steps) and set(steps) == set(range(1, 8))
    rows = told(writer)
    of_a_step = {f"sgd_analysis/{n}": v for n, v in (("step_size_0", 0.5), ("step_size_1", 0.25))}
    for step in (1, 2, 4, 7):
        k = step - 1
        own = {"sgd_analysis/loss": history.loss[k], "sgd_analysis/gradient_norm": step}
        assert rows[step] == of_a_step | own
    assert rows[3].pop("sgd_analysis/path_gradient_norm") == 0
    assert rows[3] == of_a_step | {
        "sgd_analysis/loss": 1.0,
        "sgd_analysis/gradient_norm": 3.0,
        "sgd_analysis/epoch": 1,
        "sgd_analysis/running_loss": (80 + 60 + 5) / 25,
        "sgd_analysis/mean_batch_loss": 5.0,
        "sgd_analysis/mean_gradient_norm": 2.0,
        "sgd_analysis/test": 0.5,
    }


def test_the_nan_of_a_step_is_handed_on_and_what_is_not_known_of_an_epoch_is_left_out(history):
    history.log_to(writer := Trackio(), prefix="")
    rows = told(writer)
    assert np.isnan(rows[5]["gradient_norm"]) and rows[5]["loss"] == np.inf
    assert np.isnan(rows[6]["loss"])
    assert "accuracy" not in rows[3] and rows[6]["accuracy"] == 1.0
    assert "running_loss" not in rows[6] and rows[6]["mean_gradient_norm"] == 5.0


def test_the_names_are_those_of_the_tables(history):
    history.log_to(writer := Mlflow(), prefix="my/")
    names = {name for _, numbers in writer.calls for name in numbers}
    assert {name.removeprefix("my/") for name in names} == (
        {*history.steps(), *history.epochs()} - {"n_samples", "n_steps", "denominator", "skipped"}
    )


def test_a_part_is_told_with_its_own_steps_and_the_numbers_of_its_epochs(history):
    history[1:].log_to(writer := Trackio())
    assert list(told(writer)) == [1, 2, 3, 4]
    assert told(writer)[3]["sgd_analysis/epoch"] == 2


def test_an_empty_history_tells_nothing(history):
    history[:0].log_to(writer := Trackio())
    assert writer.calls == []


@pytest.mark.parametrize("known", [(0, 0), (2, 0), (3, 0), (3, 1), (4, 1), (6, 1), (7, 2)])
def test_rows_go_on_where_they_stopped(history, known):
    n_steps, n_epochs = known
    expected = {}
    for step, _, numbers in rows(history):
        of_the_epoch = {name: v for name, v in numbers.items() if name in history.epochs()}
        if step > n_steps:
            expected[step] = numbers
        elif step in (3, 6)[n_epochs:]:
            expected[step] = of_the_epoch
    rest = {row.step: row.numbers for row in rows(history, n_steps, n_epochs)}
    assert [*rest] == sorted(expected)
    for step, numbers in rest.items():
        assert_equal(numbers, expected[step])


@pytest.mark.parametrize("make", [Wandb, lambda step: WandbModule(Wandb(step))])
def test_what_wandb_would_drop_is_refused(history, make):
    with pytest.raises(ValueError, match=r"its run is at step 2, and this is step 1; give it a"):
        history.log_to(make(2))
    history.log_to(writer := make(1))
    assert list(told(writer)) == list(range(1, 8))


@pytest.mark.parametrize("given", [None, print, History, []])
def test_another_kind_of_logger_is_refused(history, given):
    with pytest.raises(TypeError, match=r"must have add_scalar.*SummaryWriter.*wandb.*mlflow has"):
        history.log_to(given)


def test_what_the_logger_raises_is_raised(history):
    class Failing(Trackio):
        def log(self, metrics, step=None):
            raise OSError("no connection")

    with pytest.raises(OSError, match="no connection"):
        history.log_to(Failing())


def test_tensorboards_own_writer_is_told(history, tmp_path):
    tensorboard = pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with SummaryWriter(str(tmp_path)) as writer:
        history.log_to(writer)
    read = events.EventAccumulator(str(tmp_path))
    read.Reload()
    losses = read.Scalars("sgd_analysis/loss")
    assert tensorboard and [event.step for event in losses] == list(range(1, 8))
    assert_allclose([event.value for event in losses], history.loss)
    assert [(e.step, e.value) for e in read.Scalars("sgd_analysis/test")] == [(3, 0.5), (6, 0.25)]


def test_a_history_without_gradients_tells_no_norms(history):
    dataclasses.replace(history, gradients=None).log_to(writer := Trackio())
    assert not any("norm" in name for _, numbers in writer.calls for name in numbers)
