import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sgd_analysis import cyclic, reshuffle
from sgd_analysis.orders import checked_epochs


@given(n_samples=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_each_index_is_visited_once_an_epoch(n_samples, seed):
    for order in (cyclic, reshuffle):
        generator = torch.Generator().manual_seed(seed)
        for epoch in itertools.islice(order(n_samples, generator), 3):
            assert sorted(epoch.tolist()) == list(range(n_samples))


def ends_early(n_samples, generator):
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
    ],
)
def test_an_epoch_that_is_not_indices_of_samples_is_refused(epoch, given):
    orders = checked_epochs(lambda n, g: iter([[0, 1, 2], given]), 3, torch.Generator())
    assert next(orders).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="indices between 0 and 2, one an epoch; for epoch 1 it"):
        next(orders)


def test_an_order_that_ends_is_refused():
    orders = checked_epochs(ends_early, 3, torch.Generator())
    next(orders)
    with pytest.raises(ValueError, match="without end, it ended after 1 epochs"):
        next(orders)


@given(n_samples=st.integers(1, 60), batch_size=st.integers(1, 17), seed=st.integers(0, 2**31))
def test_reshuffle_is_the_dataloader_with_shuffle_batch_for_batch(n_samples, batch_size, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loader = DataLoader(torch.arange(n_samples), batch_size=batch_size, shuffle=True)
        expected = [[batch.tolist() for batch in loader] for _ in range(3)]
    generator = torch.Generator().manual_seed(seed)
    epochs = itertools.islice(reshuffle(n_samples, generator), 3)
    assert [[b.tolist() for b in epoch.split(batch_size)] for epoch in epochs] == expected
