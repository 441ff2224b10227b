import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History
from sgd_analysis.history.summary import sparkline
from sgd_analysis.history.vectors import Vectors


@pytest.fixture
def history():
    """Two finished epochs of three batches, the last one ragged, and one that was begun."""
    return History(
        loss=np.array([8.0, 6.0, 1.0, 4.0, 2.0, 0.5, 3.0]),
        n_samples=np.array([10, 10, 5, 10, 10, 5, 10]),
        epoch=np.array([0, 0, 0, 1, 1, 1, 2]),
        step_size=np.full((7, 1), 0.1),
        n_epochs=2,
    )


def test_the_running_loss_is_weighted_by_batch_sizes_and_the_mean_batch_loss_is_not(history):
    assert_allclose(history.running_loss, [(80 + 60 + 5) / 25, (40 + 20 + 2.5) / 25])
    assert_allclose(history.mean_batch_loss, [5, 6.5 / 3])


def test_an_unfinished_epoch_is_the_last_one_and_is_not_counted(history):
    assert history.n_epochs == 2
    assert_array_equal(history[-1].loss, [3])
    assert history[-1].n_epochs == 0
    assert history[-1].running_loss.shape == (0,)


def test_an_epoch_is_a_history_of_its_own(history):
    epoch = history[1]
    assert_array_equal(epoch.loss, [4, 2, 0.5])
    assert (epoch.n_steps, epoch.n_epochs) == (3, 1)
    assert_allclose(epoch.running_loss, history.running_loss[1:])
    assert_array_equal(epoch[0].loss, epoch[-1].loss)
    assert np.shares_memory(epoch.loss, history.loss)


@pytest.mark.parametrize("epoch", [3, -4])
def test_an_epoch_that_was_not_recorded_is_an_error(history, epoch):
    with pytest.raises(IndexError, match=f"epoch {epoch} was not recorded: the history holds 3"):
        history[epoch]


def test_iterating_visits_each_epoch_once(history):
    assert [epoch.n_steps for epoch in history] == [3, 3, 1]


def test_an_empty_history_has_no_epoch():
    empty = History(np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 1)), 0)
    assert empty.running_loss.shape == empty.mean_batch_loss.shape == (0,)
    with pytest.raises(IndexError, match="holds 0 epochs"):
        empty[0]


def test_columns_of_different_lengths_are_refused():
    said = r"one row a step each, .* loss \(2,\), n_samples \(3,\), "
    with pytest.raises(ValueError, match=said):
        History(np.zeros(2), np.zeros(3, int), np.zeros(2, int), np.zeros((2, 1)), 1)


@pytest.mark.parametrize("epoch", [[0, 0, 2], [1, 0, 1]])
def test_epochs_that_are_left_out_or_go_backwards_are_refused(epoch):
    with pytest.raises(ValueError, match="epoch must stay or grow by one from step to step"):
        History([1, 2, 3], [1, 1, 1], epoch, np.ones((3, 1)), 2)


@pytest.mark.parametrize("n_epochs", [0, 3])
def test_a_number_of_epochs_that_the_steps_do_not_hold_is_refused(n_epochs):
    with pytest.raises(ValueError, match=f"n_epochs must be 2.*got {n_epochs}"):
        History([1, 2, 3], [1, 1, 1], [0, 0, 1], np.ones((3, 1)), n_epochs)


@pytest.mark.parametrize("position", [1.0, "a", True])
def test_a_position_that_is_not_an_integer_is_refused(history, position):
    with pytest.raises(TypeError, match="selected by its position, an integer, or several by a"):
        history[position]


