"""Epochs that nobody tells of, found by the loaders of the batches."""

import contextlib
import itertools
import logging
import threading
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from sgd_analysis import record, survey
from tests.recording.loops import batches, network

EPOCHS, BATCHES = 3, 4


def loader_of(n=BATCHES, **options):
    data = TensorDataset(torch.randn(3 * n - 1, 3), torch.randn(3 * n - 1, 1))
    return DataLoader(data, batch_size=3, **options)


def step(model, optimizer, batch):
    inputs, targets = batch
    optimizer.zero_grad()
    F.mse_loss(model(inputs), targets).backward()
    optimizer.step()


def recorded(loop, **settings):
    """Return the number of steps of each finished epoch, and of the last one if it is not."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with record(optimizer, **settings) as recorder:
            loop(model, optimizer)
    history = recorder.history
    sizes = [history[e].n_steps for e in range(history.n_epochs)]
    return sizes, history.n_steps - sum(sizes)


class TestWhereAnEpochEnds:
    @pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"num_workers": 1}], ids=str)
    def test_where_its_loader_has_no_more_batches(self, options):
        loader = loader_of(**options)

        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for batch in loader:
                    step(model, optimizer, batch)

        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    def test_at_once_so_that_a_loop_can_read_it(self):
        model, loader = network(), loader_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with record(optimizer) as recorder:
            for epoch in range(EPOCHS):
                for batch in loader:
                    step(model, optimizer, batch)
                assert recorder.history.n_epochs == epoch + 1

    def test_where_it_is_begun_anew_after_a_break(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for k, batch in enumerate(loader):
                    if k == 3:
                        break
                    step(model, optimizer, batch)

        loader = loader_of(6)
        assert recorded(loop) == ([3, 3], 3)  # what was broken off last may have gone on

    def test_where_the_next_loader_is_begun_after_a_break(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for k, batch in enumerate(loader_of(6)):
                    if k == 3:
                        break
                    step(model, optimizer, batch)

        assert recorded(loop) == ([3, 3], 3)

    def test_where_the_last_step_of_accumulated_batches_is_still_to_come_another_loader_tells(self):
        model, loader = network(), loader_of(5)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with record(optimizer) as recorder:
            for k, (inputs, targets) in enumerate(loader):
                F.mse_loss(model(inputs), targets).backward()
                if k in (2, 4):
                    optimizer.step()
            assert recorder.history.n_epochs == 0
            next(iter(loader_of(2)))
            assert recorder.history.n_epochs == 1

    def test_the_last_group_of_accumulated_batches_is_in_it(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for k, (inputs, targets) in enumerate(loader, start=1):
                    F.mse_loss(model(inputs), targets).backward()
                    if k % 2 == 0:
                        optimizer.step()
                        optimizer.zero_grad()
                optimizer.step()  # of the fifth batch
                optimizer.zero_grad()

        loader = loader_of(5)
        assert recorded(loop) == ([3] * EPOCHS, 0)

    def test_the_last_step_is_in_it_where_batches_are_fetched_ahead(self):
        def ahead(batches):
            waiting = next(batches := iter(batches))
            for batch in batches:
                yield waiting
                waiting = batch
            yield waiting

        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for batch in ahead(loader):
                    step(model, optimizer, batch)

        loader = loader_of()
        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    def test_a_new_loader_for_each_epoch(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for batch in loader_of():
                    step(model, optimizer, batch)

        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    def test_a_generator_that_goes_through_it_for_ever(self):
        def for_ever(loader):
            while True:
                yield from loader

        def loop(model, optimizer):
            for batch in itertools.islice(for_ever(loader), 2 * BATCHES + 1):
                step(model, optimizer, batch)

        loader = loader_of()
        assert recorded(loop) == ([BATCHES] * 2, 1)

    def test_two_loaders_side_by_side(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for batch, _ in zip(loader, other, strict=True):
                    step(model, optimizer, batch)

        loader, other = loader_of(), loader_of()
        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    def test_a_loop_that_counts_the_batches_and_asks_for_no_more(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                batches = iter(loader)
                for _ in range(BATCHES):
                    step(model, optimizer, next(batches))

        loader = loader_of()
        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    def test_a_loader_that_was_begun_before_the_recording(self):
        model, loader = network(), loader_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        batches = iter(loader)
        with record(optimizer) as recorder:
            for _ in range(EPOCHS):
                for _ in range(BATCHES):
                    step(model, optimizer, next(batches))
                batches = iter(loader)
        assert recorder.history.epochs()["n_steps"].tolist() == [BATCHES] * EPOCHS

    def test_a_loader_whose_length_is_not_known(self):
        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self):
                return iter(batches(BATCHES))

        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for batch in loader:
                    step(model, optimizer, batch)

        loader = DataLoader(Stream(), batch_size=None)
        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    def test_batches_that_are_a_list_of_indices(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for batch in loader:
                    step(model, optimizer, batch)

        data = TensorDataset(torch.randn(6, 3), torch.randn(6, 1))
        loader = DataLoader(data, batch_sampler=[[0, 1], [2, 3], [4, 5]])
        assert recorded(loop) == ([3] * EPOCHS, 0)

    def test_both_players_of_a_gan(self):
        models = network(), network(seed=1)
        critic, generator = (torch.optim.SGD(m.parameters(), 0.01) for m in models)
        loader = loader_of()
        with record(critic) as recorder, record(generator) as other:
            for _ in range(EPOCHS):
                for k, batch in enumerate(loader):
                    step(models[0], critic, batch)
                    if k % 2 == 1:
                        step(models[1], generator, batch)
        assert [recorder.history[e].n_steps for e in range(EPOCHS)] == [BATCHES] * EPOCHS
        assert [other.history[e].n_steps for e in range(EPOCHS)] == [BATCHES // 2] * EPOCHS


class TestWhereNoneEnds:
    @pytest.mark.parametrize("without_gradients", [True, False])
    def test_a_loader_that_a_model_is_evaluated_on_ends_none(self, without_gradients):
        def evaluate(model):
            with torch.set_grad_enabled(not without_gradients):
                for inputs, targets in validation:
                    F.mse_loss(model(inputs), targets)

        def loop(model, optimizer):
            evaluate(model)
            for _ in range(EPOCHS):
                for k, batch in enumerate(loader):
                    step(model, optimizer, batch)
                    if k % 2:
                        evaluate(model)

        loader, validation = loader_of(6), loader_of(2)
        assert recorded(loop) == ([6] * EPOCHS, 0)

    def test_going_through_the_loader_of_the_steps_in_the_middle_ends_none(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for k, batch in enumerate(loader):
                    step(model, optimizer, batch)
                    if k == 2:
                        survey(model, nn.MSELoss(), loader)
                        assert len(list(loader)) == BATCHES

        loader = loader_of()
        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    def test_evaluating_before_the_step_of_the_last_batch_ends_none(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for k, batch in enumerate(loader):
                    if k == BATCHES - 1:
                        list(validation)
                    step(model, optimizer, batch)

        loader, validation = loader_of(), loader_of(2)
        assert recorded(loop) == ([BATCHES] * EPOCHS, 0)

    @pytest.mark.filterwarnings("ignore")
    def test_asking_for_one_batch_at_a_time_ends_none(self):
        model, loader = network(), loader_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        recorder = record(optimizer)
        for _ in range(5):
            step(model, optimizer, next(iter(loader)))
        with pytest.warns(UserWarning, match="no epoch has ended.*none could be found"):
            recorder.close()
        assert recorder.history.n_epochs == 0

    def test_steps_on_batches_that_were_kept_end_none(self):
        def loop(model, optimizer):
            for batch in itertools.islice(itertools.cycle(loader), 3 * BATCHES):
                step(model, optimizer, batch)

        loader = loader_of()
        assert recorded(loop) == ([BATCHES], 2 * BATCHES)

    def test_a_loader_in_another_thread_ends_none(self):
        def loop(model, optimizer):
            for k, batch in enumerate(loader):
                step(model, optimizer, batch)
                if k == 2:
                    thread = threading.Thread(target=list, args=(loader_of(1),))
                    thread.start()
                    thread.join()

        loader = loader_of()
        assert recorded(loop) == ([BATCHES], 0)


class TestWhatTheLoopSaysWins:
    def test_the_number_of_its_steps(self):
        def loop(model, optimizer):
            for _ in range(EPOCHS):
                for batch in loader:
                    step(model, optimizer, batch)

        loader = loader_of()
        assert recorded(loop, steps_per_epoch=6) == ([6, 6], 0)

    def test_its_end(self):
        model, loader = network(), loader_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with record(optimizer) as recorder:
            for _ in range(EPOCHS):
                for k, batch in enumerate(loader):
                    step(model, optimizer, batch)
                    if k == 2:
                        recorder.end_epoch()
        history = recorder.history
        assert [history[e].n_steps for e in range(history.n_epochs)] == [3, 4, 4]

    def test_where_it_says_the_same_nothing_is_ended_twice(self):
        model, loader = network(), loader_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with record(optimizer) as recorder:
            for _ in range(EPOCHS):
                for batch in loader:
                    step(model, optimizer, batch)
                recorder.end_epoch()
        assert recorder.history.n_epochs == EPOCHS


class TestItOnlyLooks:
    def test_the_loop_and_its_random_numbers_are_the_same(self):
        def trained(recorder_of):
            torch.manual_seed(0)
            model, loader = network(), loader_of(shuffle=True, generator=None)
            optimizer = torch.optim.SGD(model.parameters(), 0.01)
            with recorder_of(optimizer):
                for _ in range(EPOCHS):
                    for batch in loader:
                        step(model, optimizer, batch)
            return [*model.parameters(), torch.get_rng_state()]

        for bare, ours in zip(trained(contextlib.nullcontext), trained(record), strict=True):
            assert_array_equal(bare.detach(), ours.detach())

    def test_torchs_loaders_are_as_before_when_the_last_recorder_is_closed(self):
        before = DataLoader.__iter__, _BaseDataLoaderIter.__next__
        optimizers = [torch.optim.SGD(network().parameters(), 0.01) for _ in range(2)]
        with record(optimizers[0]), record(optimizers[1]):
            assert DataLoader.__iter__ is not before[0]
        assert (DataLoader.__iter__, _BaseDataLoaderIter.__next__) == before

    def test_a_loader_that_raises_does_so_as_before(self):
        class Broken(torch.utils.data.Dataset):
            def __len__(self):
                return 3

            def __getitem__(self, index):
                raise LookupError("no such sample")

        optimizer = torch.optim.SGD(network().parameters(), 0.01)
        with pytest.raises(LookupError, match="no such sample"), record(optimizer):
            list(DataLoader(Broken()))


class TestWhatIsSaidWhenTheFirstEpochEnds:
    def messages(self, caplog):
        return [r.getMessage() for r in caplog.records if r.name == "sgd_analysis"]

    @pytest.mark.parametrize("settings", [{}, {"steps_per_epoch": BATCHES}], ids=str)
    def test_a_size_that_nothing_tells(self, caplog, settings):
        model, loader = network(), loader_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        recorder = record(optimizer, **settings)
        with caplog.at_level(logging.WARNING, "sgd_analysis"):
            for epoch in range(EPOCHS):
                for inputs, targets in loader:
                    optimizer.zero_grad()
                    (model(inputs) - targets).square().sum().backward()
                    optimizer.step()
                (said,) = self.messages(caplog)  # once, and as early as that
                assert f"number of samples of {BATCHES} steps is not known" in said, epoch
        with pytest.warns(UserWarning, match=f"samples of {EPOCHS * BATCHES} steps"):
            recorder.close()

    def test_steps_that_are_compiled_as_a_whole_so_that_none_is_seen(self, caplog):
        model, loader = network(), loader_of()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        recorder = record(optimizer)
        with caplog.at_level(logging.WARNING, "sgd_analysis"):
            for _ in range(EPOCHS):
                for inputs, targets in loader:
                    gradients = torch.autograd.grad(
                        F.mse_loss(model(inputs), targets), list(model.parameters())
                    )
                    with torch.no_grad():
                        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                            parameter -= 0.01 * gradient
        (said,) = self.messages(caplog)
        assert "the parameters have changed, but no step" in said
        with pytest.warns(UserWarning, match="the parameters have changed, but no step"):
            recorder.close()

    def test_nothing_where_all_is_well(self, caplog):
        with caplog.at_level(logging.WARNING, "sgd_analysis"):
            TestWhereAnEpochEnds().test_where_its_loader_has_no_more_batches({})
        assert self.messages(caplog) == []

    def test_a_handler_that_raises_ends_nothing(self):
        class Raising(logging.Handler):
            def emit(self, record):
                raise OSError("no space left")

        handler = Raising()
        logging.getLogger("sgd_analysis").addHandler(handler)
        try:
            model, loader = network(), loader_of()
            optimizer = torch.optim.SGD(model.parameters(), 0.01)
            recorder = record(optimizer)
            for _ in range(2):
                for inputs, targets in loader:
                    optimizer.zero_grad()
                    nn.functional.mse_loss(model(inputs), targets).exp().backward()
                    optimizer.step()
        finally:
            logging.getLogger("sgd_analysis").removeHandler(handler)
        with pytest.warns(UserWarning, match="number of samples"):
            recorder.close()
        assert recorder.history.n_epochs == 2
        assert np.isfinite(recorder.history.loss).all()
