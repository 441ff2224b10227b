"""A logger is handed the rows when an epoch ends, and nothing that it does reaches the loop."""

import gc
import warnings
import weakref

import pytest
import torch
from numpy.testing import assert_equal
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import record
from tests.history.test_writers import KINDS, Trackio, Wandb, told
from tests.recording.loops import backward, batches, gradient_of, network, train
from tests.recording.test_interrupted import Interrupt

DATA = batches(3)


@pytest.fixture
def epoch(model, criterion, sgd):
    """One epoch of three steps."""
    return lambda: train(model, criterion, sgd, DATA)


def nothing_but(writer, history):
    """Raise unless the logger was told what the history would tell it, and each row once."""
    history.log_to(expected := Trackio())
    assert_equal(told(writer), told(expected))
    names = [(step, name) for step, numbers in writer.calls for name in numbers]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_handed_the_rows_whenever_an_epoch_ends_and_the_rest_at_the_end(
    sgd, criterion, epoch, kind, model
):
    writer = KINDS[kind]()
    with record(sgd, criterion, steps_per_epoch=3) as recorder:
        recorder.log_to(writer)
        assert writer.calls == []
        epoch()
        assert list(told(writer)) == [1, 2, 3]
        recorder.evaluate(test=0.5)
        assert told(writer)[3]["sgd_analysis/test"] == 0.5
        epoch()
        train(model, criterion, sgd, DATA[:2])
        assert list(told(writer)) == [1, 2, 3, 4, 5, 6]
    assert list(told(writer)) == [1, 2, 3, 4, 5, 6, 7, 8]
    nothing_but(writer, recorder.history)


def test_it_is_handed_them_by_end_epoch_and_where_epochs_are_found(sgd, criterion, epoch, model):
    with record(sgd, criterion) as recorder:
        recorder.log_to(writer := Trackio())
        epoch()
        assert writer.calls == []
        recorder.end_epoch()
        assert list(told(writer)) == [1, 2, 3]
    loader = DataLoader(TensorDataset(*map(torch.cat, zip(*DATA, strict=True))), 5)
    with record(sgd, criterion) as recorder:
        recorder.log_to(writer := Trackio())
        for _ in range(2):
            train(model, criterion, sgd, loader)
        assert {1, 2, 3} <= told(writer).keys()
    assert list(told(writer)) == [1, 2, 3, 4, 5, 6]
    nothing_but(writer, recorder.history)


def test_a_logger_that_comes_later_is_handed_what_there_is(sgd, criterion, epoch, model):
    with record(sgd, criterion, steps_per_epoch=3) as recorder:
        epoch()
        train(model, criterion, sgd, DATA[:1])
        recorder.log_to(writer := Trackio())
        recorder.log_to(other := Trackio(), prefix="other/")
        assert list(told(writer)) == [1, 2, 3, 4]
        with pytest.warns(UserWarning, match="evaluate"):
            recorder.evaluate(test=1.0)
        train(model, criterion, sgd, DATA[1:])
        assert list(told(writer)) == [1, 2, 3, 4, 5, 6]
    nothing_but(writer, recorder.history)
    assert {name.split("/")[0] for _, numbers in other.calls for name in numbers} == {"other"}


def test_a_run_that_is_continued_goes_on_with_the_numbers_of_its_steps(
    sgd, criterion, epoch, model
):
    with record(sgd, criterion, steps_per_epoch=3) as recorder:
        recorder.log_to(writer := Wandb())
        epoch()
        train(model, criterion, sgd, DATA[:1])
    with record(sgd, criterion, steps_per_epoch=3, history=recorder.history) as recorder:
        recorder.log_to(writer)
        train(model, criterion, sgd, DATA[1:])
    assert list(told(writer)) == [1, 2, 3, 4, 5, 6]
    nothing_but(writer, recorder.history)


def test_what_is_evaluated_after_the_end_is_handed_on_too(sgd, criterion, epoch):
    with record(sgd, criterion, steps_per_epoch=3) as recorder:
        recorder.log_to(writer := Wandb())
        epoch()
    recorder.evaluate(test=1.0)
    assert told(writer)[3]["sgd_analysis/test"] == 1.0