class TestSlices:
    def test_several_epochs_are_a_history_of_their_own(self, recorded):
        part = recorded[1:3]
        assert_array_equal(part.loss, np.concatenate([recorded[1].loss, recorded[2].loss]))
        assert_array_equal(part.running_loss, recorded.running_loss[1:3])
        assert_array_equal(part.gradient, recorded.gradient[3:])
        assert_array_equal(part.path_gradient, recorded.path_gradient[1:])
        assert_array_equal(part[-1].loss, recorded[2].loss)
        assert np.shares_memory(part.gradient, recorded.gradient)

    def test_the_unfinished_epoch_is_the_last(self, recorded):
        assert (recorded[:].n_steps, recorded[:].n_epochs) == (8, 2)
        assert (recorded[2:].n_steps, recorded[2:].n_epochs) == (2, 0)
        assert (recorded[:-1].n_steps, recorded[:-1].n_epochs) == (6, 2)

    @pytest.mark.parametrize("epochs", [slice(5, 9), slice(2, 1)])
    def test_a_slice_may_be_empty(self, recorded, epochs):
        assert (recorded[epochs].n_steps, recorded[epochs].n_epochs) == (0, 0)
        assert recorded[epochs].path_gradient.shape == (0, 2)

    @pytest.mark.parametrize("epochs", [slice(None, None, 2), slice(None, None, -1)])
    def test_a_slice_that_leaves_epochs_out_is_refused(self, recorded, epochs):
        with pytest.raises(ValueError, match="must go forward one by one"):
            recorded[epochs]


GRADIENT = np.array([[3, 4], [0, 1], [1, 0], [0, 2], [2, 0], [6, 8], [1, 1], [2, 2]], np.float32)


@pytest.fixture
def recorded():
    """Two finished epochs and a begun one, with gradients and weights; one step was skipped."""
    skipped = np.arange(8) == 4
    gradient = np.where(skipped[:, None], np.nan, GRADIENT)
    return History(
        loss=np.arange(8.0, 0, -1),
        n_samples=np.array([4, 4, 2, 4, 4, 2, 4, 4]),
        epoch=np.array([0, 0, 0, 1, 1, 1, 2, 2]),
        step_size=np.array([[0.5, 0.25]] * 8),
        n_epochs=2,
        skipped=skipped,
        gradients=Vectors(gradient.astype(np.float32), np.linalg.norm(gradient, axis=1)),
        kept_weights=np.arange(16.0).reshape(8, 2),
        metadata={"reduction": "mean", "optimizer": "SGD", "versions": {"torch": "2"}},
    )


def streamed(recorded, n_kept=4):
    """The same with the first gradients only, as a recorder leaves it when memory runs out."""
    paths = np.vstack([recorded.path_gradient, GRADIENT[6:].mean(axis=0)])
    vectors = Vectors(
        recorded.gradient[:n_kept],
        recorded.gradient_norm,
        path_norm=np.linalg.norm(paths[:2], axis=1),
        last_path=paths[2],
    )
    return dataclasses.replace(recorded, gradients=vectors)


class TestGradients:
    def test_the_path_gradient_is_the_size_weighted_mean_of_the_steps_that_were_made(
        self, recorded
    ):
        first = (4 * GRADIENT[0] + 4 * GRADIENT[1] + 2 * GRADIENT[2]) / 10
        second = (4 * GRADIENT[3] + 2 * GRADIENT[5]) / 6
        assert_allclose(recorded.path_gradient, [first, second], rtol=1e-6)
        assert recorded.path_gradient.dtype == np.float32
        norms = np.linalg.norm([first, second], axis=1)
        assert_allclose(recorded.path_gradient_norm, norms, rtol=1e-6)

    def test_what_was_not_kept_raises_and_names_the_last_epoch_that_was(self, recorded):
        partly = streamed(recorded)
        for name in ("gradient", "path_gradient"):
            with pytest.raises(ValueError, match=rf"{name} was kept.*that was is \[0\]"):
                getattr(partly, name)
        with pytest.raises(
            ValueError, match="first 1 of these 3 steps only, and no whole epoch was"
        ):
            _ = partly[1].gradient
        assert_array_equal(partly[0].gradient, recorded[0].gradient)
        assert_array_equal(partly.gradients.kept, recorded.gradient[:4])

    def test_the_norms_and_the_last_path_gradient_are_there_all_the_same(self, recorded):
        partly = streamed(recorded)
        assert_array_equal(partly.gradient_norm, recorded.gradient_norm)
        assert_allclose(partly.path_gradient_norm, recorded.path_gradient_norm, rtol=1e-6)
        assert_allclose(partly[0].path_gradient, recorded[0].path_gradient)
        assert_array_equal(partly[-1].gradients.last_path, GRADIENT[6:].mean(axis=0))

    def test_an_epoch_of_skipped_steps_has_no_path_gradient(self, recorded):
        nothing = dataclasses.replace(recorded, skipped=np.ones(8, bool))
        assert np.isnan(nothing.path_gradient).all()

    def test_local_gradients_come_from_several_processes_only(self, recorded):
        for name in ("local_gradient", "local_gradient_norm"):
            with pytest.raises(ValueError, match="has several processes"):
                getattr(recorded, name)


