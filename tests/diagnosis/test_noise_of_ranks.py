import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History, LeastSquares, noise_of_ranks
from sgd_analysis.history.vectors import Vectors
from tests.surveying.surveyed_models import one_by_one

N = 6
RNG = np.random.default_rng(0)
PROBLEM = LeastSquares(RNG.normal(size=(N, 3)), RNG.normal(size=N))
SURVEY = PROBLEM.survey(RNG.normal(size=3), one_by_one(N))  # the true values


def vectors(gradients, *, kept=True):
    return Vectors(gradients if kept else gradients[:0], np.linalg.norm(gradients, axis=-1))


def gathered(gradients, sizes, *, kept=True, steps_per_epoch=None, sums=False, after=1.0):
    """The history of ranks with mean gradients (K, T, P) of batches of so many samples (K, T).

    What the loop does after averaging, clipping say, multiplies the gradients by `after`.
    """
    n_ranks, n_steps, _ = gradients.shape
    sizes = np.broadcast_to(sizes, (n_ranks, n_steps)).astype(float)
    epoch = np.arange(n_steps) // (steps_per_epoch or n_steps)
    row = {"loss": np.ones(n_steps), "epoch": epoch, "n_epochs": epoch[-1] + 1}
    row |= {"step_size": np.zeros((n_steps, 1))}
    local = gradients * sizes[:, :, None] if sums else gradients
    ranks = tuple(
        History(
            **row,
            n_samples=own_sizes,
            gradients=vectors(local.mean(axis=0), kept=kept),
            local_gradients=vectors(own, kept=kept),
            divisor=own_sizes if sums else None,
        )
        for own, own_sizes in zip(local, sizes, strict=True)
    )
    return History(
        **row,
        n_samples=sizes.sum(axis=0),
        gradients=vectors(after * local.mean(axis=0), kept=kept),
        divisor=sizes.mean(axis=0) if sums else None,
        ranks=ranks,
    )


def of_batches(steps, **settings):
    """The history of ranks that have, at each step, batches of the problem's samples."""
    gradients = [[SURVEY.gradient[list(batch)].mean(axis=0) for batch in step] for step in steps]
    sizes = np.array([[len(batch) for batch in step] for step in steps])
    return gathered(np.array(gradients).swapaxes(0, 1), sizes.T, **settings)


def random_ranks(rng, n_steps, n_ranks=3, batch_size=4, mean=1.0):
    """Batches of 4 of unit noise in 5 directions: the noise scale is 5 / (5 mean²)."""
    noise = rng.normal(size=(n_ranks, n_steps, 5)) / batch_size**0.5
    return gathered(mean + noise, batch_size)


def assert_expected(found, rtol=1e-12):
    assert_allclose(found.gradient_variance, SURVEY.gradient_variance(), rtol)
    assert_allclose(found.full_gradient_norm_squared, SURVEY.full_gradient_norm**2, rtol)
    if found.unknown[0]:
        assert found.unknown[0].startswith("it is ")  # not far below six samples
    else:
        assert_allclose(found.gradient_noise_scale, SURVEY.gradient_noise_scale(), rtol)