class Failing(Trackio):
    """Raises when it has been called n times."""

    def __init__(self, n):
        super().__init__()
        self.n, self.n_failed = n, 0

    def log(self, metrics, step=None):
        if len(self.calls) >= self.n:
            self.n_failed += 1
            raise OSError("no connection")
        super().log(metrics, step)


class TestALoggerThatFails:
    def test_is_dropped_and_the_loop_and_the_recording_go_on(self, sgd, criterion, epoch):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            recorder = record(sgd, criterion, steps_per_epoch=3)
            recorder.log_to(failing := Failing(4))
            recorder.log_to(writer := Trackio())
            for _ in range(3):
                epoch()
        message = r"Failing was handed 4 steps and no more, since it raised OSError\('no conn"
        with pytest.warns(UserWarning, match=message) as told_of:
            recorder.close()
        assert len(told_of) == failing.n_failed == 1
        assert recorder.history.n_steps == 9 and len(told(failing)) == 4
        nothing_but(writer, recorder.history)

    @pytest.mark.parametrize("when", ["end_epoch", "evaluate", "close"])
    def test_is_told_of_when_that_may_be_told(self, sgd, criterion, epoch, when):
        recorder = record(sgd, criterion, steps_per_epoch=None if when == "end_epoch" else 3)
        recorder.log_to(Failing(0 if when == "end_epoch" else 3))
        epoch()
        if when == "close":
            epoch()
        given = {"test": 1.0} if when == "evaluate" else {}
        with pytest.warns(UserWarning, match="raised OSError"):
            getattr(recorder, when)(**given)
        assert recorder.history.n_epochs == 1 + (when == "close")
        assert not given or recorder.history.evaluated["test"].tolist() == [1.0]
        recorder.close()

    def test_whose_run_is_further_on_is_told_nothing(self, sgd, criterion, epoch):
        writer = Wandb(step=100)
        with pytest.warns(UserWarning, match="wandb drops what comes after a later step"):
            with record(sgd, criterion, steps_per_epoch=3) as recorder:
                recorder.log_to(writer)
                epoch()
        assert writer.calls == []

    def test_is_refused_at_once_if_it_is_of_no_kind_that_is_known(self, sgd, criterion):
        with record(sgd, criterion) as recorder:
            with pytest.raises(TypeError, match="writer must have add_scalar"):
                recorder.log_to(print)
        with pytest.raises(RuntimeError, match=r"log_to\(\) needs a recorder that records"):
            recorder.log_to(Trackio())


def test_training_stays_the_same_to_the_bit(criterion):
    def trained(writer):
        torch.manual_seed(0)
        model = network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        with record(sgd, criterion, steps_per_epoch=2) as recorder:
            if writer is not None:
                recorder.log_to(writer)
            for batch in DATA * 2:
                sgd.zero_grad()
                backward(model, criterion, batch)
                sgd.step()
        state = [p.clone() for p in model.parameters()], torch.from_numpy(gradient_of(model))
        return [*state[0], state[1], torch.get_rng_state()]

    assert all(map(torch.equal, trained(None), trained(Trackio())))


def test_an_interrupt_leaves_no_row_out(sgd, criterion, epoch, model):
    at, interrupted = 0, True
    while interrupted:
        at += 40
        writer = Trackio()
        with record(sgd, criterion, steps_per_epoch=3) as recorder:
            recorder.log_to(writer)
            train(model, criterion, sgd, DATA[:2])
            interrupted = False
            sgd.zero_grad()
            backward(model, criterion, DATA[2])
            try:
                with Interrupt(at):
                    sgd.step()
            except KeyboardInterrupt:
                interrupted = True
            epoch()
        recorder.history.log_to(expected := Trackio())
        assert_equal(told(writer), told(expected), err_msg=str(at))  # some of them twice, maybe


def test_it_keeps_no_model_alive(criterion):
    model = network()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    gc.disable()
    try:
        recorder = record(sgd, criterion)
        recorder.log_to(Trackio())
        recorder.close()
        gone = weakref.ref(recorder)
        del recorder
        assert gone() is None
    finally:
        gc.enable()