class TestSums:
    def test_losses_that_are_sums_are_divided_by_the_number_of_samples(self, history):
        sums = dataclasses.replace(
            history, loss=history.loss * history.n_samples, divisor=history.n_samples
        )
        assert_allclose(sums.running_loss, history.running_loss)
        assert_allclose(sums.mean_batch_loss, history.mean_batch_loss)
        assert_allclose(sums.batch_loss, history.loss)

    def test_what_was_observed_in_place_of_a_sum_is_a_mean(self, history):
        observed = np.where(np.arange(7) == 2, 5.0, history.loss)
        sums = dataclasses.replace(
            history, loss=observed, own_objective=history.loss, divisor=history.n_samples
        )
        expected = np.where(np.arange(7) == 2, 5.0, history.loss / history.n_samples)
        assert_allclose(sums.batch_loss, expected)
        assert_array_equal(sums.objective, history.loss)


class TestDenominators:
    def test_they_weight_the_running_loss_and_the_path_gradient(self, recorded):
        twice = dataclasses.replace(recorded, denominator=np.arange(1.0, 9.0))
        expected = np.average(recorded.loss[:3], weights=[1, 2, 3])
        assert_allclose(twice.running_loss[0], expected)
        assert_array_equal(twice.n_samples, recorded.n_samples)
        assert_array_equal(recorded.denominator, recorded.n_samples)  # unless given

    def test_they_have_a_row_a_step(self, history):
        with pytest.raises(ValueError, match="one row a step each"):
            dataclasses.replace(history, denominator=np.ones(3))
        with pytest.raises(ValueError, match=r"one row a step each, .* divisor \(3,\)"):
            dataclasses.replace(history, divisor=np.ones(3))


class TestColumns:
    def test_reading_one_copies_nothing_and_it_cannot_be_written_to(self):
        loss = np.arange(100_000.0)
        ones = np.ones(len(loss))
        history = History(loss, ones, np.zeros(len(loss), int), ones[:, None], 1)
        assert history.loss.base is loss
        with pytest.raises(ValueError, match="read-only"):
            history.loss[0] = 7
        loss[0] = 7  # the caller's own array stays writable

    def test_losses_that_overflow_do_not_warn(self):
        history = History([np.inf, -np.inf], [1, 1], [0, 0], np.ones((2, 1)), 1)
        assert np.isnan(history.running_loss).all()
        assert "1 finished epochs" in repr(history)

    def test_a_batch_whose_targets_were_all_ignored_does_not_count(self):
        history = History([np.nan, 3.0], [0, 2], [0, 0], np.ones((2, 1)), 1)
        assert_array_equal(history.running_loss, [3])

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"n_epochs": 2.0}, TypeError, "integer"),
            ({"epoch": [0, 0, 0.5, 1, 1, 1, 1]}, ValueError, "epoch must hold integers"),
            ({"epoch": [0, 0, np.nan, 1, 1, 1, 1]}, ValueError, "epoch must hold integers"),
            ({"loss": np.ones(7, complex)}, TypeError, "loss must hold real numbers, got the type"),
            ({"loss": [None] * 7}, TypeError, "loss must hold real numbers, got the type object"),
            ({"metadata": ["mean"]}, TypeError, "metadata must be a mapping"),
            ({"kept_weights": np.zeros((9, 2))}, ValueError, r"got shape \(9, 2\) for 7 steps"),
            ({"gradients": Vectors(np.zeros((2, 1)), np.zeros(2))}, ValueError, "one norm a step"),
            (
                {"gradients": Vectors(np.zeros((2, 1)), np.zeros(7), np.zeros(1))},
                ValueError,
                "path_norm must have one value a finished epoch, 2, got 1",
            ),
            ({"evaluated": {"test": [1.0]}}, ValueError, r"test must.*epoch, 2, got shape \(1,\)"),
            (
                {"evaluated": {"test": [1j, 2]}},
                TypeError,
                "must hold real numbers, got complex",
            ),
            ({"evaluated": {"loss": [1.0, 2]}}, ValueError, "'loss' is a history's name for some"),
            ({"evaluated": {1: [1.0, 2]}}, TypeError, "must have a name, got 1"),
            ({"evaluated": [1.0, 2.0]}, TypeError, "must be a mapping of names.*got list"),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, history, change, error, message):
        with pytest.raises(error, match=message):
            dataclasses.replace(history, **change)

    @pytest.mark.parametrize("name", ["path_norm", "last_path"])
    def test_sums_of_vectors_have_one_dimension(self, name):
        with pytest.raises(
            ValueError, match=rf"{name} must have one dimension, got the shape \(2,"
        ):
            Vectors(np.zeros((2, 1)), np.zeros(2), **{name: np.zeros((2, 1))})