class TestExpectations:
    """At fixed weights, with all ways to deal out the samples as the steps of one epoch."""

    @pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (1, 1, 1), (2, 2, 2)])
    @pytest.mark.parametrize("sums", [True, False])
    def test_of_disjoint_batches(self, sizes, sums):
        assert_expected(noise_of_ranks(self.disjoint(sizes, sums=sums), n_samples=N))

    @pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (1, 1, 1)])
    def test_of_disjoint_batches_of_whose_gradients_only_norms_are_kept(self, sizes):
        assert_expected(noise_of_ranks(self.disjoint(sizes, kept=False), n_samples=N))

    @staticmethod
    def disjoint(sizes, **settings):
        edges = np.cumsum([0, *sizes])
        steps = [
            [order[start:end] for start, end in itertools.pairwise(edges)]
            for order in itertools.permutations(range(N))
        ]
        return of_batches(steps, **settings)

    @pytest.mark.parametrize("n_ranks", [2, 3])
    def test_of_batches_that_are_drawn_anew(self, n_ranks):
        batches = list(itertools.product(range(N), repeat=2))[:: 1 if n_ranks == 2 else 5]
        if n_ranks == 3:
            batches = [(i,) for i in range(N)]
        steps = list(itertools.product(batches, repeat=n_ranks))
        assert_expected(noise_of_ranks(of_batches(steps), n_samples=math.inf))

    def test_along_epochs_that_move_the_weights(self):
        """The means of what surveys of all samples find at the weights of each step."""
        n, runs, exact = 2000, [], []
        rng = np.random.default_rng(0)
        features = rng.normal(size=(n, 5)) * [1, 1, 2, 2, 3]
        targets = features @ np.ones(5) + 2 * rng.normal(size=n)
        for _ in range(60):
            w, gradients = np.zeros(5), []
            for batches in rng.permutation(n).reshape(-1, 4, 5):
                each = 2 * (features @ w - targets)[:, None] * features
                full = each.mean(axis=0)
                exact.append([np.sum((each - full) ** 2) / n, full @ full])
                gradients.append([each[batch].mean(axis=0) for batch in batches])
                w = w - 1e-3 * np.mean(gradients[-1], axis=0)
            runs.append(noise_of_ranks(gathered(np.array(gradients).swapaxes(0, 1), 5)))
        variance, square = np.reshape(exact, (60, -1, 2)).mean(axis=1).T
        found = np.concatenate([run.gradient_noise_scale for run in runs])
        errors = np.concatenate([run.standard_error for run in runs])
        z = (found - variance / square) / errors
        assert abs(z.mean()) < 4 / 60**0.5 and z.std() < 1.3

    def test_by_default_no_sample_of_an_epoch_comes_twice(self):
        history = random_ranks(np.random.default_rng(0), 20)
        found, same = noise_of_ranks(history), noise_of_ranks(history, n_samples=20 * 3 * 4)
        assert_array_equal(found.gradient_noise_scale, same.gradient_noise_scale)
        drawn_anew = noise_of_ranks(history, n_samples=math.inf)
        variance = drawn_anew.gradient_variance * (1 - 1 / 240)
        assert_allclose(found.gradient_variance, variance, rtol=1e-12)

    def test_each_epoch_has_its_own(self):
        rng = np.random.default_rng(0)
        gradients = np.array([1.0, 3.0]).repeat(400)[:, None] + rng.normal(size=(2, 800, 5))
        history = gathered(gradients, 1, steps_per_epoch=400)
        found = noise_of_ranks(history, n_samples=math.inf)
        assert found.gradient_noise_scale.shape == (2,)
        assert_allclose(found.gradient_noise_scale, [1, 1 / 9], rtol=0.2)
        alone = noise_of_ranks(history[1], n_samples=math.inf)
        assert_array_equal(alone.gradient_noise_scale, found.gradient_noise_scale[1:])


class TestStandardError:
    def test_it_is_that_of_many_epochs(self):
        rng = np.random.default_rng(0)
        runs = [noise_of_ranks(random_ranks(rng, 50), n_samples=math.inf) for _ in range(300)]
        scales = np.array([run.gradient_noise_scale[0] for run in runs])
        errors = np.array([run.standard_error[0] for run in runs])
        assert abs(scales.mean() - 1) < 4 * scales.std() / 300**0.5 + 0.01  # a quotient's bias
        z = (scales - 1) / errors
        assert 0.85 < z.std() < 1.2  # of 300: 1 ± 0.04, were they normal

    def test_too_few_steps_are_no_estimate(self):
        found = noise_of_ranks(random_ranks(np.random.default_rng(0), 9))
        assert np.isnan(found.gradient_noise_scale[0]) and np.isnan(found.standard_error[0])
        assert found.unknown == ("9 steps are too few for an estimate: it takes 10",)
        assert found.gradient_variance[0] > 0
        assert noise_of_ranks(random_ranks(np.random.default_rng(0), 10)).unknown == ("",)

    def test_a_gradient_that_noise_may_hide_gives_none_either(self):
        found = noise_of_ranks(random_ranks(np.random.default_rng(0), 40, mean=0.0))
        assert np.isnan(found.gradient_noise_scale[0])
        assert found.unknown[0].startswith("‖∇F‖² cannot be told from zero, ")
        assert_allclose(found.gradient_variance, 5, rtol=0.3)

    def test_nor_does_one_that_is_not_far_below_the_samples_that_an_epoch_deals_out(self):
        noise = np.random.default_rng(0).normal(size=(3, 40, 200)) / 2
        history = gathered(0.1 + noise, 4)  # a noise scale of 100, and 480 samples
        found = noise_of_ranks(history)
        assert np.isnan(found.gradient_noise_scale[0])
        assert "times the number of samples that the epoch deals out" in found.unknown[0]
        drawn_anew = noise_of_ranks(history, n_samples=math.inf)
        assert_allclose(drawn_anew.gradient_noise_scale, 100, rtol=0.25)


