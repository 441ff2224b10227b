"""What the loop evaluates at an epoch's end is kept beside that epoch, and goes where it goes."""

import dataclasses
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History, loss_gap, record, survey
from tests.recording.loops import backward, batches, train
from tests.recording.test_interrupted import Interrupt

DATA = batches(3)


@pytest.fixture
def epoch(model, criterion, sgd):
    """One epoch of three steps."""
    return lambda: train(model, criterion, sgd, DATA)


@pytest.fixture
def recorder(sgd, criterion):
    with record(sgd, criterion, steps_per_epoch=3) as recorder:
        yield recorder


def test_it_stands_beside_the_epoch_that_has_just_finished(recorder, epoch):
    epoch()
    recorder.evaluate(test=0.5)
    epoch()
    epoch()
    recorder.evaluate(test=0.25, accuracy=1)
    evaluated = recorder.history.evaluated
    assert_array_equal(evaluated["test"], [0.5, np.nan, 0.25])
    assert_array_equal(evaluated["accuracy"], [np.nan, np.nan, 1])
    epoch()
    assert_array_equal(recorder.history.evaluated["test"], [0.5, np.nan, 0.25, np.nan])
    assert_array_equal(evaluated["test"], [0.5, np.nan, 0.25])


def test_given_twice_for_an_epoch_new_names_are_added_and_old_ones_overwritten(recorder, epoch):
    epoch()
    recorder.evaluate(one=1.0, two=2.0)
    before = recorder.history
    recorder.evaluate(two=3.0, three=4.0)
    found = {name: column.tolist() for name, column in recorder.history.evaluated.items()}
    assert found == {"one": [1.0], "two": [3.0], "three": [4.0]}
    assert before.evaluated["two"].tolist() == [2.0]  # what was read does not change


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3, 3.0),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.array([0.5]), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor([[2]]), 2.0),
        (torch.tensor(0.5, requires_grad=True) * 3, 1.5),
        (float("nan"), np.nan),
        (torch.tensor(torch.inf), np.inf),
    ],
)
def test_a_number_may_be_of_any_kind(recorder, epoch, given, expected):
    epoch()
    recorder.evaluate(test=given)
    assert_array_equal(recorder.history.evaluated["test"], [expected])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"test": torch.ones(2)}, ValueError, r"test must be one number, got shape \(2,\)"),
        ({"test": np.ones(0)}, ValueError, r"test must be one number, got shape \(0,\)"),
        ({"test": "0.3"}, TypeError, "test must be a number, a tensor of one.*got str"),
        ({"test": True}, TypeError, "test must be a number.*got bool"),
        ({"test": 1j}, TypeError, "test must be a number.*got complex"),
        ({"loss": 0.3}, ValueError, "'loss' is a history's name for something else.*test_loss"),
        ({"running_loss": 0.3}, ValueError, "'running_loss' is a history's name"),
        ({"step_size_3": 0.3}, ValueError, "'step_size_3' is a history's name"),
        ({"": 0.3}, TypeError, "must have a name, got ''"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_of_it_is(
    recorder, epoch, given, error, message
):
    epoch()
    with pytest.raises(error, match=message):
        recorder.evaluate(**({"other": 1.0} | given))
    assert recorder.history.evaluated == {}


def test_before_an_epoch_has_finished_there_is_nothing_to_keep_it_beside(
    recorder, model, criterion, sgd
):
    with pytest.raises(RuntimeError, match=r"none has: give record\(\) steps_per_epoch="):
        recorder.evaluate(test=1.0)
    train(model, criterion, sgd, DATA[:2])
    with pytest.raises(RuntimeError, match=r"or call recorder\.end_epoch\(\) before it"):
        recorder.evaluate(test=1.0)


def test_in_the_middle_of_an_epoch_it_stands_beside_the_one_before_and_says_so(
    recorder, epoch, model, criterion, sgd
):
    epoch()
    train(model, criterion, sgd, DATA[:2])
    with pytest.warns(UserWarning, match="called 2 steps after the end of the epoch") as told:
        recorder.evaluate(test=1.0)
    assert told[0].filename == __file__
    assert recorder.history.evaluated["test"].tolist() == [1.0]


def test_it_may_be_given_after_the_recorder_is_closed(sgd, criterion, epoch):
    with record(sgd, criterion) as recorder:
        epoch()
        recorder.end_epoch()
    recorder.evaluate(test=2.0)
    assert recorder.history.evaluated["test"].tolist() == [2.0]


class TestSurveys:
    def test_a_survey_is_kept_by_its_numbers(self, recorder, epoch, model, criterion):
        epoch()
        surveyed = survey(model, criterion, DATA)
        recorder.evaluate(train=surveyed)
        found = {name: column[0] for name, column in recorder.history.evaluated.items()}
        assert found == {
            "train_empirical_risk": surveyed.empirical_risk,
            "train_full_gradient_norm": surveyed.full_gradient_norm,
            "train_mean_batch_gradient_norm": surveyed.mean_batch_gradient_norm,
        }

    def test_the_noise_scale_is_kept_where_it_is_exact(self, recorder, epoch, model, criterion):
        epoch()
        one_by_one = [pair for x, y in DATA for pair in zip(x.split(1), y.split(1), strict=True)]
        surveyed = survey(model, criterion, one_by_one)
        recorder.evaluate(train=surveyed)
        found = recorder.history.evaluated["train_gradient_noise_scale"]
        assert found.tolist() == [surveyed.gradient_noise_scale()]

    def test_a_loss_gap_is_kept_by_its_terms(self, recorder, epoch, model, criterion):
        epoch()
        gap = loss_gap(recorder.history[-1], survey(model, criterion, DATA))
        recorder.evaluate(gap=gap)
        found = {name: column[0] for name, column in recorder.history.evaluated.items()}
        assert list(found) == ["gap_weighting", "gap_drift", "gap_mode", "gap_noise"]
        assert_allclose(sum(found.values()), gap.mean_batch_loss - gap.empirical_risk, atol=1e-12)


class TestWhereItGoes:
    @pytest.fixture
    def history(self, recorder, epoch):
        for test in (0.5, 0.25, 0.125):
            epoch()
            recorder.evaluate(**{"test": test, "x<y": -test})
        return recorder.history

    def test_into_the_tables_by_epoch(self, history):
        assert history.epochs()["test"].tolist() == [0.5, 0.25, 0.125]
        assert history.to_pandas(by="epoch")["test"].tolist() == [0.5, 0.25, 0.125]
        shown = history[1:]._repr_html_()
        assert '<th scope="col">test</th><th scope="col">x&lt;y</th>' in shown
        assert "<td>0.25</td><td>-0.25</td></tr>" in shown

    def test_into_a_slice(self, history):
        assert history[1:].evaluated["test"].tolist() == [0.25, 0.125]
        assert history[-1].evaluated["test"].tolist() == [0.125]
        assert history[:0].evaluated["test"].shape == (0,)

    def test_into_a_file_and_the_run_that_continues_it(
        self, history, tmp_path, sgd, criterion, epoch
    ):
        together = dataclasses.replace(history, ranks=(history, history[:2]))
        together.save(tmp_path / "run.npz")
        loaded = History.load(tmp_path / "run.npz")
        for one, other in zip(
            (loaded, *loaded.ranks), (history, history, history[:2]), strict=True
        ):
            assert one.evaluated.keys() == other.evaluated.keys()
            for name, column in other.evaluated.items():
                assert_array_equal(one.evaluated[name], column)
        with record(sgd, criterion, steps_per_epoch=3, history=loaded) as recorder:
            epoch()
            recorder.evaluate(test=7.0)
        evaluated = recorder.history.evaluated
        assert evaluated["test"].tolist() == [0.5, 0.25, 0.125, 7.0]
        assert_array_equal(evaluated["x<y"], [-0.5, -0.25, -0.125, np.nan])

    def test_a_column_cannot_be_written_to(self, history):
        with pytest.raises(ValueError, match="read-only"):
            history.evaluated["test"][0] = 1.0


def test_an_interrupt_leaves_all_of_it_or_nothing(sgd, criterion, epoch):
    outcomes = set()
    at = 0
    while True:
        at += 1
        with warnings.catch_warnings(), record(sgd, criterion, steps_per_epoch=3) as recorder:
            epoch()
            recorder.evaluate(one=1.0)
            epoch()
            try:
                with Interrupt(at) as _:
                    recorder.evaluate(one=2.0, two=torch.tensor(3.0))
            except KeyboardInterrupt:
                interrupted = True
            else:
                interrupted = False
            found = recorder.history.evaluated
            outcomes.add((interrupted, *(str(column.tolist()) for column in found.values())))
        if not interrupted:
            break
    before, after = ("[1.0, nan]",), ("[1.0, 2.0]", "[nan, 3.0]")
    assert outcomes == {(True, *before), (True, *after), (False, *after)}


def test_device_tensors_are_read_and_training_stays_the_same(model, criterion, sgd):
    def weights(kept):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.1)
        with record(sgd, criterion, steps_per_epoch=1) as recorder:
            for batch in DATA:
                sgd.zero_grad()
                backward(model, criterion, batch)
                sgd.step()
                if kept:
                    recorder.evaluate(test=criterion(model(batch[0]), batch[1]))
        return [p.clone() for p in model.parameters()], torch.get_rng_state()

    (plain, state), (kept, state_kept) = weights(False), weights(True)
    assert all(map(torch.equal, plain, kept))
    assert torch.equal(state, state_kept)