class TestSummary:
    def test_the_repr_says_how_much_was_recorded_and_how_the_running_loss_went(self, history):
        expected = "History(7 steps, 2 finished epochs, running loss 5.8 █▁ 2.5)"
        assert repr(history) == expected
        empty = History(np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 1)), 0)
        assert repr(empty) == "History(0 steps, 0 finished epochs)"

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([1.0, 10.0, 100.0], "▁▅█"),
            ([1.0, 1.0], "▁▁"),
            ([-1.0, 0.0, 1.0], "▁▅█"),
            ([1.0, np.nan, np.inf, 2.0], "▁  █"),
            ([np.nan, np.nan], "  "),
        ],
    )
    def test_the_sparkline_is_logarithmic_where_it_can_be(self, values, expected):
        assert sparkline(np.array(values)) == expected

    def test_the_sparkline_of_many_epochs_has_a_dozen_bars(self):
        line = sparkline(np.geomspace(1, 1e-9, 9340))
        assert len(line) == 12
        assert (line[0], line[-1]) == ("█", "▁")

    def test_the_html_table_has_headers_and_the_last_epochs(self, recorded):
        table = recorded._repr_html_()
        assert "<caption>History(8 steps, 2 finished epochs" in table
        assert table.count('<th scope="row">') == 2
        assert '<th scope="col">path gradient norm</th>' in table
        assert f"<td>{recorded.running_loss[1]:.4g}</td>" in table


class TestEpochs:
    def test_no_name_of_a_column_can_be_given_to_what_was_evaluated(self, recorded):
        for name in {"objective", "step_size", *recorded.epochs(), *recorded.to_pandas()}:
            with pytest.raises(ValueError, match=f"'{name}' is a history's name"):
                dataclasses.replace(recorded, evaluated={name: [1.0, 2.0]})

    def test_its_columns_are_those_of_a_slow_loop(self, recorded):
        table = recorded.epochs()
        for e, name in enumerate(table["epoch"]):
            steps = recorded.epoch == e
            assert name == e + 1
            assert table["n_steps"][e] == steps.sum()
            assert table["n_samples"][e] == recorded.n_samples[steps].sum()
            norms = recorded.gradient_norm[steps & ~recorded.skipped]
            assert_allclose(table["mean_gradient_norm"][e], norms.mean(dtype=float), rtol=1e-12)
        assert len(table["epoch"]) == recorded.n_epochs == 2
        assert_array_equal(table["mean_batch_loss"], recorded.mean_batch_loss)

    def test_without_gradients_and_without_an_epoch_there_are_none(self, history):
        assert "mean_gradient_norm" not in history.epochs()
        assert all(len(column) == 0 for column in history[:0].epochs().values())


