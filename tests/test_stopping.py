import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sgd_analysis import (
    StoppingRule,
    diverged,
    empirical_risk_below,
    full_gradient_norm_below,
    last_batch_loss_below,
    mean_batch_loss_below,
    no_improvement,
    path_gradient_norm_below,
    running_loss_below,
)
from sgd_analysis.stopping import QUANTITIES, epochs_reached

BELOW = [
    running_loss_below,
    mean_batch_loss_below,
    last_batch_loss_below,
    empirical_risk_below,
    full_gradient_norm_below,
    path_gradient_norm_below,
]

# After the last of two epochs each rule sees another number.
VALUES = {name: np.array([9.0, 1.0 + i]) for i, name in enumerate(QUANTITIES)}


def reason(rule, values=VALUES):
    verdict = rule.verdict(values)
    return verdict and verdict.name


@pytest.mark.parametrize(("rule", "value"), [(rule, 1.0 + i) for i, rule in enumerate(BELOW)])
def test_a_rule_fires_strictly_below_its_threshold(rule, value):
    assert reason(rule(value * 1.001)) == f"{rule.__name__}({value * 1.001:g})"
    assert reason(rule(value)) is None
    assert reason(rule(value * 0.999)) is None


def test_a_value_that_is_not_a_number_fires_no_threshold():
    broken = {name: np.array([np.nan]) for name in QUANTITIES}
    assert [reason(rule(1e9), broken) for rule in BELOW] == [None] * len(BELOW)


def test_before_the_first_epoch_has_finished_no_rule_fires():
    nothing = {name: np.empty(0) for name in QUANTITIES}
    for rule in (*[rule(1e9) for rule in BELOW], no_improvement(1), epochs_reached(1), diverged()):
        assert reason(rule, nothing) is None


def test_only_the_last_epoch_counts_for_a_run():
    assert reason(running_loss_below(2), {"running_loss": np.array([1.0, 3.0])}) is None


def test_joined_rules_give_the_reason_of_the_first_that_holds():
    rules = running_loss_below(0.1) | mean_batch_loss_below(2.5) | last_batch_loss_below(4)
    assert reason(rules) == "mean_batch_loss_below(2.5)"
    assert rules.quantities == {"running_loss", "mean_batch_loss", "last_batch_loss"}
    assert reason(running_loss_below(0.1) | last_batch_loss_below(0.1)) is None
    nested = running_loss_below(0.1) | (mean_batch_loss_below(0.1) | last_batch_loss_below(4))
    assert reason(nested) == "last_batch_loss_below(4)"
    assert repr(nested).count("|") == 2


def test_a_joined_rule_stops_where_either_does():
    values = {
        "running_loss": np.array([[5, 3, 1.0], [9, 9, 9]]),
        "last_batch_loss": np.ones((2, 3)),
    }
    values["last_batch_loss"][1, 1] = 0.5
    rules = running_loss_below(4) | last_batch_loss_below(0.9)
    assert_array_equal(rules.stops(values), [[False, True, True], [False, True, False]])


def test_reaching_what_was_wanted_is_told_from_running_out():
    assert running_loss_below(2).verdict(VALUES).converged
    assert no_improvement(1, 100).verdict(VALUES).converged
    assert not epochs_reached(2).verdict(VALUES).converged
    assert not diverged().verdict({"running_loss": np.array([np.inf])}).converged
    assert diverged().verdict(VALUES) is None
    assert epochs_reached(3).verdict(VALUES) is None


def test_the_number_of_epochs_holds_for_each_run_of_an_ensemble():
    values = {"running_loss": np.ones((2, 4))}
    assert_array_equal(epochs_reached(3).stops(values), [[False, False, True, True]] * 2)


