import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.utils.data import DataLoader, RandomSampler

from sgd_analysis import (
    LeastSquares,
    batches,
    cyclic,
    epoch_operator,
    independent,
    reshuffle,
    shuffle_once,
    train,
    train_ensemble,
    with_replacement,
)
from sgd_analysis.orders import ORDERS, checked_epochs, known_order

SIZES = dict(
    n_samples=st.integers(1, 60), batch_size=st.integers(1, 60), seed=st.integers(0, 2**31)
)


def epochs(order, n_samples, batch_size, seed, n=3):
    generator = torch.Generator().manual_seed(seed)
    return list(itertools.islice(order(n_samples, batch_size, generator), n))


def in_batches(epochs, batch_size):
    return [[batch.tolist() for batch in batches(e, min(batch_size, len(e)))] for e in epochs]


def of_a_loader(n_samples, batch_size, seed, n=3, generator=None, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loader = DataLoader(
            torch.arange(n_samples), batch_size=batch_size, generator=generator, **options
        )
        return [[batch.tolist() for batch in loader] for _ in range(n)]


@pytest.mark.parametrize("order", [cyclic, shuffle_once, reshuffle])
@given(**SIZES)
def test_each_index_is_visited_once_an_epoch(order, n_samples, batch_size, seed):
    for epoch in epochs(order, n_samples, batch_size, seed):
        assert sorted(epoch.tolist()) == list(range(n_samples))


@given(**SIZES)
def test_shuffle_once_keeps_the_first_order_of_reshuffle(n_samples, batch_size, seed):
    first, *_ = epochs(reshuffle, n_samples, batch_size, seed)
    for epoch in epochs(shuffle_once, n_samples, batch_size, seed):
        assert epoch.tolist() == first.tolist()


@pytest.mark.parametrize("order", [cyclic, shuffle_once])
def test_a_fixed_order_draws_one_number_an_epoch_as_a_dataloader_does(order):
    generator, expected = (torch.Generator().manual_seed(3) for _ in range(2))
    visits = order(7, 2, generator)
    next(visits)
    expected.set_state(generator.get_state())
    for _ in range(2):
        next(visits)
        torch.empty((), dtype=torch.int64).random_(generator=expected)
        assert torch.equal(generator.get_state(), expected.get_state())


class TestDataLoader:
    @given(**SIZES)
    def test_cyclic_is_the_one_without_shuffle(self, n_samples, batch_size, seed):
        expected = of_a_loader(n_samples, batch_size, seed)
        assert in_batches(epochs(cyclic, n_samples, batch_size, seed), batch_size) == expected

    @given(**SIZES)
    def test_reshuffle_is_the_one_with_shuffle_batch_for_batch(self, n_samples, batch_size, seed):
        expected = of_a_loader(n_samples, batch_size, seed, shuffle=True)
        found = epochs(reshuffle, n_samples, batch_size, seed)
        assert in_batches(found, batch_size) == expected

    @pytest.mark.parametrize("batch_size", [1, 4, 7, 50])
    def test_reshuffle_after_the_same_seed_leaves_the_same_random_state(self, batch_size):
        generator = torch.Generator().manual_seed(5)
        list(itertools.islice(reshuffle(50, batch_size, generator), 3))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            loader = DataLoader(torch.arange(50), batch_size=batch_size, shuffle=True)
            for _ in range(3):
                list(loader)
            assert torch.equal(torch.get_rng_state(), generator.get_state())

    @given(**SIZES)
    def test_with_an_explicit_generator_it_draws_another_way(self, n_samples, batch_size, seed):
        """The loader's generator is the sampler's, too, and one randperm is drawn at the end."""
        own = torch.Generator().manual_seed(seed)
        expected = of_a_loader(n_samples, batch_size, seed, generator=own, shuffle=True)

        def explicit(n_samples, batch_size, generator):
            while True:
                torch.empty((), dtype=torch.int64).random_(generator=generator)
                yield torch.randperm(n_samples, generator=generator)
                torch.randperm(n_samples, generator=generator)

        found = epochs(known_order(explicit), n_samples, batch_size, seed)
        assert in_batches(found, batch_size) == expected

    @given(**SIZES)
    def test_with_replacement_is_the_one_with_that_sampler(self, n_samples, batch_size, seed):
        sampler = RandomSampler(range(n_samples), replacement=True)
        expected = of_a_loader(n_samples, batch_size, seed, sampler=sampler)
        found = epochs(with_replacement, n_samples, batch_size, seed)
        assert in_batches(found, batch_size) == expected

    @pytest.mark.parametrize("drop_last", [False, True])
    @pytest.mark.parametrize(("n_samples", "batch_size"), [(10, 5), (11, 4), (3, 3), (5, 1)])
    def test_batches_are_those_of_a_loader(self, n_samples, batch_size, drop_last):
        expected = of_a_loader(n_samples, batch_size, 0, 1, drop_last=drop_last)[0]
        found = batches(np.arange(n_samples), batch_size, drop_last=drop_last)
        assert [batch.tolist() for batch in found] == expected


class TestIndependent:
    @given(**SIZES)
    def test_no_sample_comes_twice_in_a_batch(self, n_samples, batch_size, seed):
        batch_size = min(batch_size, n_samples)
        for epoch in epochs(independent, n_samples, batch_size, seed):
            assert len(epoch) == n_samples
            for batch in batches(epoch, batch_size):
                assert len(set(batch.tolist())) == len(batch)

    @pytest.mark.parametrize("batch_size", [2, 3])  # drawn in the one way, and in the other
    def test_each_subset_is_as_likely_as_any_other_and_independent_of_the_last(self, batch_size):
        n_samples, n_epochs = 5, 4000
        generator = torch.Generator().manual_seed(0)
        visits = independent(n_samples, batch_size, generator)
        subsets = list(itertools.combinations(range(n_samples), batch_size))
        firsts, pairs = [], []
        for epoch in itertools.islice(visits, n_epochs):
            whole = [
                subsets.index(tuple(sorted(b.tolist())))
                for b in batches(epoch, batch_size)
                if len(b) == batch_size
            ]
            firsts += whole
            pairs += itertools.pairwise(whole)
        for outcomes, n_kinds in ((firsts, len(subsets)), (pairs, len(subsets) ** 2)):
            if outcomes:
                counts = np.unique(np.array(outcomes), axis=0, return_counts=True)[1]
                expected = len(outcomes) / n_kinds
                chi_squared = ((counts - expected) ** 2).sum() / expected
                chi_squared += (n_kinds - len(counts)) * expected
                # Its mean is n_kinds − 1, its variance twice that; four standard deviations.
                assert chi_squared < n_kinds - 1 + 4 * math.sqrt(2 * (n_kinds - 1))


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_global_random_state_is_left_alone(order):
    before = torch.get_rng_state()
    epochs(order, 20, 4, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("indices", "batch_size", "message"),
    [
        ([[0, 1]], 1, r"indices must be a vector of whole numbers .*, got \[\[0, 1\]\]"),
        ([0.0, 1.0], 1, r"indices must be a vector of whole numbers .*, got \[0.0, 1.0\]"),
        ([True, False], 1, r"whole numbers \(of a mask, the positions where it is True\)"),
        ([0, 1], 3, r"batch_size must be between 1 and 2 \(the number of indices\), got 3"),
        ([0, 1], 0, r"batch_size must be between 1 and 2 \(the number of indices\), got 0"),
    ],
)
def test_what_cannot_be_split_is_refused(indices, batch_size, message):
    with pytest.raises(ValueError, match=message):
        batches(indices, batch_size)


def ends_early(n_samples, batch_size, generator):
    yield torch.arange(n_samples)


@pytest.mark.parametrize(
    ("epoch", "given"),
    [
        ("negative", [-1, 0]),
        ("too large", [0, 3]),
        ("empty", []),
        ("a matrix", [[0, 1]]),
        ("floating", [0.0, 1.0]),
        ("a mask", [True, False, True]),
        ("a mask in numpy", np.array([True, False, True])),
        ("a mask in torch", torch.tensor([True, False, True])),
        ("complex", torch.tensor([0j, 1j])),
        ("ragged", [[0], [1, 2]]),
        ("words", ["0", "1"]),
        ("partly masked", np.ma.masked_equal([0, 1, 2], 1)),
        ("nothing", None),
    ],
)
def test_an_epoch_that_is_not_indices_of_samples_is_refused(epoch, given):
    orders = checked_epochs(lambda n, b, g: iter([[0, 1, 2], given]), 3, 1, torch.Generator())
    assert next(orders).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"between 0 and 2, one an epoch .*; for epoch 1 it"):
        next(orders)


