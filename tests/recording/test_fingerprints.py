"""Which samples a step has seen: the fingerprints of a batch, and whose they are."""

import itertools
import pickle
import subprocess
import sys
import threading
import warnings
from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import History, record, record_all
from sgd_analysis.recording import fingerprints as module
from sgd_analysis.recording.fingerprints import fingerprints
from sgd_analysis.recording.gathering import _together
from sgd_analysis.recording.seen_samples import SeenSamples
from tests.recording.device import Device, OnDevice
from tests.recording.loops import network
from tests.recording.outcomes import (
    assert_same,
    attributes_and_hooks,
    made,
    outcome,
    train,
    unrecorded,
)
from tests.recording.test_interrupted import Interrupt
from tests.recording.test_on_a_device import moved
from tests.recording.trainings import accumulated, evaluated_with_gradients, plain, with_a_closure

listen = SeenSamples.listen
MASK = (1 << 64) - 1


def multiplier(number):
    """SplitMix64, as its authors wrote it."""
    x = number * 0x9E3779B97F4A7C15 & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def slow(rows):
    """The fingerprint of a sample, from the bytes that each tensor has of it."""
    halves = []
    for half in range(2):
        total = 0
        for place, row in enumerate(rows):
            padded = row.tobytes() + bytes(-row.nbytes % 4)
            for j, word in enumerate(np.frombuffer(padded, np.int32).tolist(), start=1):
                total += word * multiplier((place << 40) + half * (1 << 39) + j)
        halves.append((total & MASK) >> 32)
    return halves[0] << 32 | halves[1]


def unsigned(batch):
    return fingerprints(batch).numpy().view(np.uint64)


def n_different(batch):
    return len(np.unique(unsigned(batch)))


