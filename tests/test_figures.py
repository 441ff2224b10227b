import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sgd_analysis import figures


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def lines(ax):
    return {line.get_label(): line.get_xydata().T for line in ax.lines}


def test_a_quantile_band_is_the_runs_own_values_and_a_run_that_is_nan_has_diverged(ax):
    runs = np.arange(1.0, 22.0)[:, None] * [1.0, 10.0, 100.0]
    runs[-3:, 2] = np.nan, np.inf, np.nan
    figures.quantile_band(ax, [1, 2, 3], runs, "many", color="#0072B2")
    assert_allclose(lines(ax)["many"], [[1, 2, 3], [11, 110, 1100]])
    vertices = ax.collections[0].get_paths()[0].vertices
    assert {2.0, 20.0} <= set(vertices[vertices[:, 0] == 1, 1])
    assert vertices[vertices[:, 0] == 3, 1].max() > 1e300


def test_a_quantile_band_refuses_values_that_do_not_fit(ax):
    with pytest.raises(ValueError, match=r"got shape \(2, 4\) for \(3,\) positions"):
        figures.quantile_band(ax, [1, 2, 3], np.ones((2, 4)), "many")


def test_stopping_epochs_counts_runs_and_leaves_out_those_that_never_stop(ax):
    figures.stopping_epochs(ax, [2, 2, np.nan, 5], 6, {"predicted": 2})
    assert [bar.get_height() for bar in ax.patches] == [0, 2, 0, 0, 1, 0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == [1, 2, 3, 4, 5, 6]
    assert [line.get_label() for line in ax.lines] == ["predicted"]


def test_kinds_are_told_apart_by_dashes_too():
    for kinds in (figures.METHODS, figures.ORDERS):
        assert len({str(style["linestyle"]) for style in kinds.values()}) == len(kinds)
