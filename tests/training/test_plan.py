"""Settings that no run can have."""

import numpy as np
import pytest
import torch

from sgd_analysis import (
    FiniteSum,
    quadratic_fit,
    train,
)
from tests.training.trained_problems import STEP_SIZE, by_hand, mean_of_squares


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"step_size": 0}, "step_size must be positive and finite, got 0"),
            ({"step_size": -1.0}, "step_size must be positive and finite, got -1.0"),
            ({"step_size": np.nan}, "step_size must be positive and finite, got nan"),
            ({"step_size": lambda k: -1.0}, "step_size must be positive and finite, got -1.0"),
            ({"batch_size": 0}, r"between 1 and 2000 \(the number of samples\), got 0"),
            ({"batch_size": 2001}, r"between 1 and 2000 \(the number of samples\), got 2001"),
            ({"max_epochs": 0}, "max_epochs must be at least 1, got 0"),
            ({"optimizer": "sgdd"}, "optimizer must be \"sgd\", a class .* got 'sgdd'"),
            ({"order": "sorted"}, r"order must be one of \['cyclic', 'indep.*got 'sorted'"),
            ({"start": [1.0, 2.0]}, r"start must have shape \(3,\)"),
            ({"start": [1.0, 2.0, np.inf]}, "start must be finite"),
            ({"seed": -1}, "seed must be between 0 and .* got -1"),
            ({"gradient": "exact"}, 'must be "autograd" or "closed form", got \'exact\''),
            (
                {"gradient": "closed form", "problem": by_hand(quadratic_fit())},
                'needs a LeastSquares, .* got a FiniteSum: use gradient="autograd"',
            ),
            (
                {"order": lambda *_: iter([torch.arange(4)]), "batch_size": 5, "drop_last": True},
                r"between 1 and 4 \(the number of samples that the order visits, with drop_last\)",
            ),
        ],
    )
    def test_a_value_out_of_range(self, change, message):
        settings = {"problem": quadratic_fit(), "step_size": STEP_SIZE, "max_epochs": 1}
        with pytest.raises(ValueError, match=message):
            train(**settings | change)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"step_size": "0.1"}, "step_size must be a number, got '0.1' of type str"),
            ({"batch_size": 2.5}, "batch_size must be an integer, got 2.5 of type float"),
            ({"max_epochs": None}, "max_epochs must be an integer, got None"),
            ({"max_epochs": True}, "max_epochs must be an integer, got True"),
            ({"seed": 1.5}, "seed must be an integer, got 1.5"),
            ({"optimizer": torch.optim.LBFGS}, "one update from one gradient, got LBFGS"),
            ({"optimizer": torch.nn.Linear}, "optimizer must be"),
            ({"optimizer": torch.optim.SGD([torch.ones(1)], lr=1)}, "train makes its own copy"),
            ({"order": 3}, "order must be one of .* got 3"),
            ({"drop_last": 1}, "drop_last must be True or False, got 1"),
            ({"stop": 0.1}, r"a stopping rule such as running_loss_below\(0.1\), got 0.1"),
            ({"problem": torch.ones(3)}, "problem must be a FiniteSum or a LeastSquares"),
            ({"problem": torch.nn.Linear(1, 1)}, "from_loader makes one from a model and a Data"),
        ],
    )
    def test_a_value_of_the_wrong_kind(self, change, message):
        settings = {"problem": quadratic_fit(), "step_size": STEP_SIZE, "max_epochs": 1}
        with pytest.raises(TypeError, match=message):
            train(**settings | change)

    def test_a_criterion_that_returns_one_loss_a_sample(self):
        problem = quadratic_fit()
        many = FiniteSum(problem.model, torch.sub, problem.inputs, problem.targets)
        with pytest.raises(ValueError, match=r"must return a scalar.*got shape \(2000,\)"):
            train(many, step_size=STEP_SIZE, max_epochs=1)

    @pytest.mark.parametrize(
        ("criterion", "message"),
        [
            (lambda a, b: 1.0, "must return a scalar tensor, .* got 1.0"),
            (lambda a, b: mean_of_squares(a, b).detach(), "got one without a gradient"),
        ],
    )
    def test_a_criterion_that_cannot_be_differentiated(self, criterion, message):
        p = quadratic_fit()
        with pytest.raises(ValueError, match=message):
            train(
                FiniteSum(p.model, criterion, p.inputs, p.targets),
                step_size=STEP_SIZE,
                max_epochs=1,
            )

    def test_predictions_that_would_broadcast_against_the_targets(self):
        problem = FiniteSum(
            torch.nn.Linear(2, 1), mean_of_squares, torch.ones(20, 2), torch.ones(20)
        )
        with pytest.raises(ValueError, match=r"same shape, got \(20, 1\) and \(20,\): reshape"):
            train(problem, step_size=0.1, max_epochs=1)
