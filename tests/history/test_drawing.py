"""What `history.plot()` draws, read back from the figure."""

import dataclasses
import sys
import types

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History, figures
from sgd_analysis.history.drawing import draw
from sgd_analysis.history.vectors import Vectors

LOSS, NORM = "loss\n(loss units)", "norm\n(loss / weight units)"
PHONE = 350  # CSS pixels, the width of a figure on a screen of 390


def history_of(loss, steps_per_epoch=4, *, finished=True, norm=True, **parts):
    n = len(loss)
    epoch = np.arange(n) // steps_per_epoch
    n_epochs = int(epoch[-1]) + finished if n else 0
    vectors = Vectors(np.zeros((n, 2)) + np.arange(1.0, n + 1)[:, None], np.arange(1.0, n + 1))
    parts = {"n_samples": np.full(n, 8.0), "gradients": vectors if norm else None} | parts
    return History(loss=loss, epoch=epoch, step_size=np.ones((n, 1)), n_epochs=n_epochs, **parts)


@pytest.fixture
def history():
    """Three epochs of four steps, the last batch of each a small one."""
    return history_of(np.geomspace(8, 1, 12), n_samples=np.tile([8.0, 8, 8, 1], 3))


def panels(figure):
    return {ax.get_ylabel(): ax for ax in figure.axes}


def lines(ax):
    return {line.get_label(): line.get_xydata().T for line in ax.lines}


def evaluated(history, **values):
    return dataclasses.replace(history, evaluated=values)


class TestPanels:
    def test_steps_lie_in_their_epochs_and_epochs_at_their_ends(self, history):
        drawn = panels(history.plot())
        assert list(drawn) == [LOSS, NORM]
        x, y = lines(drawn[LOSS])["batch loss, each step"]
        assert_allclose(x, np.arange(12) / 4)
        assert_array_equal(y, history.loss)
        assert_allclose(lines(drawn[LOSS])["running loss"], [[1, 2, 3], history.running_loss])
        x, y = lines(drawn[NORM])["gradient norm, each step"]
        assert_array_equal(y, history.gradient_norm)
        path = lines(drawn[NORM])["path gradient norm"]
        assert_allclose(path, [[1, 2, 3], history.path_gradient_norm])
        assert figure_label(drawn[NORM]) == "epoch"

    def test_the_epochs_of_a_part_keep_their_numbers(self, history):
        drawn = lines(panels(history[1:].plot())[LOSS])
        assert_array_equal(drawn["running loss"][0], [2, 3])
        assert_allclose(drawn["batch loss, each step"][0], 1 + np.arange(8) / 4)

    def test_an_unfinished_epoch_is_as_long_as_the_one_before(self):
        x, _ = lines(history_of(np.ones(6), finished=False).plot().axes[0])["batch loss, each step"]
        assert_allclose(x, [0, 0.25, 0.5, 0.75, 1, 1.25])
        longer = dataclasses.replace(
            history_of(np.ones(6), finished=False), epoch=[0, 0, 1, 1, 1, 1], n_epochs=1
        )
        x, _ = lines(longer.plot().axes[0])["batch loss, each step"]
        assert_allclose(x, [0, 0.5, 1, 1.25, 1.5, 1.75])

    def test_without_a_finished_epoch_the_axis_counts_steps(self):
        figure = history_of(np.ones(3), finished=False).plot()
        assert figure_label(figure.axes[-1]) == "step"
        assert_array_equal(lines(figure.axes[0])["batch loss, each step"][0], [1, 2, 3])
        assert "running loss" not in lines(figure.axes[0])

    def test_without_gradients_there_is_no_panel_of_norms(self):
        assert list(panels(history_of(np.ones(8), norm=False).plot())) == [LOSS]

    def test_one_step_is_seen(self):
        (line, _) = history_of(np.ones(1)).plot().axes[0].lines
        assert line.get_marker() == "."

    def test_without_a_step_it_says_that_nothing_was_recorded(self):
        (ax,) = history_of(np.zeros(0)).plot().axes
        assert [text.get_text() for text in ax.texts] == ["nothing was recorded"]

    def test_without_sizes_the_mean_batch_loss_stands_for_the_running_loss(self):
        unknown = history_of(np.geomspace(8, 1, 12), n_samples=np.full(12, np.nan))
        drawn = lines(unknown.plot().axes[0])
        assert "running loss" not in drawn
        assert_array_equal(drawn["mean batch loss"][1], unknown.mean_batch_loss)

    def test_the_mean_batch_loss_is_drawn_where_it_can_be_told_from_the_running_loss(self, history):
        assert "mean batch loss" in lines(history.plot().axes[0])
        even = dataclasses.replace(history, n_samples=np.ones(12), denominator=np.ones(12))
        assert "mean batch loss" not in lines(even.plot().axes[0])

    def test_losses_that_are_sums_are_drawn_as_means(self, history):
        sums = dataclasses.replace(history, divisor=np.full(12, 4.0))
        assert_allclose(lines(sums.plot().axes[0])["batch loss, each step"][1], history.loss / 4)

    def test_what_is_not_finite_is_a_gap(self):
        loss = np.array([1.0, np.nan, np.inf, 1e300, 2.0, 3.0])
        figure = history_of(loss, 3).plot()
        figure.draw_without_rendering()
        y = lines(figure.axes[0])["batch loss, each step"][1]
        assert_array_equal(y, [1, np.nan, np.nan, np.nan, 2, 3])

    def test_norms_before_clipping_and_of_updates_are_drawn_where_they_were_recorded(self, history):
        names = ("evaluated", "epochs", "epoch", "n_epochs", "n_steps", "batch_loss")
        there = {name: getattr(history, name) for name in (*names, "gradient_norm")}
        more = types.SimpleNamespace(
            **there, unclipped_norm=np.arange(12.0) + 7, update_norm=np.arange(12.0) + 1
        )
        drawn = panels(draw(more))
        assert list(drawn) == [LOSS, NORM, "norm\n(weight units)"]
        assert_array_equal(lines(drawn[NORM])["unclipped norm, each step"][1], np.arange(12.0) + 7)
        updates = lines(drawn["norm\n(weight units)"])
        assert_array_equal(updates["update norm, each step"][1], np.arange(12.0) + 1)


