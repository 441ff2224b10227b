"""One pass, one vote: the loss of a step whose passes differ in size, and as its samples have it.

The reference is one backward pass over the whole batch of the step.
"""

import logging
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import History, record
from sgd_analysis.recording.gathering import _together
from tests.recording.loops import network

ONE_VOTE = "the backward passes of a step had one vote each"
CLASSES = torch.tensor([0.2, 1.0, 3.0, 0.5])

pytestmark = [
    pytest.mark.filterwarnings("ignore:no epoch has ended"),
    pytest.mark.filterwarnings(f"ignore:{ONE_VOTE}"),
]


def classes(size, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (size,), generator=generator)
    return torch.randn(size, 3, generator=generator), targets


def padded(size, seed):
    """Half of the targets, or so, are padding."""
    inputs, targets = classes(2 * size, seed)
    targets[size:] = -100
    return inputs, targets


def numbers(size, seed):
    inputs, _ = classes(size, seed)
    return inputs, inputs.square() @ torch.ones(3, 4)


def by_hand(predictions, targets):
    return (predictions - targets).square().sum(1).sum() / len(targets)


def sum_by_tokens(predictions, targets):
    return F.cross_entropy(predictions, targets, reduction="sum") / (targets >= 0).sum()


def summed(predictions, targets):
    return (predictions - targets).square().sum()


def unreduced(predictions, targets):
    return (predictions - targets).abs().mean()


class Unreduced(nn.L1Loss):
    def __init__(self):
        super().__init__(reduction="none")


LOSSES = {  # the loss, its data, and the criterion to record, if it is one
    "cross_entropy": (F.cross_entropy, classes, False),
    "cross_entropy with padding": (F.cross_entropy, padded, False),
    "CrossEntropyLoss with padding": (nn.CrossEntropyLoss(), padded, True),
    "CrossEntropyLoss with class weights": (nn.CrossEntropyLoss(CLASSES), classes, True),
    "MSELoss": (nn.MSELoss(), numbers, True),
    "mse_loss": (F.mse_loss, numbers, False),
    "a sum divided by its rows": (by_hand, numbers, False),
    "a sum divided by its tokens": (sum_by_tokens, padded, False),
    "a mean": (unreduced, numbers, False),
    "an unreduced criterion": (Unreduced(), numbers, True),
}


class Run:
    """A loop that accumulates; `whole` has each step's loss as one pass over its batch gives it."""

    def __init__(self, loss=F.cross_entropy, make=classes, criterion=False, lr=0.1, **settings):
        self.model = network(n_outputs=4)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)
        self.loss, self.make, self.seed, self.whole = loss, make, 0, []
        self.recorder = record(self.optimizer, *([loss] if criterion else []), **settings)

    def parts(self, sizes):
        """Return as many batches, of these sizes."""
        self.seed += 1
        parts = [self.make(n, seed=100 * self.seed + j) for j, n in enumerate(sizes)]
        whole = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
        with torch.no_grad():
            self.whole.append(self.loss_of(*whole).item())
        return parts

    def loss_of(self, inputs, targets):
        loss = self.loss(self.model(inputs), targets)
        return loss.mean() if loss.ndim else loss

    def step(self, *sizes, factor=None, scaler=None):
        """Make a step of passes over batches of these sizes, each loss times its factor."""
        self.optimizer.zero_grad()
        for inputs, targets in self.parts(sizes):
            c = factor(len(targets)) if callable(factor) else factor or 1 / len(sizes)
            loss = self.loss_of(inputs, targets) * c
            (loss if scaler is None else scaler.scale(loss)).backward()
        self.optimizer.step() if scaler is None else scaler.step(self.optimizer)
        if scaler is not None:
            scaler.update()

    def close(self):
        self.recorder.close()
        return self.recorder.history


