"""Weights are taken and refused in the same way wherever a function takes them."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sgd_analysis import (
    LeastSquares,
    epoch_operator,
    expected_risk,
    expected_running_loss,
    gradient_descent_risk,
    gradient_descent_steps,
    iterate_average,
    train,
    train_ensemble,
)


def one_row(w):
    if isinstance(w, torch.Tensor):
        return w.unsqueeze(0)
    return w[None] if isinstance(w, np.ndarray) else [w]


LINE = LeastSquares([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 3.0, 5.0])
TAKES_WEIGHTS = {
    "train": lambda w: train(LINE, step_size=0.1, max_epochs=1, start=w).checkpoints[0],
    "train_ensemble": lambda w: train_ensemble(
        LINE, [0], step_size=0.1, max_epochs=1, start=w, checkpoints=True
    ).checkpoints[0, 0],
    "expected_running_loss": lambda w: expected_running_loss(LINE, 0.1, 1, 1, w),
    "expected_risk": lambda w: expected_risk(LINE, 0.1, 1, 1, w),
    "gradient_descent_risk": lambda w: gradient_descent_risk(LINE, 0.1, 2, w),
    "gradient_descent_steps": lambda w: gradient_descent_steps(LINE, 0.1, 1e-3, start=w),
    "empirical_risk": lambda w: LINE.empirical_risk(w),
    "full_gradient": lambda w: LINE.full_gradient(w),
    "survey": lambda w: LINE.survey(w, [[0, 1]]).loss,
    "epoch_operator": lambda w: epoch_operator(LINE, 0.1, [[0, 1]])(w),
    "path": lambda w: epoch_operator(LINE, 0.1, [[0, 1]]).path(w),
    "true_weights": lambda w: LeastSquares(
        LINE.features, [1, 2, 3], true_weights=w
    ).true_weights,
    "iterate_average": lambda w: iterate_average(one_row(w))[0],
}  # fmt: skip


@pytest.mark.parametrize("function", TAKES_WEIGHTS.values(), ids=TAKES_WEIGHTS)
class TestWeights:
    @pytest.mark.parametrize("array", [np.array, torch.tensor, list])
    def test_complex_ones_are_refused(self, function, array):
        # Their imaginary part was lost.
        with pytest.raises(TypeError, match=r"must be real, got .*complex"):
            function(array([1 + 1j, 2.0]))

    def test_masked_ones_are_refused(self, function):
        # Their mask was lost.
        with pytest.raises(ValueError, match="must have a value everywhere, got masked ones"):
            function(np.ma.masked_equal([1.0, 2.0], 2))

    @pytest.mark.parametrize("words", [["1", "2"], np.array(["1", "2"]), [None, 1.0], [{}, 1.0]])
    def test_words_and_other_things_are_refused(self, function, words):
        with pytest.raises(TypeError, match="must hold numbers, got an array of dtype"):
            function(words)

    def test_sparse_ones_are_refused(self, function):
        with pytest.raises(TypeError, match=r"must be dense, got a tensor of layout torch\.sparse"):
            function(torch.tensor([1.0, 2.0]).to_sparse())

    @pytest.mark.parametrize(
        "weights",
        [
            torch.tensor([1, 2]),
            torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True),
            torch.tensor([1 - 1j, 2 - 2j]).conj().real,
            -torch.tensor([9 - 1j, 9 - 2j]).conj().imag.neg(),
            np.ma.array([1.0, 2.0]),
            (1, 2.0),
            [Fraction(2, 2), 2],
            [torch.tensor(1.0), 2],
        ],
    )
    def test_all_other_ways_to_write_them_are_the_same(self, function, weights):
        assert_allclose(function(weights), function([1.0, 2.0]))