def figure_label(ax):
    return ax.get_xlabel()


class TestManySteps:
    def test_they_are_drawn_as_the_range_of_some_at_a_time(self):
        loss = 1 + np.random.default_rng(0).uniform(size=100_001)
        loss[1000], loss[5000:5200] = 7, np.nan
        ax = history_of(loss, 20_000, norm=False, finished=False).plot().axes[0]
        (band,) = ax.collections
        assert band.get_label() == "batch loss, range of 201 steps"
        x, y = np.concatenate([path.vertices for path in band.get_paths()]).T
        assert len(x) < 3000
        finite = loss[np.isfinite(loss)]
        assert (y.min(), y.max()) == (finite.min(), finite.max())
        assert_allclose((x.min(), x.max()), (0, 5))
        inside = y[(x > 5000 / 20_000 + 0.0101) & (x < 5200 / 20_000 - 0.0101)]
        assert len(inside) == 0  # none but whole ranges are missing

    def test_each_range_holds_its_steps_and_no_other(self):
        loss = np.arange(1.0, 1502.0)
        (band,) = history_of(loss, 1501, norm=False).plot().axes[0].collections
        x, y = band.get_paths()[0].vertices.T
        for first in (0, 4, 1496):
            there = y[np.isclose(x, first / 1501)]
            assert {loss[first], loss[min(first + 3, 1500)]} <= set(there)
        assert set(y[x == x.max()]) == {loss[1496], loss[1499], loss[1500]}