class TestOfABatch:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_, "c8"])
    def test_they_are_what_the_formula_says(self, dtype):
        rng = np.random.default_rng(0)
        arrays = rng.normal(size=(5, 3, 7)).astype(dtype), rng.integers(9, size=5)
        expected = [slow(rows) for rows in zip(*arrays, strict=True)]
        assert_array_equal(unsigned(arrays), np.array(expected, np.uint64))

    def test_in_blocks_they_are_the_same(self, monkeypatch):
        batch = torch.randn(7, 100), torch.arange(7)
        expected = fingerprints(batch)
        monkeypatch.setattr(module, "_BLOCK", 50)
        assert torch.equal(fingerprints(batch), expected)

    def test_a_sample_has_the_same_one_in_any_batch_at_any_place(self):
        inputs, targets = torch.randn(20, 3, 4), torch.arange(20)
        whole = fingerprints((inputs, targets))
        order = torch.randperm(20)
        assert torch.equal(fingerprints((inputs[order], targets[order])), whole[order])
        assert torch.equal(fingerprints((inputs[4:6], targets[4:6])), whole[4:6])

    def test_how_it_lies_in_memory_does_not_matter(self):
        images = torch.randn(4, 3, 5, 5)
        expected = fingerprints(images)
        assert torch.equal(fingerprints(images.to(memory_format=torch.channels_last)), expected)
        assert torch.equal(fingerprints(images.flip(0).flip(0)), expected)

    def test_zeros_at_the_end_of_a_row_change_nothing_and_other_padding_does(self):
        tokens = torch.tensor([[5, 6, 7], [8, 9, 0]])
        padded = F.pad(tokens, (0, 4))
        assert torch.equal(fingerprints(padded), fingerprints(tokens))
        assert not torch.equal(fingerprints(F.pad(tokens, (0, 4), value=1)), fingerprints(tokens))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int8])
    def test_rows_that_differ_in_signs_alone_all_have_their_own(self, dtype):
        signs = torch.tensor([*itertools.product([-1.0, 1.0], repeat=16)]).to(dtype)
        assert n_different(signs) == 2**16

    def test_so_have_one_hot_rows_and_numbers(self):
        assert n_different(torch.eye(2000)) == 2000
        assert n_different(torch.arange(10**6)) == 10**6
        assert n_different(torch.arange(10**5).float()) == 10**5

    def test_the_target_counts_and_so_does_which_tensor_it_is(self):
        ones, twos = torch.ones(1, 2), 2 * torch.ones(1, 2)
        batches = [(ones, ones), (ones, twos), (twos, ones)]
        assert len({int(fingerprints(batch)) for batch in batches}) == 3

    def test_whatever_holds_the_tensors(self):
        x, y = torch.randn(3, 2), torch.arange(3)
        expected = fingerprints((x, y))
        pair = namedtuple("pair", "x y")
        holders = [[x, y], pair(x, y), {"x": x, "y": y}, {"y": y, "x": x}, UserDict(x=x, y=y)]
        holders += [(x.numpy(), y), ([x], {"y": y}), (x, "a name", y, 3, None, torch.tensor(2.0))]
        for held in holders:
            assert torch.equal(fingerprints(held), expected), held

    def test_an_array_that_cannot_be_written_to_is_no_reason_to_warn(self):
        array = np.arange(3.0)
        expected = fingerprints(array)
        array.flags.writeable = False
        assert torch.equal(fingerprints(array), expected)

    def test_an_array_that_runs_backwards_or_in_another_byte_order_has_that_of_its_copy(self):
        array = np.arange(6.0).reshape(3, 2)
        assert torch.equal(fingerprints(array[::-1]), fingerprints(array[::-1].copy()))
        other = array.astype(array.dtype.newbyteorder("S"))
        assert torch.equal(fingerprints(other), fingerprints(array))

    def test_a_conjugate_that_torch_has_put_off_has_that_of_its_values(self):
        lazy = torch.randn(3, 2, dtype=torch.complex64).conj()
        assert lazy.is_conj() and lazy.imag.is_neg()
        assert torch.equal(fingerprints(lazy), fingerprints(lazy.resolve_conj()))
        assert torch.equal(fingerprints(lazy.imag), fingerprints(lazy.imag.resolve_neg()))

    @pytest.mark.filterwarnings("ignore:")  # torch's own, of what is a prototype or has had its day
    @pytest.mark.parametrize(
        "of",
        [
            lambda rows: rows.to_sparse(),
            lambda rows: rows.to_sparse_csr(),
            lambda rows: torch.nested.nested_tensor([*rows]),
            lambda rows: torch.quantize_per_tensor(rows, 0.1, 0, torch.quint8),
        ],
    )
    def test_one_that_is_not_dense_is_refused_and_does_not_end_the_process(self, of):
        with pytest.raises(ValueError, match="must be dense and not quantized, got"):
            fingerprints(of(torch.ones(3, 2)))

    @pytest.mark.parametrize(
        "batch", ["text", [1, 2], torch.tensor(3.0), (torch.ones(3, 2), torch.ones(4))]
    )
    def test_without_rows_of_samples_there_are_none(self, batch):
        with pytest.raises(ValueError, match="one row a sample"):
            fingerprints(batch)

    def test_of_no_samples(self):
        assert fingerprints(torch.zeros(0, 3)).shape == (0,)

    def test_they_are_the_same_in_another_process_and_with_other_threads(self):
        batch = torch.arange(300_000.0).reshape(3, -1), torch.arange(3)
        expected = fingerprints(batch).tolist()
        code = (
            "import torch; torch.set_num_threads(3)\n"
            "from sgd_analysis.recording.fingerprints import fingerprints\n"
            "print(fingerprints((torch.arange(3e5).reshape(3, -1), torch.arange(3))).tolist())"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.stdout.strip() == str(expected), found.stderr


N, BATCH = 11, 3
INPUTS, TARGETS = torch.randn(N, 3), torch.randn(N, 1)
DATA = TensorDataset(INPUTS, TARGETS)
ALL = unsigned((INPUTS, TARGETS))
ALSO = ["fingerprints"]


def recorded(loop, loader=None, **settings):
    """The history of what a loop does with (model, optimizer, loader)."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with record(optimizer, also=ALSO, **settings) as recorder:
        loop(model, optimizer, loader or DataLoader(DATA, BATCH, shuffle=True))
    return recorder.history


def step(model, optimizer, batch):
    optimizer.zero_grad()
    F.mse_loss(model(batch[0]), batch[1]).backward()
    optimizer.step()


def plain_loop(model, optimizer, loader, n_epochs=2):
    for _ in range(n_epochs):
        for batch in loader:
            step(model, optimizer, batch)


def by_step(history):
    seen = history.fingerprints
    return [values.tolist() for values in np.split(seen.values, seen.ends)[:-1]]


class TestOfALoop:
    def test_each_step_has_those_of_its_batch_in_their_order(self):
        batches = []

        def loop(model, optimizer, loader):
            for batch in itertools.chain(loader, loader):
                batches.append(unsigned(batch).tolist())
                step(model, optimizer, batch)

        history = recorded(loop)
        assert by_step(history) == batches and len(batches) == 8
        assert history.n_epochs == 2
        assert_array_equal(np.sort(history[1].fingerprints.values), np.sort(ALL))

    @pytest.mark.parametrize("gradients", ["norms", "none"])
    def test_whatever_else_is_recorded(self, gradients):
        history = recorded(plain_loop, gradients=gradients, weights=True)
        assert len(history.fingerprints.values) == 2 * N

    def test_accumulated_batches_are_all_of_their_step(self):
        def loop(model, optimizer, loader):
            for k, batch in enumerate(loader, start=1):
                F.mse_loss(model(batch[0]), batch[1]).backward()
                if k % 2 == 0:
                    optimizer.step()
                    optimizer.zero_grad()

        history = recorded(loop, DataLoader(DATA, BATCH))
        assert by_step(history) == [ALL[:6].tolist(), ALL[6:].tolist()]

    def test_a_loop_that_fetches_ahead_has_the_same_order_in_other_steps(self):
        def loop(model, optimizer, loader):
            batches = iter(loader)
            ahead = next(batches)
            while ahead is not None:
                batch, ahead = ahead, next(batches, None)
                step(model, optimizer, batch)

        history = recorded(loop, DataLoader(DATA, BATCH))
        assert list(map(len, by_step(history))) == [6, 3, 2, 0]
        assert_array_equal(history.fingerprints.values, ALL)

    def test_batches_that_no_step_was_made_of_count_for_the_next_step_of_their_epoch(self):
        def loop(model, optimizer, loader):
            for _ in range(2):
                for k, batch in enumerate(loader):
                    if k in {1, 3}:  # and 3 is the last one
                        continue
                    step(model, optimizer, batch)

        history = recorded(loop, DataLoader(DATA, BATCH), steps_per_epoch=2)
        assert by_step(history) == [ALL[:3].tolist(), ALL[3:9].tolist()] * 2

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_what_a_model_is_evaluated_on_does_not_count(self, context):
        others = DataLoader(TensorDataset(torch.randn(5, 3), torch.randn(5, 1)), 2)

        def loop(model, optimizer, loader):
            for _ in range(2):
                for batch in loader:
                    step(model, optimizer, batch)
                with context():
                    for inputs, _ in others:
                        model(inputs)

        history = recorded(loop)
        assert set(history.fingerprints.values.tolist()) == set(ALL.tolist())
        assert len(history.fingerprints.values) == 2 * N

    def test_of_two_loaders_side_by_side_it_is_the_one_that_gave_last(self):
        others = DataLoader(TensorDataset(torch.randn(N, 3), torch.randn(N, 1)), BATCH)

        def loop(model, optimizer, loader):
            for _, batch in zip(others, loader, strict=True):
                step(model, optimizer, batch)

        history = recorded(loop, DataLoader(DATA, BATCH))
        assert_array_equal(history.fingerprints.values, ALL)

    def test_workers_that_live_on_take_nothing_from_one_epoch_to_the_next(self):
        def loop(model, optimizer, loader):
            for _ in range(2):
                for k, batch in enumerate(loader):
                    if k < 2:
                        step(model, optimizer, batch)

        loader = DataLoader(DATA, BATCH, num_workers=1, persistent_workers=True)
        history = recorded(loop, loader, steps_per_epoch=2)
        assert by_step(history) == [ALL[:3].tolist(), ALL[3:6].tolist()] * 2

    def test_what_other_threads_fetch_does_not_count_and_does_not_pile_up(self):
        def loop(model, optimizer, loader):
            batches = iter(loader)
            step(model, optimizer, next(batches))
            other = threading.Thread(target=lambda: [*DataLoader(DATA, 1)])
            other.start()
            other.join()
            for batch in batches:
                step(model, optimizer, batch)

        assert_array_equal(recorded(loop, DataLoader(DATA, BATCH)).fingerprints.values, ALL)

    def test_what_leads_to_no_step_does_not_pile_up(self):
        def loop(model, optimizer, loader):
            for _ in loader:
                pass
            assert sum(map(len, taken[0]._given[threading.get_ident()].fingerprints)) < 60
            optimizer.step()

        taken = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SeenSamples, "listen", lambda self: (taken.append(self), listen(self)))
            loader = DataLoader(TensorDataset(torch.randn(1000, 3)), BATCH)
            with pytest.warns(UserWarning, match="first 0 steps only: more do not fit"):
                recorded(loop, loader, memory=2 * 8 * 50, gradients="none", steps_per_epoch=1)

    def test_every_optimizer_of_a_loop_has_seen_its_batches(self):
        models = [network(), network()]
        optimizers = [torch.optim.SGD(model.parameters(), 0.01) for model in models]
        with record_all(also=ALSO) as recorders:
            for batch in DataLoader(DATA, BATCH):
                for pair in zip(models, optimizers, strict=True):
                    step(*pair, batch)
        for recorder in recorders:
            assert_array_equal(recorder.history.fingerprints.values, ALL)
        assert len(recorders) == 2


class TestSaid:
    def of(self, loop, loader=None, **settings):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            history = recorded(loop, loader, **settings)
        return history, [str(one.message) for one in caught]

    def test_that_no_loader_gave_the_batches(self):
        own = [(INPUTS[:3], TARGETS[:3])] * 4
        history, said = self.of(plain_loop, own, steps_per_epoch=4)
        assert len(said) == 1 and "no fingerprint was taken" in said[0]
        assert len(history.fingerprints.values) == 0 and len(history.fingerprints.ends) == 8

    def test_that_a_loader_gave_what_has_none(self):
        def apart(samples):
            return [list(pair) for pair in zip(*samples, strict=True)]

        def loop(model, optimizer, loader):
            for k, batch in enumerate(loader):
                if k == 2:
                    loader.dataset.tensors = (INPUTS, torch.randn(N, 2))
                inputs, targets = torch.stack(batch[0]), torch.stack(batch[1])
                step(model, optimizer, (inputs, targets[:, :1]))

        history, said = self.of(
            loop, DataLoader(TensorDataset(INPUTS, TARGETS), BATCH, collate_fn=apart)
        )
        assert len(said) == 1 and "first 0 steps only: a batch has none" in said[0]
        assert len(history.fingerprints.ends) == 0 and history.n_steps == 4

    def test_that_more_do_not_fit_and_then_no_more_are_taken(self):
        room = 2 * 8 * (3 + 3 * BATCH + 2)  # half of it is theirs
        history, said = self.of(plain_loop, DataLoader(DATA, BATCH), memory=room, gradients="none")
        assert len(said) == 1 and "first 3 steps only: more do not fit" in said[0]
        assert_array_equal(history.fingerprints.values, ALL[:9])
        assert history.n_steps == 8

    def test_nothing_where_all_is_well(self):
        assert self.of(plain_loop)[1] == []


class TestKept:
    def test_a_saved_history_has_them_and_is_continued(self, tmp_path):
        history = recorded(plain_loop, DataLoader(DATA, BATCH))
        history.save(tmp_path / "run.npz")
        loaded = History.load(tmp_path / "run.npz")
        assert by_step(loaded) == by_step(history)
        longer = recorded(plain_loop, DataLoader(DATA, BATCH), history=loaded)
        assert by_step(longer) == 2 * by_step(history)
        assert by_step(history) == by_step(pickle.loads(pickle.dumps(history)))

    def test_one_without_them_is_not_continued_with_them(self):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with record(optimizer) as recorder:
            plain_loop(model, optimizer, DataLoader(DATA, BATCH))
        with pytest.raises(ValueError, match="without fingerprints, as it began"):
            record(optimizer, also=ALSO, history=recorder.history)

    def test_what_did_not_fit_once_is_not_continued_and_not_said_again(self):
        room = 2 * 8 * (3 + 3 * BATCH + 2)
        with pytest.warns(UserWarning, match="first 3 steps only"):
            short = recorded(plain_loop, DataLoader(DATA, BATCH), memory=room, gradients="none")
        longer = recorded(plain_loop, history=short, gradients="none")
        assert by_step(longer) == by_step(short) and longer.n_steps == 16

    def test_an_epoch_has_its_own(self):
        history = recorded(lambda *loop: plain_loop(*loop, n_epochs=3))
        for e in range(3):
            assert by_step(history[e]) == by_step(history)[4 * e : 4 * e + 4]
        assert by_step(history[1:]) == by_step(history)[4:]
        assert len(history[3:].fingerprints.values) == 0

    def test_what_is_read_while_recording_stays_as_it_is(self):
        def loop(model, optimizer, loader):
            with record(optimizer, also=ALSO) as recorder:
                read = []
                for batch in itertools.chain(loader, loader):
                    step(model, optimizer, batch)
                    read.append(recorder.history)
                for k, history in enumerate(read, start=1):
                    assert by_step(history) == by_step(read[-1])[:k]

        recorded(loop)

    def test_of_many_steps_all_are_kept(self):
        loader = DataLoader(TensorDataset(*(t.repeat(60, 1) for t in DATA.tensors)), 1)
        history = recorded(plain_loop, loader)
        assert_array_equal(history.fingerprints.values, np.tile(ALL, 120))

    def test_ranks_are_put_together_step_by_step(self):
        ranks = [recorded(plain_loop, DataLoader(DATA, BATCH, shuffle=True)) for _ in range(2)]
        together = _together(ranks)
        both = [one + other for one, other in zip(*map(by_step, ranks), strict=True)]
        assert by_step(together) == both
        assert by_step(together[1]) == both[4:]

    def test_no_other_number_may_be_evaluated_under_their_name(self):
        with pytest.raises(ValueError, match="fingerprints"):
            recorded(plain_loop).__class__(
                loss=[1.0],
                n_samples=[1],
                epoch=[0],
                step_size=[[1]],
                n_epochs=1,
                evaluated={"fingerprints": [1.0]},
            )


CASES = [
    ("network", "SGD", plain),
    ("network", "Adam", accumulated),
    ("network", "SGD", evaluated_with_gradients),
    ("network", "SGD", with_a_closure),
]


class TestChangesNothing:
    @pytest.mark.filterwarnings("ignore:no epoch has ended")
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case[2].__name__)
    def test_the_run_is_the_unrecorded_one_to_the_bit(self, case):
        t = made(case)
        with record(t.optimizer, t.criterion, also=ALSO) as recorder:
            train(t)
        expected, hooks, _ = unrecorded(case)
        assert_same(outcome(t), expected, "")
        assert_same(attributes_and_hooks(t), hooks, "")
        assert len(recorder.history.fingerprints.values)

    def test_no_step_waits_for_a_device_the_batches_are_on(self):
        with Device() as device:
            t = moved(made(("network", "SGD", plain)))
            whole = [(t.inputs, t.targets)] * 300
            loader = DataLoader(whole, batch_size=None)
            with record(t.optimizer, also=ALSO, steps_per_epoch=300) as recorder:
                for k, (inputs, targets) in enumerate(loader):
                    if k == 299:
                        assert device.waits == []
                    plain(t, k, inputs, targets)
            found = by_step(recorder.history)
        there = unsigned((t.inputs.there, t.targets.there)).tolist()
        assert isinstance(t.inputs, OnDevice) and found == [there] * 300

    def test_an_interrupt_leaves_those_of_whole_rows(self):
        n_places = self.interrupted(None)[1]
        assert n_places > 1000
        for at in range(1, n_places, n_places // 150):
            history = self.interrupted(at)[0]
            seen = history.fingerprints
            assert len(seen.ends) == history.n_steps >= N - 1, at
            # Those of one sample may be missing, and no other, and all are in their order.
            assert set(ALL.tolist()) >= set(seen.values.tolist()), at
            assert len(seen.values) >= N - 1, at
            places = [ALL.tolist().index(value) for value in seen.values]
            assert places == sorted(set(places)), at

    def interrupted(self, at):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        interrupt = Interrupt(at)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recorder = record(optimizer, also=ALSO, gradients="none")
            batches = iter(DataLoader(DATA, 1))
            for _ in range(N):
                try:
                    with interrupt:
                        step(model, optimizer, next(batches))
                except KeyboardInterrupt:
                    continue
            history = recorder.history
            recorder.close()
        return history, interrupt.n_seen
