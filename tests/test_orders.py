import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sgd_analysis import cyclic, reshuffle


@given(n_samples=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_each_index_is_visited_once_an_epoch(n_samples, seed):
    for order in (cyclic, reshuffle):
        generator = torch.Generator().manual_seed(seed)
        for epoch in itertools.islice(order(n_samples, generator), 3):
            assert sorted(epoch.tolist()) == list(range(n_samples))


@given(n_samples=st.integers(1, 60), batch_size=st.integers(1, 17), seed=st.integers(0, 2**31))
def test_reshuffle_is_the_dataloader_with_shuffle_batch_for_batch(n_samples, batch_size, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loader = DataLoader(torch.arange(n_samples), batch_size=batch_size, shuffle=True)
        expected = [[batch.tolist() for batch in loader] for _ in range(3)]
    generator = torch.Generator().manual_seed(seed)
    epochs = itertools.islice(reshuffle(n_samples, generator), 3)
    assert [[b.tolist() for b in epoch.split(batch_size)] for epoch in epochs] == expected