class TestPandas:
    def test_it_has_a_row_a_step(self, recorded):
        frame = recorded.to_pandas()
        assert list(frame.columns) == [
            *("loss", "n_samples", "epoch", "denominator", "skipped"),
            *("step_size_0", "step_size_1", "gradient_norm"),
        ]
        assert frame.index.name == "step"
        assert_array_equal(frame["loss"], recorded.loss)
        assert frame.groupby("epoch")["loss"].mean().loc[[1, 2]].tolist() == [7, 4]
        assert_allclose(recorded.mean_batch_loss, [7, 4])

    @pytest.mark.parametrize("by", ["step", "epoch"])
    def test_numbers_of_samples_are_whole_also_where_one_is_not_known(self, recorded, by):
        n_samples = np.array(recorded.n_samples)
        n_samples[0] = np.nan
        for history in (recorded, dataclasses.replace(recorded, n_samples=n_samples)):
            frame = history.to_pandas(by)
            expected = (history.steps() if by == "step" else history.epochs())["n_samples"]
            assert frame["n_samples"].dtype == "Int64"
            assert_array_equal(frame["n_samples"].isna(), np.isnan(expected))
            assert_array_equal(frame["n_samples"].dropna(), expected[~np.isnan(expected)])

    def test_steps_and_epochs_are_counted_from_1_as_in_the_html_table(self, recorded):
        frame = recorded.to_pandas()
        assert frame.index.tolist() == list(range(1, 9))
        assert frame["epoch"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3]
        second = recorded[1]
        assert second.to_pandas()["epoch"].tolist() == [2, 2, 2]
        assert '<th scope="row">2</th>' in second._repr_html_()
        assert '<th scope="row">1</th>' not in second._repr_html_()
        assert_array_equal(recorded.epoch, [0, 0, 0, 1, 1, 1, 2, 2])  # positions, as before

    def test_one_group_has_one_step_size(self, history):
        assert "step_size" in history.to_pandas().columns

    def test_by_epoch_it_has_a_row_a_finished_epoch(self, recorded):
        frame = recorded.to_pandas(by="epoch")
        assert frame.index.name == "epoch" and frame.index.tolist() == [1, 2]
        assert_array_equal(frame["running_loss"], recorded.running_loss)
        assert_array_equal(frame["path_gradient_norm"], recorded.path_gradient_norm)
        assert recorded[1].to_pandas(by="epoch").index.tolist() == [2]

    @pytest.mark.parametrize("by", ["step", "epoch"])
    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_a_line_writes_it_to_a_file_that_pandas_reads_back(self, recorded, tmp_path, by, kind):
        if kind == "parquet":
            pytest.importorskip("pyarrow", reason="to_parquet needs pyarrow")
        frame = dataclasses.replace(recorded, evaluated={"test": [0.1, np.nan]}).to_pandas(by)
        getattr(frame, f"to_{kind}")(tmp_path / "run")
        if kind == "parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run"), frame)
        else:  # which knows no types
            read = pd.read_csv(tmp_path / "run", index_col=by)
            pd.testing.assert_frame_equal(read, frame, check_dtype=False)

    def test_another_kind_of_row_is_refused(self, recorded):
        with pytest.raises(ValueError, match='by must be "step" or "epoch", got \'batch\''):
            recorded.to_pandas(by="batch")

    def test_without_pandas_the_error_says_what_to_do(self, history, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match="to_pandas\\(\\) needs pandas: pip install pandas"):
            history.to_pandas()


def assert_equal(history, expected):
    assert (history.n_epochs, history.metadata) == (expected.n_epochs, dict(expected.metadata))
    assert history.evaluated.keys() == expected.evaluated.keys()
    for name, column in expected.evaluated.items():
        assert_array_equal(history.evaluated[name], column, err_msg=name)
    names = ("loss", "n_samples", "denominator", "epoch", "step_size", "skipped", "kept_weights")
    for name in (*names, "own_objective", "divisor", "size_weighting"):
        given, wanted = getattr(history, name), getattr(expected, name)
        assert_array_equal(given, wanted, err_msg=name)
        assert wanted is None or given.dtype == wanted.dtype
    for name in ("gradients", "local_gradients"):
        given, wanted = getattr(history, name), getattr(expected, name)
        assert (given is None) == (wanted is None)
        if wanted is not None:
            for part, array in wanted.arrays():
                assert_array_equal(getattr(given, part), array, err_msg=part)
    assert len(history.ranks) == len(expected.ranks)
    for rank, wanted in zip(history.ranks, expected.ranks, strict=True):
        assert_equal(rank, wanted)