class TestWhatTheLoopDoesToGradients:
    def test_clipping_does_not_matter_where_the_vectors_are_kept(self):
        history = random_ranks(np.random.default_rng(0), 40)
        clipped = replace(history, gradients=vectors(0.1 * history.gradient))
        found, expected = noise_of_ranks(clipped), noise_of_ranks(history)
        assert_array_equal(found.gradient_noise_scale, expected.gradient_noise_scale)

    @pytest.mark.parametrize("limit", [1.0, 100.0])
    def test_clipping_is_noticed_where_only_norms_are(self, limit):
        rng = np.random.default_rng(0)
        gradients = 1 + rng.normal(size=(2, 40, 5))
        norm = np.linalg.norm(gradients.mean(axis=0), axis=1)
        after = np.minimum(limit / (norm + 1e-6), 1)[:, None]
        found = noise_of_ranks(gathered(gradients, 1, kept=False, after=after))
        is_clipped = limit == 1.0
        assert np.isnan(found.gradient_noise_scale[0]) == is_clipped
        assert ("clipped or rescaled after averaging" in found.unknown[0]) == is_clipped

    def test_so_is_a_gradient_longer_than_the_mean_of_the_ranks_norms(self):
        gradients = 1 + np.random.default_rng(0).normal(size=(2, 40, 5))
        found = noise_of_ranks(gathered(gradients, 1, kept=False, after=8.0))
        assert "clipped or rescaled after averaging" in found.unknown[0]

    def test_so_is_a_scalers_factor_that_only_the_ranks_norms_have(self):
        gradients = 1 + np.random.default_rng(0).normal(size=(2, 40, 5))
        found = noise_of_ranks(gathered(1024 * gradients, 1, kept=False, after=1 / 1024))
        assert "clipped or rescaled after averaging" in found.unknown[0]

    def test_a_scalers_factor_leaves_the_noise_scale_as_it_is(self):
        gradients = 1 + np.random.default_rng(0).normal(size=(2, 40, 5))
        found = noise_of_ranks(gathered(1024 * gradients, 1, after=1 / 1024))
        expected = noise_of_ranks(gathered(gradients, 1))
        assert_allclose(found.gradient_noise_scale, expected.gradient_noise_scale, rtol=1e-12)
        assert_allclose(found.standard_error, expected.standard_error, rtol=1e-10)

    @pytest.mark.parametrize("kept", [True, False])
    def test_steps_that_were_skipped_and_empty_batches_do_not_count(self, kept):
        rng = np.random.default_rng(0)
        gradients = 1 + rng.normal(size=(2, 40, 5))
        sizes = np.ones((2, 40))
        expected = noise_of_ranks(gathered(gradients[:, :38], 1, kept=kept), n_samples=99)
        gradients[:, 38], gradients[1, 39], sizes[1, 39] = math.inf, math.nan, 0
        history = gathered(gradients, sizes, kept=kept)
        found = noise_of_ranks(replace(history, skipped=np.arange(40) == 38), n_samples=99)
        assert_array_equal(found.gradient_noise_scale, expected.gradient_noise_scale)
        assert_array_equal(found.standard_error, expected.standard_error)


class TestRefusals:
    def test_no_history_of_several_ranks(self):
        with pytest.raises(TypeError, match="history must be a History, got Survey"):
            noise_of_ranks(SURVEY)
        history = random_ranks(np.random.default_rng(0), 10)
        for alone in (history.ranks[0], replace(history, ranks=history.ranks[:1])):
            with pytest.raises(ValueError, match=r"at least two ranks, got one of [01]: give"):
                noise_of_ranks(alone)

    def test_no_local_gradients(self):
        history = random_ranks(np.random.default_rng(0), 10)
        ranks = tuple(replace(rank, local_gradients=None) for rank in history.ranks)
        with pytest.raises(ValueError, match="ranks' own gradients were not recorded"):
            noise_of_ranks(replace(history, ranks=ranks))

    def test_sizes_that_are_not_known(self):
        history = random_ranks(np.random.default_rng(0), 10)
        unknown = np.full(10, math.nan)
        ranks = tuple(replace(rank, n_samples=unknown) for rank in history.ranks)
        with pytest.raises(ValueError, match=r"is a number of samples.*record\(\.\.\., n_samples="):
            noise_of_ranks(replace(history, ranks=ranks))

    def test_samples_that_weigh_differently(self):
        history = random_ranks(np.random.default_rng(0), 10)
        first = replace(history.ranks[0], denominator=np.arange(10) + 1.0)
        with pytest.raises(ValueError, match=r"weigh the same.* between 0\.25 and 2\.5 times"):
            noise_of_ranks(replace(history, ranks=(first, *history.ranks[1:])))

    @pytest.mark.parametrize("n_samples", [1, 0, math.nan])
    def test_numbers_of_samples_that_are_none(self, n_samples):
        with pytest.raises(ValueError, match="n_samples must be at least 2"):
            noise_of_ranks(random_ranks(np.random.default_rng(0), 10), n_samples=n_samples)


def test_an_epoch_that_is_not_finished_has_none():
    history = replace(random_ranks(np.random.default_rng(0), 10), n_epochs=0)
    ranks = tuple(replace(rank, n_epochs=0) for rank in history.ranks)
    found = noise_of_ranks(replace(history, ranks=ranks))
    assert found.gradient_noise_scale.shape == (0,) and found.unknown == ()