class TestTheSizeWeightedLoss:
    @pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
    def test_is_that_of_the_whole_batch_in_one_pass(self, loss):
        run = Run(*loss)
        for sizes in ((9, 1), (2, 7, 4), (5,), (1, 1, 6)):
            run.step(*sizes)
        history = run.close()
        assert_allclose(history.size_weighted_loss, run.whole, rtol=2e-6)
        several = np.array([True, True, False, True])
        assert (abs(history.loss - run.whole)[several] > 1e-4).all()
        assert_array_equal(history.size_weighting != 0, several)

    @given(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    def test_is_so_whatever_the_sizes(self, sizes):
        run = Run()
        run.step(*sizes)
        history = run.close()
        assert_allclose(history.size_weighted_loss, run.whole, rtol=2e-6)
        assert (history.size_weighting is None) == (len(set(sizes)) == 1)

    def test_keeps_the_factor_of_a_loop_that_does_not_divide(self):
        run = Run()
        run.step(9, 1, factor=1)
        run.step(8, 2, factor=0.25)
        assert_allclose(run.close().size_weighted_loss, run.whole * np.array([2, 0.5]), rtol=2e-6)

    def test_knows_no_factor_of_a_scaler(self):
        run = Run()
        run.step(9, 1, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
        assert_allclose(run.close().size_weighted_loss, run.whole, rtol=2e-6)

    def test_counts_a_pass_as_a_whole_with_its_penalty_and_its_other_criteria(self):
        first = nn.CrossEntropyLoss()

        def loss(predictions, targets):
            penalty = 0.1 * run.model[0].weight.square().sum()
            return first(predictions, targets) / 2 + predictions.square().mean() + penalty

        run = Run(loss)
        run.recorder = record(run.optimizer, first)
        run.step(9, 1)
        assert_allclose(run.close().size_weighted_loss, run.whole, rtol=2e-6)

    def test_weighs_a_pass_of_no_samples_by_nothing(self):
        run = Run(sum_by_tokens, padded, n_samples=None)
        run.optimizer.zero_grad()
        for size in (5, 0, 2):
            inputs, targets = padded(max(size, 1), seed=size)
            if not size:
                targets[:] = -100
            total = F.cross_entropy(run.model(inputs), targets, reduction="sum")
            (total / max(size, 1)).backward()
        run.optimizer.step()
        history = run.close()
        assert_array_equal(history.denominator, [7])
        losses = [run.loss(network(4)(x), y).item() for x, y in (padded(5, 5), padded(2, 2))]
        mean = np.average(losses, weights=[5, 2])
        assert_allclose(history.size_weighted_loss, [mean * 2 / history.divisor[0]], rtol=2e-6)

    @pytest.mark.parametrize("shape", ["sum over a sum", "rows"])
    def test_is_known_where_the_loop_tells_the_sizes(self, shape):
        """A mask by hand: nothing in the graph tells how many targets count."""

        def masked(predictions, targets):
            self.n = int((targets >= 0).sum())
            losses = F.cross_entropy(predictions, targets, reduction="none")
            if shape == "rows":
                return losses[targets >= 0].mean(dim=0)
            mask = (targets >= 0).float()
            return (losses * mask).sum() / mask.sum()

        run = Run(masked, padded, n_samples=lambda: self.n)
        for sizes in ((9, 1), (2, 7, 4), (3, 3)):
            run.step(*sizes)
        history = run.close()
        assert_allclose(history.size_weighted_loss, run.whole, rtol=2e-6)
        assert (history.size_weighting[:2] != 0).all()

    def test_leaves_torchs_error_at_a_graph_that_is_gone(self):
        run = Run(by_hand, numbers, n_samples=lambda: 4)
        for _ in range(2):
            ((inputs, targets),) = run.parts([4])
            loss = by_hand(run.model(inputs), targets) / targets.sum()
            loss.backward()
            with pytest.raises(RuntimeError, match="backward through the graph a second time"):
                loss.backward()
            run.optimizer.step()
        assert run.close().n_steps == 2

    def test_is_not_known_where_a_size_is_not(self):
        def cubed(predictions, targets):
            return F.cross_entropy(predictions, targets) ** 3

        run = Run(cubed)
        run.step(9, 1)
        run.step(5)
        with pytest.warns(UserWarning, match="the number of samples of 2 steps"):
            history = run.close()
        assert_array_equal(np.isnan(history.size_weighted_loss), [True, False])
        assert_array_equal(history.size_weighted_loss[1:], history.loss[1:])

    def test_is_not_known_of_the_first_step_with_several_passes_if_that_comes_late(self):
        """Until then nothing looks at what a loss is multiplied by: most loops never accumulate."""
        run = Run()
        for sizes in ((5,), (9, 1), (8, 2)):
            run.step(*sizes)
        found = run.close().size_weighted_loss
        assert np.isnan(found[1])
        assert_allclose(found[[0, 2]], np.array(run.whole)[[0, 2]], rtol=2e-6)


def weighed_by_their_share(run):
    run.step(9, 1, factor=lambda n: n / 10)


def of_equal_sizes(run):
    run.step(5, 5)


def one_pass(run):
    run.step(7, factor=0.5)


def in_proportions_of_its_own(run):
    factors = iter([0.9, 0.1])
    run.step(3, 8, factor=lambda n: next(factors))


def by_their_difference(run):
    """As the critic of a Wasserstein GAN descends it."""
    factors = iter([1.0, -1.0])
    run.step(3, 8, factor=lambda n: next(factors))


def with_sums_by_all_samples(run):
    run.optimizer.zero_grad()
    for inputs, targets in run.parts([9, 1]):
        (F.cross_entropy(run.model(inputs), targets, reduction="sum") / 10).backward()
    run.optimizer.step()


def through_another_head(run):
    ((inputs, targets),) = run.parts([6])
    run.optimizer.zero_grad()
    predictions = run.model(inputs)
    F.cross_entropy(predictions, targets).backward(retain_graph=True)
    F.cross_entropy(2 * predictions, targets, ignore_index=1).backward()
    run.optimizer.step()


def by_another_loss(run):
    (one, _), (other, targets) = run.parts([3, 8])
    run.optimizer.zero_grad()
    run.model(one).square().mean().backward()
    F.cross_entropy(run.model(other), targets).backward()
    run.optimizer.step()


def with_a_penalty_of_its_own(run):
    run.optimizer.zero_grad()
    run.loss(run.model(torch.ones(3, 3)), torch.ones(3, dtype=torch.long)).backward()
    (0.1 * run.model[0].weight.square().sum()).backward()
    run.optimizer.step()


def that_is_observed(run):
    run.optimizer.zero_grad()
    for inputs, targets in run.parts([9, 1]):
        loss = run.loss(run.model(inputs), targets)
        run.recorder.observe(loss, len(targets))
        (loss / 2).backward()
    run.optimizer.step()


@pytest.mark.parametrize(
    "step",
    [
        weighed_by_their_share,
        of_equal_sizes,
        one_pass,
        in_proportions_of_its_own,
        by_their_difference,
        with_sums_by_all_samples,
        through_another_head,
        by_another_loss,
        with_a_penalty_of_its_own,
        that_is_observed,
    ],
    ids=lambda step: step.__name__,
)
def test_the_loss_stands_where_passes_have_not_one_vote_each_as_parts_of_a_batch(step):
    run = Run()
    for _ in range(2):
        step(run)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the number of samples of")
        history = run.close()
    assert history.size_weighting is None
    assert_array_equal(history.size_weighted_loss, history.batch_loss)
    assert "size_weighted_loss" not in history.steps()


def test_what_is_observed_is_weighted_by_size_already():
    run = Run()
    that_is_observed(run)
    history = run.close()
    assert_allclose(history.size_weighted_loss, run.whole, rtol=2e-6)
    assert abs(history.objective - run.whole) > 1e-3


def test_what_the_criteria_say_is_weighted_by_size_already():
    run = Run()
    run.loss = nn.CrossEntropyLoss()
    run.recorder = record(run.optimizer, run.loss, loss="criteria")
    run.step(9, 1)
    history = run.close()
    assert history.size_weighting is None
    assert_allclose(history.size_weighted_loss, run.whole, rtol=2e-6)
    assert abs(history.objective - run.whole) > 1e-3


class TestWhereItIs:
    def run(self, **settings):
        run = Run(steps_per_epoch=2, **settings)
        for sizes in ((9, 1), (5, 5), (1, 8), (6,), (2, 5)):
            run.step(*sizes)
        return run.close(), run.whole

    def test_in_the_tables_by_step_and_by_epoch(self):
        history, whole = self.run()
        assert_allclose(history.to_pandas()["size_weighted_loss"], whole, rtol=2e-6)
        running = [np.average(whole[:2], weights=[10, 10]), np.average(whole[2:4], weights=[9, 6])]
        found = history.to_pandas(by="epoch")["running_size_weighted_loss"]
        assert_allclose(found, running, rtol=2e-6)
        assert "running size weighted loss" in history._repr_html_()

    def test_in_a_file_and_in_a_part(self, tmp_path):
        history, _ = self.run()
        history.save(tmp_path / "run.npz")
        loaded = History.load(tmp_path / "run.npz")
        assert_array_equal(loaded.size_weighting, history.size_weighting)
        assert_array_equal(loaded[1].size_weighted_loss, history.size_weighted_loss[2:4])

    def test_in_a_recording_that_is_continued(self):
        history, whole = self.run()
        more, others = self.run(history=history)
        assert_allclose(more.size_weighted_loss, whole + others, rtol=2e-6)

    def test_in_one_that_had_none_before(self):
        run = Run(steps_per_epoch=1)
        run.step(4)
        more, whole = self.run(history=run.close())
        assert_allclose(more.size_weighted_loss, run.whole + whole, rtol=2e-6)
        assert_array_equal(more.size_weighting != 0, [False, True, False, True, False, True])

    @pytest.mark.parametrize("loss", [F.mse_loss, by_hand, summed])
    def test_in_what_several_processes_recorded(self, loss):
        """By the gradient, each rank has one vote; the loss counts its samples."""
        ranks = [Run(loss, numbers), Run(loss, numbers)]
        for sizes in (((9, 1), (2, 2)), ((3, 4), (7, 5)), ((2, 6), (5, 3))):
            for run, own in zip(ranks, sizes, strict=True):
                run.step(*own)
        a, b = (run.close() for run in ranks)
        gathered = _together([a, b])
        weights = np.array([a.denominator, b.denominator])
        whole = np.average([run.whole for run in ranks], axis=0, weights=weights)
        if loss is summed:
            whole = whole / weights.sum(axis=0)
        assert_allclose(gathered.size_weighted_loss, whole, rtol=2e-6)
        assert_allclose(gathered.objective, (a.loss + b.loss) / 2, rtol=1e-12)
        parts = a.size_weighting, b.size_weighting
        assert (gathered.size_weighting is None) == all(part is None for part in parts)

    @pytest.mark.parametrize("name", ["size_weighted_loss", "running_size_weighted_loss"])
    def test_under_no_name_that_evaluate_takes(self, name):
        run = Run(steps_per_epoch=1)
        run.step(4)
        with pytest.raises(ValueError, match=name):
            run.recorder.evaluate(**{name: 1.0})

    def test_in_the_line_of_text_if_it_is_to_be_seen(self):
        for last_three, is_seen in (((1, 9), (2, 7), (8, 1)), True), (((5, 5),) * 3, False):
            run = Run(F.mse_loss, numbers, steps_per_epoch=2)
            for sizes in ((9, 1), *last_three):
                run.step(*sizes)
            history = run.close()
            first = history.epochs()["running_size_weighted_loss"][0]
            assert (f"weighted by size {first:.4g}" in repr(history)) == is_seen
            assert ("weighted by size" in repr(history)) == is_seen


class TestTheLineThatSaysSo:
    def said(self, *steps, epochs=1, **settings):
        """Return the warnings at the end of a run of these steps."""
        run = Run(steps_per_epoch=len(steps), make=numbers, loss=F.mse_loss)
        for _ in range(epochs):
            for sizes in steps:
                run.step(*sizes, **settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.history = run.close()
        return "\n".join(str(warning.message) for warning in caught)

    def test_has_both_losses_of_the_first_steps(self):
        said = self.said((9, 1), (2, 8), (1, 6))
        loss, weighted = self.history.loss, self.history.size_weighted_loss
        change = np.median(abs(weighted / loss - 1))
        assert said.startswith(ONE_VOTE)
        assert f"its loss is {loss.mean():.4g} on average, {weighted.mean():.4g} weighted" in said
        assert f"they differ by {change:.1%})" in said

    def test_is_logged_when_the_first_epoch_has_ended_and_once(self, caplog):
        run = Run(steps_per_epoch=2)
        with caplog.at_level(logging.WARNING, "sgd_analysis"):
            for k in range(6):
                run.step(9, 1)
                logged = [r.getMessage() for r in caplog.records]
                assert sum(line.startswith(ONE_VOTE) for line in logged) == (k > 0)
        with pytest.warns(UserWarning, match=ONE_VOTE):
            run.close()

    def test_leaves_out_what_is_not_known(self):
        said = self.said((5,), (9, 1), (8, 2), (1, 7), (6, 2))
        known = np.array([True, False, True, True, True])
        assert_array_equal(~np.isnan(self.history.size_weighted_loss), known)
        assert f"loss is {self.history.loss[known].mean():.4g} on average" in said

    def test_comes_at_the_end_where_no_epoch_has_ended(self):
        run = Run()
        run.step(9, 1)
        with pytest.warns(UserWarning, match=ONE_VOTE):
            run.close()

    def test_comes_with_a_scaler_too(self):
        assert self.said((9, 1), scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))

    @pytest.mark.parametrize("sizes", [(9, 1), (5, 5)])
    def test_says_nothing_of_passes_that_weigh_by_their_sizes(self, sizes):
        assert self.said(sizes, sizes, factor=lambda n: n / 10) == ""

    @pytest.mark.parametrize("factor", [1.0, 0.25])
    def test_is_no_false_alarm_where_passes_are_not_averaged(self, factor):
        """A GAN's, say, of real and of fake samples: they need be no parts of one batch."""
        assert self.said((9, 1), (2, 8), (1, 6), factor=factor) == ""
        assert (self.history.size_weighting != 0).all()

    @pytest.mark.parametrize("n_steps", [2, 3, 20])
    @pytest.mark.parametrize("last", [(8, 8, 8, 1), (8, 1), (1,), (8, 8, 8, 7)])
    def test_is_no_false_alarm_at_a_ragged_end(self, n_steps, last):
        assert self.said(*[(8, 8, 8, 8)] * (n_steps - 1), last, epochs=3) == ""

    def test_is_no_false_alarm_where_sizes_differ_a_little(self):
        """Of some 200 tokens each, where a step's loss stays the same to three digits."""
        steps = [(200, 205), (198, 203), (207, 195), (199, 206)]
        assert self.said(*steps) == ""
        assert (self.history.size_weighting != 0).all()

    def test_looks_at_the_first_epoch_only(self):
        run = Run(steps_per_epoch=2)
        for sizes in ((5, 5), (5, 5), (9, 1), (9, 1), (9, 1), (9, 1)):
            run.step(*sizes)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run.close()