class TestEvaluated:
    def test_a_value_is_drawn_where_its_name_says_it_belongs(self, history):
        values = {
            "test": [3.0, 2, 1],
            "train_empirical_risk": [3.0, np.nan, 1],
            "train_full_gradient_norm": [1.0, 2, 3],
            "gap_drift": [-1.0, 0, 1],
            "accuracy": [0.5, 0.6, 0.9],
            "never": [np.nan] * 3,
        }
        drawn = panels(evaluated(history, **values).plot())
        assert list(drawn) == [LOSS, NORM, "gap\n(loss units)", "accuracy"]
        assert_array_equal(lines(drawn[LOSS])["test"], [[1, 2, 3], [3, 2, 1]])
        assert_array_equal(lines(drawn[LOSS])["train empirical risk"][1], [3, np.nan, 1])
        assert_array_equal(lines(drawn[NORM])["train full gradient norm"][1], [1, 2, 3])
        assert list(lines(drawn["gap\n(loss units)"])) == ["gap drift"]
        assert list(lines(drawn["accuracy"])) == ["accuracy"]

    def test_a_colour_says_whether_the_weights_moved_and_dashes_tell_the_rest_apart(self, history):
        names = ["a_loss", "b_loss", "c_loss"]
        ax = evaluated(history, **{name: [3.0, 2, 1] for name in names}).plot().axes[0]
        styles = {line.get_label(): line for line in ax.lines}
        fixed = [styles[name.replace("_", " ")] for name in names]
        assert {to_hex(line.get_color()) for line in fixed} == {"#d55e00"}
        assert len({(str(line._dash_pattern), line.get_marker()) for line in fixed}) == 3
        moving = {line for line in ax.lines if line not in fixed}
        assert {to_hex(line.get_color()) for line in moving} == {"#0072b2"}
        assert figures.PRINTED["color"] == "#0072B2"
        assert figures.OF_THE_MODEL["color"] == "#D55E00"

    def test_what_no_loop_prints_has_the_colour_of_what_is_measured(self, history):
        updates = dataclasses.replace(history, also={"update_norm": np.geomspace(4, 1, 12)})
        drawn = [line for ax in updates.plot().axes[1:] for line in ax.lines]
        colours = {line.get_label(): line.get_color() for line in drawn}
        assert colours.pop("gradient norm, each step") == figures.PRINTED["color"]
        assert set(colours) == {"path gradient norm", "update norm, each step"}
        assert set(colours.values()) == {figures.MEASURED["color"]}


class TestAxes:
    @pytest.mark.parametrize(
        ("loss", "scale"),
        [
            (np.geomspace(1, 100, 8), "log"),
            (np.geomspace(1, 1.5, 8), "linear"),
            (np.linspace(-1, 100, 8), "linear"),
            (np.linspace(0, 100, 8), "linear"),
        ],
    )
    def test_they_are_logarithmic_where_all_values_are_positive_and_far_apart(self, loss, scale):
        assert history_of(loss).plot().axes[0].get_yscale() == scale

    @pytest.mark.parametrize("top", [2.5, 40, 1e4, 1e9, 1e190])
    def test_a_logarithmic_axis_has_some_numbers_without_an_exponent_of_e(self, top):
        figure = history_of(np.geomspace(0.02, top, 8)).plot()
        figure.draw_without_rendering()
        ax = figure.axes[0]
        low, high = ax.get_ylim()
        ticks = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
        shown = [label.get_text() for tick, label in ticks if low <= tick <= high]
        assert 2 <= len(shown) <= 7
        assert all(text.startswith("$10^") or float(text) > 0 for text in shown)
        assert not any("e" in text for text in shown)

    @pytest.mark.parametrize("name", ["few", "many", "long names", "empty"])
    def test_nothing_is_cut_or_lies_on_data_and_ticks_are_large_enough_for_a_phone(self, name):
        if name == "empty":
            figure = history_of(np.zeros(0)).plot()
        else:
            loss = np.geomspace(1, 1e-3, 12 if name == "few" else 5000)
            history = history_of(loss, len(loss) // 3 + 1)
            n = history.n_epochs
            test = {"test": np.ones(n), "a_name_that_is_as_long_as_may_be_loss": np.ones(n)}
            figure = (evaluated(history, **test) if name == "long names" else history).plot()
        figure.draw_without_rendering()
        for ax in figure.axes:
            for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
                assert label.get_size() * PHONE / (72 * figure.get_figwidth()) >= 10.9
            for artist in filter(None, (ax.get_legend(), ax.xaxis.label, ax.yaxis.label)):
                box = artist.get_window_extent()
                assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, artist
                assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, artist
                assert not any(box.overlaps(other.bbox) for other in figure.axes), artist


class TestMatplotlib:
    def test_pyplot_is_left_as_it_was(self, history):
        before, settings = plt.get_fignums(), dict(matplotlib.rcParams)
        history.plot().draw_without_rendering()
        assert plt.get_fignums() == before
        assert dict(matplotlib.rcParams) == settings

    def test_a_notebook_shows_the_figure_all_the_same(self, history):
        bundle = history.plot()._repr_mimebundle_(include=None, exclude=None)
        assert list(bundle) == ["image/svg+xml"]
        assert bundle["image/svg+xml"].rstrip().endswith("</svg>")

    def test_without_it_the_error_names_the_extra(self, history, monkeypatch):
        monkeypatch.delitem(sys.modules, "sgd_analysis.history.drawing", raising=False)
        monkeypatch.delitem(sys.modules, "sgd_analysis.figures", raising=False)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
        with pytest.raises(ImportError, match=r"pip install matplotlib, or .* extra \[figures\]"):
            history.plot()
