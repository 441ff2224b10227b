import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sgd_analysis import LeastSquares, figures, quadratic_fit, train


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, inputs):
        return self.weights[0] * inputs + self.weights[1]


def lines(ax):
    return {line.get_label(): line.get_xydata().T for line in ax.lines}


def test_fit_draws_the_data_and_each_curve_in_the_order_of_the_inputs(ax):
    x = np.array([2.0, 0.0, 1.0])
    problem = LeastSquares(np.stack([x, np.ones(3)], axis=1), 2 * x, inputs=x, model=Line())
    figures.fit(ax, problem, {"true": [2, 0], "zero": [0, 0]})
    assert_allclose(lines(ax)["data"], [[0, 1, 2], [0, 2, 4]])
    assert_allclose(lines(ax)["true"], [[0, 1, 2], [0, 2, 4]])
    assert_allclose(lines(ax)["zero"], [[0, 1, 2], [0, 0, 0]])


def test_fit_errors_draws_fit_minus_data(ax):
    x = np.array([2.0, 0.0, 1.0])
    problem = LeastSquares(np.stack([x, np.ones(3)], axis=1), 2 * x, inputs=x, model=Line())
    figures.fit_errors(ax, problem, {"true": [2, 0], "one above": [2, 1]})
    assert_allclose(lines(ax)["true"], [[0, 1, 2], [0, 0, 0]])
    assert_allclose(lines(ax)["one above"], [[0, 1, 2], [1, 1, 1]])


@pytest.mark.parametrize("draw", [figures.fit, figures.fit_errors])
def test_fit_refuses_inputs_that_are_not_scalars(ax, draw):
    with pytest.raises(ValueError, match=r"scalar inputs.*got shape \(4, 2\)"):
        draw(ax, LeastSquares(np.ones((4, 2)), np.ones(4)), {})


def test_running_loss_counts_epochs_from_one(ax):
    history = train(quadratic_fit(), step_size=2e-4, max_epochs=5).history
    figures.running_loss(ax, history, "measured")
    assert_allclose(lines(ax)["measured"], [[1, 2, 3, 4, 5], history.running_loss])
    assert ax.get_xlabel() == "epoch"


def test_risk_contours_pass_where_the_risk_has_their_level(ax):
    problem = quadratic_fit()
    figures.risk_contours(ax, problem, (0, 2), (0.1, 4), [1.0], ("a", "b"))
    level = ax.collections[0]
    points = np.tile(problem.minimiser, (len(level.get_paths()[0].vertices), 1))
    points[:, [0, 2]] = level.get_paths()[0].vertices
    assert_allclose(problem.empirical_risk(points), 1.0, rtol=0.02)  # interpolated on the grid


def test_eigenvalue_sections_are_the_parabolas_of_the_eigenvalues(ax):
    problem = quadratic_fit()
    distances = np.array([0.1, 1.0, 2.0])
    figures.eigenvalue_sections(ax, problem, distances)
    for value, line in zip(problem.eigenvalues, ax.lines, strict=True):
        assert_allclose(line.get_ydata(), value / 2 * distances**2, rtol=1e-9)


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


def test_kinds_are_told_apart_by_colour_and_by_dashes():
    for kinds in (figures.METHODS, figures.ORDERS):
        assert len({style["color"] for style in kinds.values()}) == len(kinds)
        assert len({str(style["linestyle"]) for style in kinds.values()}) == len(kinds)