class TestNoImprovement:
    @staticmethod
    def slow(values, n_epochs, tolerance):
        """scikit-learn's loop over the epochs."""
        best, count, stops = np.inf, 0, []
        for value in values:
            count = 0 if value <= best - tolerance else count + 1
            best = np.fmin(best, value)
            stops.append(count >= n_epochs)
        return stops

    @given(
        values=st.lists(st.integers(0, 8) | st.just(np.nan), min_size=1, max_size=20),
        n_epochs=st.integers(1, 4),
        tolerance=st.sampled_from([0, 0.5, 1, 2]),
    )
    def test_it_is_scikit_learns_rule(self, values, n_epochs, tolerance):
        rule = no_improvement(n_epochs, tolerance)
        series = np.array(values, dtype=float)
        assert_array_equal(
            rule.stops({"running_loss": series}), self.slow(values, n_epochs, tolerance)
        )

    def test_it_stops_scikit_learns_own_classifier_at_the_same_epoch(self):
        linear_model = pytest.importorskip("sklearn.linear_model")
        rng = np.random.default_rng(0)
        features = rng.normal(size=(200, 3))
        targets = features @ [1.0, -2.0, 0.5] + rng.normal(size=200)
        settings = dict(alpha=0, learning_rate="constant", eta0=1e-3, shuffle=False)
        model = linear_model.SGDRegressor(
            **settings, tol=1e-3, n_iter_no_change=4, max_iter=1000, fit_intercept=False
        ).fit(features, targets)
        # The same passes by hand: half the squared error of each sample, before its update.
        w, running = np.zeros(3), []
        for _ in range(model.n_iter_ + 10):
            losses = []
            for x, y in zip(features, targets, strict=True):
                error = x @ w - y
                losses.append(error**2 / 2)
                w -= 1e-3 * error * x
            running.append(np.mean(losses))
        stops = no_improvement(4, 1e-3).stops({"running_loss": np.array(running)})
        assert stops.argmax() + 1 == model.n_iter_
        assert 1 < model.n_iter_ < 1000

    def test_it_looks_at_the_quantity_it_is_given(self):
        rule = no_improvement(1, quantity="empirical_risk")
        assert rule.quantities == {"empirical_risk"}
        assert reason(rule, {"empirical_risk": np.array([1.0, 1.0])}) == rule.name
        assert rule.name == "no_improvement(1, tolerance=0.001, quantity='empirical_risk')"


def test_a_rule_of_ones_own_joins_like_any_other():
    rising = StoppingRule("rising", "running_loss", lambda v: np.diff(v, prepend=np.inf) > 0)
    assert (
        reason(running_loss_below(0.1) | rising, {"running_loss": np.array([1.0, 2])}) == "rising"
    )


def test_a_rule_joins_only_with_a_rule():
    with pytest.raises(TypeError):
        running_loss_below(0.1) | 3


@pytest.mark.parametrize("rule", BELOW)
@pytest.mark.parametrize("epsilon", [0, -0.1, np.nan, np.inf])
def test_a_threshold_that_is_not_positive_is_refused(rule, epsilon):
    with pytest.raises(ValueError, match="epsilon must be positive and finite, got"):
        rule(epsilon)


@pytest.mark.parametrize("rule", BELOW)
def test_a_threshold_that_is_not_a_number_is_refused(rule):
    with pytest.raises(TypeError, match=r"epsilon must be a number, got '0.1' of type str"):
        rule("0.1")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: no_improvement(0), ValueError, "n_epochs must be at least 1, got 0"),
        (lambda: no_improvement(2.5), TypeError, "n_epochs must be an integer, got 2.5"),
        (
            lambda: no_improvement(1, -1),
            ValueError,
            "tolerance must be positive and finite, got -1",
        ),
        (
            lambda: no_improvement(1, quantity="loss"),
            ValueError,
            "quantity must be one of .*'loss'",
        ),
        (lambda: epochs_reached(0), ValueError, "n_epochs must be at least 1, got 0"),
    ],
)
def test_a_bad_number_or_quantity_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
