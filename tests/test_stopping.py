import numpy as np
import pytest

from sgd_analysis import (
    History,
    last_batch_loss_below,
    mean_batch_loss_below,
    running_loss_below,
)

RULES = [running_loss_below, mean_batch_loss_below, last_batch_loss_below]


def epoch(loss, n_samples):
    return History(np.array(loss), np.array(n_samples), np.zeros(2, int), np.ones((2, 1)), 1)


# Size-weighted 2.6, unweighted 2, last 1: each rule sees another number.
EPOCH = epoch([3.0, 1.0], [8, 2])


@pytest.mark.parametrize(("rule", "value"), list(zip(RULES, [2.6, 2.0, 1.0], strict=True)))
def test_a_rule_fires_strictly_below_its_threshold(rule, value):
    assert rule(value * 1.001).reason(EPOCH) == f"{rule.__name__}({value * 1.001:g})"
    assert rule(value).reason(EPOCH) is None
    assert rule(value * 0.999).reason(EPOCH) is None


def test_a_loss_that_is_not_a_number_fires_no_rule():
    broken = epoch([np.nan, np.nan], [1, 1])
    assert [rule(1e9).reason(broken) for rule in RULES] == [None] * 3


def test_an_unfinished_epoch_fires_no_rule():
    unfinished = History(EPOCH.loss, EPOCH.n_samples, EPOCH.epoch, EPOCH.step_size, 0)
    assert [rule(1e9).reason(unfinished) for rule in RULES] == [None] * 3


def test_joined_rules_give_the_reason_of_the_first_that_holds():
    rules = running_loss_below(0.1) | mean_batch_loss_below(2.5) | last_batch_loss_below(2)
    assert rules.reason(EPOCH) == "mean_batch_loss_below(2.5)"
    assert (running_loss_below(0.1) | last_batch_loss_below(0.1)).reason(EPOCH) is None
    nested = running_loss_below(0.1) | (mean_batch_loss_below(0.1) | last_batch_loss_below(2))
    assert nested.reason(EPOCH) == "last_batch_loss_below(2)"
    assert repr(nested).count("|") == 2


def test_a_rule_joins_only_with_a_rule():
    with pytest.raises(TypeError):
        running_loss_below(0.1) | 3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("epsilon", [0, -0.1, np.nan, np.inf])
def test_a_threshold_that_is_not_positive_is_refused(rule, epsilon):
    with pytest.raises(ValueError, match="epsilon must be positive and finite, got"):
        rule(epsilon)


@pytest.mark.parametrize("rule", RULES)
def test_a_threshold_that_is_not_a_number_is_refused(rule):
    with pytest.raises(TypeError, match=r"epsilon must be a number, got '0.1' of type str"):
        rule("0.1")