def test_an_order_that_ends_is_refused():
    orders = checked_epochs(ends_early, 3, 1, torch.Generator())
    next(orders)
    with pytest.raises(ValueError, match="without end, it ended after 1 epochs"):
        next(orders)


INTEGERS = {
    "a list": list,
    "a tuple": tuple,
    **{f"numpy.{t}": lambda i, t=t: np.array(i, t) for t in ("uint8", "int8", "uint16", "uint64")},
    **{f"torch.{t}": lambda i, t=t: torch.tensor(i, dtype=getattr(torch, t)) for t in
       ("uint8", "int8", "int16", "int32", "uint16", "uint32")},
}  # fmt: skip


@pytest.mark.parametrize("integers", INTEGERS.values(), ids=INTEGERS)
def test_indices_of_any_integer_type_name_samples(integers):
    # torch takes uint8 for a mask: an epoch made two steps in place of three.
    problem = LeastSquares([[1.0], [2.0], [3.0]], [1.0, 1.0, 1.0])

    def own(n_samples, batch_size, generator):
        while True:
            yield integers([2, 0, 1])

    def reference(n_samples, batch_size, generator):
        while True:
            yield torch.tensor([2, 0, 1])

    settings = dict(step_size=0.01, batch_size=1, max_epochs=2)
    expected = train(problem, order=reference, **settings)
    assert expected.steps == 6
    for gradient in ("autograd", "closed form"):
        run = train(problem, order=own, gradient=gradient, **settings)
        assert_allclose(run.history.loss, expected.history.loss, rtol=1e-12)
        many = train_ensemble(problem, [0], order=own, gradient=gradient, **settings)
        assert_allclose(many.weights, [expected.weights], rtol=1e-12)
    assert [b.tolist() for b in batches(integers([2, 0, 1]), 2)] == [[2, 0], [1]]
    hessians = problem.batch_hessians([integers([2, 0]), integers([1])])
    assert_allclose(hessians.ravel(), [10, 8])
    both = epoch_operator(problem, 0.01, [integers([2, 0]), torch.tensor([1])])
    assert_allclose(both.matrix, [[(1 - 0.1) * (1 - 0.08)]])
