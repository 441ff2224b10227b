"""Many seeds' orders side by side are those of each seed alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sgd_analysis import train, train_ensemble
from sgd_analysis.ensemble.orders import epochs_of_all
from sgd_analysis.orders import ORDERS
from tests.ensemble.ensembles import noisy_line


class TestOrders:
    @given(
        n_samples=st.integers(1, 40),
        batch_size=st.integers(1, 40),
        seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5),
        order=st.sampled_from(sorted(ORDERS)),
    )
    def test_a_column_is_what_the_order_gives_with_that_seed_alone(
        self, n_samples, batch_size, seeds, order
    ):
        batch_size = min(batch_size, n_samples)
        visit = ORDERS[order]
        together = epochs_of_all(visit, n_samples, batch_size, seeds, 3)
        together = [epoch.T.tolist() for epoch in together]
        for r, seed in enumerate(seeds):
            alone = visit(n_samples, batch_size, torch.Generator().manual_seed(seed))
            assert [epoch[r] for epoch in together] == [next(alone).tolist() for _ in range(3)]

    def test_more_seeds_than_are_drawn_in_one_block_are_all_drawn(self):
        columns = [e.T.tolist() for e in epochs_of_all(ORDERS["reshuffle"], 6, 2, range(150), 2)]
        for seed in (0, 63, 64, 127, 128, 149):
            alone = ORDERS["reshuffle"](6, 2, torch.Generator().manual_seed(seed))
            assert [epoch[seed] for epoch in columns] == [next(alone).tolist() for _ in range(2)]

    def test_an_order_of_ones_own_may_leave_samples_out(self):
        def half(n_samples, batch_size, generator):
            while True:
                yield torch.randperm(n_samples, generator=generator)[: n_samples // 2]

        problem = noisy_line()
        settings = dict(step_size=0.05, batch_size=4, order=half)
        ensemble = train_ensemble(problem, range(2), max_epochs=3, **settings)
        for seed in range(2):
            run = train(problem, max_epochs=3, seed=seed, **settings)
            assert_allclose(ensemble.weights[seed], run.weights, rtol=1e-12)
            assert_allclose(ensemble.running_loss[seed], run.history.running_loss, rtol=1e-12)

    def test_an_order_with_another_number_of_indices_for_each_seed_is_refused(self):
        def some(n_samples, batch_size, generator):
            while True:
                yield torch.arange(int(torch.randint(1, n_samples, (), generator=generator)))

        with pytest.raises(
            ValueError, match=r"equally many indices with each seed.* got epochs of"
        ):
            train_ensemble(
                noisy_line(), range(5), step_size=0.1, max_epochs=5, batch_size=4, order=some
            )

    def test_an_order_that_names_no_sample_is_refused(self):
        def wrong(n_samples, batch_size, generator):
            yield torch.tensor([n_samples])

        with pytest.raises(ValueError, match="indices between 0 and 22"):
            train_ensemble(
                noisy_line(), range(2), step_size=0.1, max_epochs=2, batch_size=4, order=wrong
            )
