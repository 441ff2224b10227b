"""The correlation of successive epochs' losses, on runs of which it is known how they shuffle."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History, OrderCorrelation, order_correlation, quadratic_fit

N_SEEDS, N_EPOCHS = 200, 6


def history_of(losses, n_samples=None):
    """The history of a run with these batch losses, a list for each epoch."""
    sizes = list(map(len, losses))
    epoch = np.repeat(np.arange(len(losses)), sizes)
    loss = np.concatenate(losses)
    n_samples = np.full(len(loss), 10.0) if n_samples is None else n_samples
    return History(loss, n_samples, epoch, np.ones((len(loss), 1)), len(losses))


def buffered(n, size, rng):
    """What a shuffle buffer of this size makes of n samples in their order."""
    held, order = list(range(min(size, n))), []
    for incoming in [*range(size, n), *[None] * min(size, n)]:
        place = rng.integers(len(held))
        held[place], held[-1] = held[-1], held[place]
        order.append(held.pop())
        if incoming is not None:
            held.append(incoming)
    return order


def shuffled(n, size, rng):
    return rng.permutation(n)


def losses_of(order, n_seeds=N_SEEDS, *, size=None, n=2000, lr=1e-5, momentum=0.0, schedule=None):
    """The batch losses (n_seeds, N_EPOCHS, m) of SGD on a parabola with noise, sorted by x."""
    rng = np.random.default_rng(0)
    problem = quadratic_fit()
    kept = np.linspace(0, 1999, n).astype(int)
    features, targets = problem.features[kept], np.asarray(problem.targets, float)[kept]
    targets = targets + 3 * rng.normal(size=n)
    weights = np.zeros((n_seeds, 3))
    velocity, losses = np.zeros_like(weights), []
    starts = range(0, n, 10)
    for _ in range(N_EPOCHS):
        visits = np.array([order(n, size, rng) for _ in range(n_seeds)])
        for start in starts:
            batch = visits[:, start : start + 10]
            rest = np.einsum("sbp,sp->sb", features[batch], weights) - targets[batch]
            losses.append(np.mean(rest**2, axis=1))
            gradient = 2 * np.einsum("sb,sbp->sp", rest, features[batch]) / batch.shape[1]
            velocity = momentum * velocity + gradient
            done = len(losses) / (N_EPOCHS * len(starts))
            weights = weights - lr * (schedule(done) if schedule else 1.0) * velocity
    return np.array(losses).T.reshape(n_seeds, N_EPOCHS, len(starts))


def found(losses, n_samples=None):
    return [order_correlation(history_of([*run], n_samples)) for run in losses]


def falling(done):
    return 0.5 * (1 + math.cos(math.pi * done))


def one_cycle(done):
    return float(np.interp(done, [0, 0.3, 1], [0.04, 1, 0.001]))


NULLS = {
    "SGD": {},
    "steep": {"lr": 1e-4},
    "momentum": {"lr": 1e-6, "momentum": 0.9},
    "cosine": {"lr": 1e-4, "schedule": falling},
    "one cycle": {"lr": 1e-5, "momentum": 0.9, "schedule": one_cycle},
    "twenty batches": {"lr": 1e-4, "n": 200},
}


@pytest.mark.parametrize("settings", NULLS.values(), ids=NULLS)
def test_a_shuffle_is_within_two_standard_errors_of_zero_19_times_of_20(settings):
    results = found(losses_of(shuffled, **settings))
    r = np.array([one.correlation for one in results])
    z = r / [one.standard_error for one in results]
    # Over 1000 pairs, not all independent: a binomial share's standard deviation is 0.007.
    assert 0.92 < np.mean(np.abs(z) < 2) < 0.985
    means = np.array([one.mean / one.error_of_mean for one in results])
    assert 0.90 < np.mean(np.abs(means) < 2) <= 1
    assert np.mean(means > 3) <= 0.02  # and the repr says that an order comes again


@pytest.mark.parametrize("memory", [0.5, 0.9, 0.98])
def test_the_error_knows_of_losses_that_rise_and_fall_slowly(memory):
    rng = np.random.default_rng(1)
    noise, losses = rng.normal(size=(N_SEEDS, 2 * 400)), np.zeros((N_SEEDS, 2 * 400))
    for k in range(1, 800):
        losses[:, k] = memory * losses[:, k - 1] + noise[:, k]
    losses = losses.reshape(N_SEEDS, 2, 400)
    results = found(np.delete(losses, range(100), axis=2))  # so that epochs are independent
    z = np.array([one.correlation / one.standard_error for one in results])
    assert np.mean(np.abs(z) < 2) > 0.91
    naive = np.array([one.correlation * math.sqrt(300) for one in results])
    assert np.mean(np.abs(naive) < 2) < (0.93 if memory == 0.5 else 0.7)


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [(1, 0.95, 1), (5, 0.85, 1), (50, 0.7, 1), (200, 0.6, 0.97), (2000, -0.15, 0.15)],
)
def test_the_smaller_a_shuffle_buffer_the_larger_it_is(size, least, most):
    results = found(losses_of(buffered, 5, size=size))
    means = np.array([one.mean for one in results])
    assert least <= means.min() and means.max() <= most
    sure = [one.mean > 3 * one.error_of_mean for one in results]
    assert all(sure) if size < 2000 else not any(sure)


def test_a_shuffled_order_that_stays_the_same_is_seen_as_well():
    rng = np.random.default_rng(0)
    order = rng.permutation(2000)
    (one,) = found(losses_of(lambda *_: order, 1))
    assert one.mean > 0.9 and "comes again" in repr(one)


class TestTheSmallBatchAtTheEnd:
    SIZES = np.tile([10.0] * 199 + [1.0], N_EPOCHS)

    def test_does_not_count(self):
        losses = losses_of(shuffled, n=1991)
        means = np.array([r.mean / r.error_of_mean for r in found(losses, self.SIZES)])
        assert np.mean(means > 2) < 0.06
        # If it did, the logarithm of a single sample's loss would be far below the others.
        means = np.array([r.mean / r.error_of_mean for r in found(losses)])
        assert np.mean(means > 2) > 0.12

    def test_nor_do_losses_that_are_nan(self):
        losses = np.random.default_rng(0).exponential(size=(2, 50))
        expected = order_correlation(history_of(np.delete(losses, 7, axis=1)))
        losses[1, 7] = np.nan
        assert_allclose(order_correlation(history_of(losses)).mean, expected.mean, atol=0.02)


def test_it_is_the_plain_correlation_of_what_a_straight_line_leaves():
    rng = np.random.default_rng(0)
    one, other = rng.exponential(size=(2, 80))
    k = np.arange(80)
    x, y = (np.log(v) - np.polyval(np.polyfit(k, np.log(v), 1), k) for v in (one, other))
    result = order_correlation(history_of([one, other]))
    assert_allclose(result.correlation, np.corrcoef(x, y)[0, 1], rtol=1e-10)

    def autocorrelation(v, lag):
        return v[lag:] @ v[: 80 - lag] / (v @ v)

    shared = 1 + 2 * sum(autocorrelation(x, j) * autocorrelation(y, j) for j in range(1, 80))
    assert_allclose(result.standard_error, np.sqrt(max(shared, 1) / 80), rtol=1e-10)


def test_a_fall_by_the_same_factor_at_each_step_counts_for_nothing():
    noise = np.random.default_rng(0).exponential(size=(2, 80))
    falls = noise * 0.8 ** np.arange(80)
    expected = order_correlation(history_of(noise))
    assert_allclose(order_correlation(history_of(falls)).correlation, expected.correlation)


def test_of_losses_that_are_not_positive_it_takes_no_logarithm():
    losses = np.random.default_rng(0).normal(size=(2, 80))
    result = order_correlation(history_of(losses))
    assert_allclose(result.mean, np.corrcoef(losses)[0, 1], atol=0.1)
    assert_allclose(order_correlation(history_of(losses - 50)).mean, result.mean, rtol=1e-9)


class TestUnknown:
    @pytest.mark.parametrize(
        ("losses", "why"),
        [
            ([np.ones(30), np.ones(31)], "30 and 31 batches have no places in common"),
            ([np.arange(1.0, 20)] * 2, "19 batches are too few: it takes 20"),
            ([np.ones(30)] * 2, "do not vary"),
            ([np.full(30, np.nan), np.arange(30.0)], "0 batches are too few"),
        ],
    )
    def test_it_says_why(self, losses, why):
        result = order_correlation(history_of(losses))
        assert_array_equal(result.correlation, [np.nan])
        assert_array_equal(result.standard_error, [np.nan])
        assert why in result.unknown[0] and why in repr(result)

    def test_the_mean_is_over_those_that_are_known(self):
        known = order_correlation(history_of(np.random.default_rng(0).exponential(size=(2, 30))))
        values = np.array([np.nan, *known.correlation]), np.array([np.nan, *known.standard_error])
        result = OrderCorrelation(*values, unknown=("too few", ""))
        assert result.mean == known.mean and result.error_of_mean == known.standard_error[0]
        assert "over 1 pair of epochs" in repr(result)

    def test_of_a_single_epoch(self):
        result = order_correlation(history_of([np.ones(30)]))
        assert result.correlation.shape == (0,) and math.isnan(result.mean)
        assert repr(result) == "OrderCorrelation(unknown: no two epochs have ended)"

    def test_of_something_else(self):
        with pytest.raises(TypeError, match="history must be a History"):
            order_correlation([1.0])


def test_where_the_number_of_samples_is_not_known_all_batches_count():
    losses = np.random.default_rng(0).exponential(size=(2, 30))
    unknown = history_of(losses, np.full(60, np.nan))
    assert_allclose(order_correlation(unknown).mean, order_correlation(history_of(losses)).mean)
