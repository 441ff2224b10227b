"""What comes again, on loaders of which it is known."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, TensorDataset

from sgd_analysis import History, record, repeated_samples
from sgd_analysis.history.fingerprints import Fingerprints
from tests.diagnosis.test_order_correlation import buffered

N, BATCH, N_EPOCHS = 400, 8, 3
INPUTS = torch.arange(1.0, N + 1)[:, None]
DATA = TensorDataset(INPUTS)


def recorded(loader, before_epoch=lambda e: None):
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 1e-9)
    with record(optimizer, also=["fingerprints"]) as recorder:
        for e in range(N_EPOCHS):
            before_epoch(e)
            for inputs, *_ in loader:
                optimizer.zero_grad()
                (weight * inputs).square().mean().backward()
                optimizer.step()
    return recorder.history


def found(loader, *args):
    return repeated_samples(recorded(loader, *args))


def of(*epochs, ranks=()):
    """What is found in a history of these samples, one step an epoch."""
    return repeated_samples(seen(*epochs, ranks=ranks))


def seen(*epochs, ranks=()):
    n, ends = len(epochs), np.cumsum([len(epoch) for epoch in epochs])
    fingerprints = Fingerprints(np.concatenate(epochs).astype(np.uint64), ends)
    columns = np.ones(n), np.ones(n), np.arange(n), np.ones((n, 1))
    return History(*columns, n, fingerprints=fingerprints, ranks=ranks)


class TestOfALoader:
    def test_a_shuffle(self):
        result = found(DataLoader(DATA, BATCH, shuffle=True))
        assert_array_equal(result.within, 0)
        assert_array_equal(result.again, [np.nan, 1, 1])
        assert max(result.in_place[1:]) < 0.02 and max(result.neighbours[1:]) < 0.02
        assert np.abs(result.order[1:]).max() < 4 / N**0.5
        assert "in another order" in repr(result)

    def test_no_shuffle(self):
        result = found(DataLoader(DATA, BATCH))
        for name in ("again", "in_place", "neighbours"):
            assert_array_equal(getattr(result, name), [np.nan, 1, 1])
        assert_allclose(result.order, [np.nan, 1, 1], rtol=1e-12)
        assert "shuffle=True, or set_epoch" in repr(result)

    def test_a_distributed_sampler_whose_epoch_is_not_set_and_one_whose_is(self):
        sampler = DistributedSampler(DATA, num_replicas=1, rank=0)
        loader = DataLoader(DATA, BATCH, sampler=sampler)
        assert_array_equal(found(loader).in_place, [np.nan, 1, 1])
        assert found(loader, sampler.set_epoch).in_place[1:].max() < 0.05

    def test_whole_batches_that_are_shuffled(self):
        batches = [*BatchSampler(range(N), BATCH, drop_last=False)]
        loader = DataLoader(batches, None, shuffle=True, collate_fn=lambda batch: [INPUTS[batch]])
        result = found(loader)
        assert_allclose(result.neighbours[1:], 1 - 1 / BATCH, atol=0.03)
        assert result.in_place[1:].max() < 0.2 and "whole batches" in repr(result)

    @pytest.mark.parametrize(("size", "least", "most"), [(10, 0.98, 1), (100, 0.5, 0.95)])
    def test_a_shuffle_buffer(self, size, least, most):
        rng = np.random.default_rng(0)
        epochs = [buffered(N, size, rng) for _ in range(N_EPOCHS)]
        result = of(*epochs)
        assert least < result.order[1:].min() and result.order[1:].max() < most
        assert "shuffle buffer" in repr(result) and result.neighbours[1:].max() < 0.3

    def test_a_shuffle_of_a_few_is_not_taken_for_a_small_buffer(self):
        rng = np.random.default_rng(0)
        runs = [of(*(rng.permutation(40) for _ in range(N_EPOCHS))) for _ in range(100)]
        assert sum("buffer" in repr(run) for run in runs) <= 2
        assert sum(np.nanmean(run.order) > 0.1 for run in runs) > 10  # which would be too little
        spread = np.std([run.order[1:] for run in runs])
        assert_allclose(runs[0].order_error, [np.nan, 39**-0.5, 39**-0.5])
        assert_allclose(spread, 39**-0.5, rtol=0.2)

    def test_augmentation_that_is_drawn_anew_and_once_and_for_all(self):
        class Augmented(Dataset):
            def __init__(self, anew):
                self.anew = anew

            def __len__(self):
                return N

            def __getitem__(self, i):
                generator = None if self.anew else torch.Generator().manual_seed(i)
                return (INPUTS[i] + torch.randn(1, generator=generator),)

        anew = found(DataLoader(Augmented(True), BATCH, shuffle=True))
        assert_array_equal(anew.again, [np.nan, 0, 0])
        assert np.isnan(anew.order).all() and "drawn anew" in repr(anew)
        assert_array_equal(found(DataLoader(Augmented(False), BATCH)).again, [np.nan, 1, 1])

    @pytest.mark.parametrize("n_workers", [2, 4])
    def test_workers_of_which_each_gives_all(self, n_workers):
        every = INPUTS.repeat(n_workers, 1)
        result = found(DataLoader(TensorDataset(every), BATCH, shuffle=True))
        assert_allclose(result.within, 1 - 1 / n_workers)
        assert "do the workers share them out" in repr(result)

    def test_drawing_with_replacement(self):
        sampler = torch.utils.data.RandomSampler(DATA, replacement=True)
        result = found(DataLoader(DATA, BATCH, sampler=sampler))
        assert_allclose(result.within, np.exp(-1), atol=0.07)
        assert_allclose(result.again[1:], 1 - np.exp(-1), atol=0.12)


class TestBetweenRanks:
    def test_ranks_with_the_same_samples(self):
        rank = seen(range(30), range(30))
        result = of([*range(30)] * 2, [*range(30)] * 2, ranks=(rank, rank))
        assert_array_equal(result.between_ranks, [1, 1])
        assert_array_equal(result.within, [0.5, 0.5])
        assert "ranks see the same samples" in repr(result)

    def test_ranks_that_share_the_samples_but_for_one(self):
        ranks = seen(range(30), range(30)), seen(range(30, 60), range(29, 59))
        result = of(range(60), range(60), ranks=ranks)
        assert_allclose(result.between_ranks, [0, 1 / 30])

    def test_a_single_process(self):
        assert_array_equal(of(range(30)).between_ranks, [np.nan])


class TestByHand:
    def test_shares_of_a_few(self):
        result = of([1, 2, 3, 4], [1, 3, 4, 5], [])
        assert_array_equal(result.within, [0, 0, np.nan])
        assert_array_equal(result.again, [np.nan, 0.75, np.nan])
        assert_array_equal(result.in_place, [np.nan, 0.25, np.nan])
        assert_allclose(result.neighbours, [np.nan, 1 / 3, np.nan])
        assert np.isnan(result.order).all()  # of three samples

    def test_what_comes_several_times_has_the_place_of_the_first(self):
        first = np.arange(25)
        result = of([*first, *first[::-1]], [*first, *first])
        assert_allclose(result.order[1], 1)
        assert_array_equal(result.within, [0.5, 0.5])

    def test_an_epoch_that_was_not_kept_whole_is_unknown(self):
        part = Fingerprints(np.arange(3), [3])
        history = History(np.ones(3), np.ones(3), [0, 1, 1], np.ones((3, 1)), 2, fingerprints=part)
        result = repeated_samples(history)
        assert_array_equal(result.within, [0, np.nan])
        assert np.isnan(result.again).all() and "takes two epochs" in repr(result)
        assert "recorder's warnings say why" in repr(repeated_samples(history[1:]))

    def test_without_a_finished_epoch(self):
        result = repeated_samples(seen(range(3))[1:])
        assert result.within.shape == result.order.shape == (0,)
        assert "nothing known" in repr(result)

    def test_without_fingerprints(self):
        bare = History(np.ones(1), np.ones(1), [0], np.ones((1, 1)), 1)
        with pytest.raises(ValueError, match=r"record\(\.\.\., also="):
            repeated_samples(bare)
        with pytest.raises(TypeError, match="history must be a History"):
            repeated_samples(None)


class TestFingerprints:
    @pytest.mark.parametrize(
        ("values", "ends", "error"),
        [
            ([1, 2], [1], "as many fingerprints"),
            ([[1]], [1], "as many fingerprints"),
            ([1], [], "as many fingerprints"),
            ([1, 2], [3, 2], "must not decrease"),
        ],
    )
    def test_that_do_not_fit_together(self, values, ends, error):
        with pytest.raises(ValueError, match=error):
            Fingerprints(values, ends)

    def test_of_more_steps_than_there_are(self):
        with pytest.raises(ValueError, match="first of 1 steps, got 2 ends"):
            seen([1]).__class__(
                np.ones(1),
                np.ones(1),
                [0],
                np.ones((1, 1)),
                1,
                fingerprints=Fingerprints([], [0, 0]),
            )