class TestFiles:
    def test_what_was_saved_is_loaded_to_the_bit(self, recorded, history, tmp_path):
        gathered = dataclasses.replace(recorded, ranks=(recorded, streamed(recorded)))
        empty = History(np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 1)), 0)
        for saved in (recorded, history, streamed(recorded), gathered, empty, recorded[1]):
            saved.save(tmp_path / "run.npz")
            assert_equal(History.load(tmp_path / "run.npz"), saved)
        assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]

    def test_the_path_is_taken_as_it_is(self, history, tmp_path):
        history.save(str(tmp_path / "run"))
        (tmp_path / "link").symlink_to("run")
        history[0].save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert History.load(tmp_path / "run").n_epochs == 1

    def test_a_folder_that_is_not_there_is_an_error(self, history, tmp_path):
        with pytest.raises(FileNotFoundError):
            history.save(tmp_path / "nowhere" / "run.npz")
        with pytest.raises(FileNotFoundError):
            History.load(tmp_path / "nowhere.npz")

    def test_metadata_that_is_no_json_leaves_the_old_file(self, history, tmp_path):
        history.save(tmp_path / "run.npz")
        broken = dataclasses.replace(history[0], metadata={"model": object()})
        with pytest.raises(TypeError, match="not JSON serializable"):
            broken.save(tmp_path / "run.npz")
        assert_equal(History.load(tmp_path / "run.npz"), history)
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_file_that_cannot_be_finished_leaves_the_old_one(
        self, history, tmp_path, monkeypatch
    ):
        history.save(tmp_path / "run.npz")

        def full(*args):
            raise OSError("no space left")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space left"):
            history[0].save(tmp_path / "run.npz")
        assert_equal(History.load(tmp_path / "run.npz"), history)
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_kill_in_the_middle_leaves_the_old_file_or_the_new_one(self, tmp_path):
        path = tmp_path / "run.npz"
        code = f"""
import os, signal, sys
import numpy as np
from sgd_analysis import History
from sgd_analysis.history.vectors import Vectors

TOUCHING = {{"open", "write", "seek", "flush", "fsync", "close", "replace", "unlink"}}


def history(value):
    loss = np.full(100, float(value))
    column = np.ones(100)
    vectors = Vectors(np.full((100, 50), float(value)), column)
    steps = np.zeros(100, int)
    return History(loss, column, steps, column[:, None], 1, gradients=vectors)


def killed(value, at):
    process = os.fork()
    if process:
        return os.WIFSIGNALED(os.waitpid(process, 0)[1])
    calls = 0

    def count(frame, event, function):
        nonlocal calls
        calls += event == "c_call" and function.__name__ in TOUCHING
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)

    new = history(value)
    sys.setprofile(count)
    new.save({str(path)!r})
    os._exit(0)


history(0).save({str(path)!r})
value = 1
while killed(value, at=value):
    loaded = History.load({str(path)!r})
    assert len(set(loaded.loss)) == 1
    assert set(loaded.gradients.kept.ravel()) == {{loaded.loss[0]}}
    print(value, int(loaded.loss[0]))
    value += 1
"""
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        saves = [tuple(map(int, line.split())) for line in process.stdout.splitlines()]
        assert len(saves) > 20
        first_new = next(value for value, loaded in saves if loaded)
        assert all(loaded == 0 for value, loaded in saves if value < first_new)
        assert all(loaded == value for value, loaded in saves if value >= first_new)
        # What a killed process leaves behind cannot be taken for a history.
        assert all(left.name.startswith(".run.npz.") for left in tmp_path.iterdir() if left != path)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_a_truncated_file_is_refused(self, recorded, tmp_path, share):
        path = tmp_path / "run.npz"
        recorded.save(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(ValueError, match=r"run\.npz is damaged or not complete"):
            History.load(path)

    def test_a_file_with_a_flipped_bit_is_refused(self, recorded, tmp_path):
        path = tmp_path / "run.npz"
        recorded.save(path)
        data = bytearray(path.read_bytes())
        at = data.index(recorded.loss.tobytes())
        data[at + 5] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged or not complete"):
            History.load(path)

    def test_an_empty_file_and_one_of_another_kind_are_refused(self, tmp_path):
        path = tmp_path / "run.npz"
        path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"is empty: History\.load reads what History\.save"):
            History.load(path)
        path.write_bytes(pickle.dumps({"loss": [1.0]}))
        with pytest.raises(ValueError, match=r"is not an \.npz file"):
            History.load(path)

    def test_a_foreign_archive_is_refused_and_its_content_named(self, tmp_path):
        np.savez(tmp_path / "run.npz", weights=np.ones(3), biases=np.ones(2))
        with pytest.raises(ValueError, match="did not write; it holds biases, weights"):
            History.load(tmp_path / "run.npz")

    def test_pickled_objects_are_refused(self, history, tmp_path):
        class Bomb:
            def __reduce__(self):
                return pytest.fail, ("the file ran code",)

        history.save(tmp_path / "run.npz")
        with np.load(tmp_path / "run.npz") as archive:
            arrays = dict(archive)
        arrays["loss"] = np.array([Bomb()], dtype=object)
        np.savez(tmp_path / "run.npz", **arrays)
        with pytest.raises(ValueError, match=r"pickled objects.*are refused"):
            History.load(tmp_path / "run.npz")

    def rewrite(self, history, path, change):
        history.save(path)
        with np.load(path) as archive:
            arrays = dict(archive)
        description = json.loads(arrays["description"].tobytes())
        change(description, arrays)
        arrays["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
        np.savez(path, **arrays)

    @pytest.mark.parametrize("change", [{"version": "1"}, {"format": "another"}])
    def test_a_description_of_another_kind_is_refused(self, history, tmp_path, change):
        self.rewrite(history, tmp_path / "run.npz", lambda d, _: d.update(change))
        with pytest.raises(ValueError, match="did not write"):
            History.load(tmp_path / "run.npz")

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_a_file_of_the_first_version_is_read(self, history, tmp_path, reduction):
        """Its n_samples were the denominators, and a sum was one by its reduction."""

        def as_it_was(description, arrays):
            description["version"] = 1
            description["history"]["metadata"]["reduction"] = reduction
            del arrays["denominator"]
            if reduction == "sum":
                arrays["loss"] = arrays["loss"] * arrays["n_samples"]
            description["arrays"].remove("denominator")
            del description["history"]["evaluated"]

        self.rewrite(history, tmp_path / "run.npz", as_it_was)
        found = History.load(tmp_path / "run.npz")
        assert_array_equal(found.denominator, history.n_samples)
        assert_allclose(found.batch_loss, history.loss)
        assert_allclose(found.running_loss, history.running_loss)

    def test_a_file_of_the_second_version_is_read(self, recorded, tmp_path):
        """It kept nothing of what was evaluated."""

        def as_it_was(description, arrays):
            description["version"] = 2
            del description["history"]["evaluated"]

        self.rewrite(recorded, tmp_path / "run.npz", as_it_was)
        assert_equal(History.load(tmp_path / "run.npz"), recorded)

    def test_a_file_of_a_newer_version_is_refused(self, history, tmp_path):
        self.rewrite(history, tmp_path / "run.npz", lambda d, _: d.update(version=4))
        with pytest.raises(ValueError, match=r"written in format 4, by a newer version.*upgrade"):
            History.load(tmp_path / "run.npz")

    @pytest.mark.parametrize(
        "change",
        [
            lambda d, arrays: arrays.pop("epoch"),
            lambda d, arrays: arrays.update(other=arrays["loss"]),
            lambda d, arrays: arrays.update(loss=arrays["loss"][:2]),
            lambda d, arrays: d["history"].update(n_epochs=7),
            lambda d, arrays: d["history"].pop("metadata"),
            lambda d, arrays: d["history"].update(evaluated=["test"]),
            lambda d, arrays: d["history"].update(evaluated=[["test"]]),
        ],
    )
    def test_a_file_whose_parts_do_not_fit_is_refused(self, history, tmp_path, change):
        self.rewrite(history, tmp_path / "run.npz", change)
        with pytest.raises(ValueError, match=r"run\.npz does not hold a whole History"):
            History.load(tmp_path / "run.npz")
