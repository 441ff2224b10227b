"""A hook that fails changes nothing either: the loop goes on, and `close` tells."""

import sys
import warnings

import pytest
from numpy.testing import assert_array_equal

from sgd_analysis import record
from sgd_analysis.recording.attribution import SeenLosses
from sgd_analysis.recording.blocks import Blocks
from sgd_analysis.recording.rows import Rows
from tests.recording.outcomes import (
    assert_same,
    attributes_and_hooks,
    made,
    outcome,
    train,
    unrecorded,
)
from tests.recording.trainings import accumulated, plain

pytestmark = [
    pytest.mark.filterwarnings("ignore:no epoch has ended"),  # most loops look at steps only
    pytest.mark.usefixtures("one_thread"),
]


class TestAHookThatFails:
    """It neither raises nor warns: the loop goes on, and `close` tells."""

    @pytest.mark.parametrize(
        ("owner", "name", "fails_at_call", "settings", "n_rows"),
        [
            (SeenLosses, "add", 6, {}, 5),
            (SeenLosses, "take", 6, {}, 5),
            (Rows, "append", 6, {}, 5),
            (Rows, "end_epoch", 2, {}, 8),
            # As if there were no memory left for a step's gradient,
            (Blocks, "_copy", 6, {}, 5),
            (Blocks, "_copy", 6, {"gradients": "norms"}, 5),
            # and for that of which the weights have been copied.
            (Blocks, "_copy", 12, {"weights": True}, 5),
        ],
    )
    def test_in_the_recorder(self, monkeypatch, owner, name, fails_at_call, settings, n_rows):
        case = ("network", "Adam", plain)
        expected, left_behind, losses = unrecorded(case)
        whole = made(case)
        with record(whole.optimizer, whole.criterion, steps_per_epoch=4, **settings) as recorder:
            train(whole)
        history = recorder.history

        original, calls = getattr(owner, name), []

        def failing(*args, **kwargs):
            if sys._getframe(1).f_globals["__name__"].startswith("sgd_analysis"):
                calls.append(None)
                if len(calls) >= fails_at_call:
                    raise RuntimeError("made to fail")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, failing)
        t = made(case)
        recorder = record(t.optimizer, t.criterion, steps_per_epoch=4, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(t)
        with pytest.warns(
            UserWarning, match=rf"recording stopped after .*\b{n_rows}\b.*made to fail"
        ):
            recorder.close()

        assert len(calls) == fails_at_call, "what failed was called again"
        assert_same(outcome(t), expected, "run")
        assert attributes_and_hooks(t) == left_behind
        assert_array_equal(recorder.history.loss, losses[:n_rows])
        assert_array_equal(recorder.history.gradient_norm, history.gradient_norm[:n_rows])
        if "gradients" not in settings:
            assert_array_equal(recorder.history.gradient, history.gradient[:n_rows])
        if "weights" in settings:
            assert_array_equal(recorder.history.weights, history.weights[:n_rows])

    def test_in_the_backward_pass(self, monkeypatch):
        case = ("network", "Adam", accumulated)
        expected, left_behind, _ = unrecorded(case)

        def failing(*_):
            raise RuntimeError("made to fail")

        monkeypatch.setattr("sgd_analysis.recording.marks.was_cleared", failing)
        t = made(case)
        recorder = record(t.optimizer, t.criterion)
        train(t)
        with pytest.warns(UserWarning, match="recording stopped after .*made to fail"):
            recorder.close()
        assert_same(outcome(t), expected, "run")
        assert attributes_and_hooks(t) == left_behind

    @pytest.mark.parametrize("how", ["raises", "warns"])
    def test_in_the_users_own_n_samples(self, how):
        def n_samples(*batch):
            if how == "raises":
                raise RuntimeError("made to fail")
            warnings.warn("made to fail", stacklevel=2)  # an error here

        case = ("network", "Adam", plain)
        expected, left_behind, losses = unrecorded(case)
        t = made(case)
        recorder = record(t.optimizer, t.criterion, n_samples=n_samples)
        train(t)
        with pytest.warns(UserWarning, match="number of samples .* is not known.*made to fail"):
            recorder.close()
        assert_same(outcome(t), expected, "run")
        assert attributes_and_hooks(t) == left_behind
        assert_array_equal(recorder.history.loss, losses)
