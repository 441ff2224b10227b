"""The number of samples of a batch, and what the mean of its loss divides by."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import record
from tests.recording.loops import Loop, backward, batches, flat, network, plain, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class TestReductions:
    def running_loss(self, criterion, gradients="auto"):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        data = batches(3) + batches(1, size=2)
        with record(optimizer, criterion, steps_per_epoch=4, gradients=gradients) as recorder:
            for inputs, targets in data:
                optimizer.zero_grad()
                criterion(model(inputs), targets).mean().backward()
                optimizer.step()
        return recorder.history

    @pytest.mark.parametrize("reduction", ["sum", "none"])
    def test_the_running_loss_is_that_of_the_mean(self, reduction):
        mean = self.running_loss(nn.MSELoss())
        other = self.running_loss(nn.MSELoss(reduction=reduction))
        assert other.metadata["reduction"] == reduction
        assert_allclose(other.running_loss, mean.running_loss, rtol=1e-6)
        assert_allclose(other.mean_batch_loss, mean.mean_batch_loss, rtol=1e-6)
        assert_array_equal(other.n_samples, mean.n_samples)
        assert_allclose(other.path_gradient, mean.path_gradient, rtol=1e-4, atol=1e-8)

    def test_a_loss_that_is_a_sum_is_recorded_as_the_loop_prints_it(self):
        mean = self.running_loss(nn.MSELoss())
        total = self.running_loss(nn.MSELoss(reduction="sum"))
        assert_allclose(total.loss, mean.loss * [5, 5, 5, 2], rtol=1e-6)
        streamed = self.running_loss(nn.MSELoss(reduction="sum"), gradients="norms")
        assert_allclose(streamed.path_gradient, total.path_gradient, rtol=1e-5, atol=1e-8)

    def test_sums_of_several_passes_are_added_up(self, model, sgd):
        criterion = nn.MSELoss(reduction="sum")
        with record(sgd, criterion) as recorder:
            losses = [backward(model, criterion, batch) for batch in batches(3)]
            sgd.step()
        assert_allclose(recorder.history.loss, [sum(losses)], rtol=1e-12)
        assert_allclose(recorder.history.batch_loss, [sum(losses) / 15], rtol=1e-12)


class TestANumberOfSamples:
    """Where every backward pass is about equally many, whatever computes the loss."""

    @pytest.mark.filterwarnings("error")
    def test_a_loss_that_is_a_function_has_a_running_loss_and_a_path_gradient(self, model, sgd):
        losses, gradients = [], []
        with record(sgd, steps_per_epoch=3, n_samples=5) as recorder:
            for inputs, targets in batches(3):
                sgd.zero_grad()
                loss = nn.functional.mse_loss(model(inputs), targets)
                loss.backward()
                losses.append(loss.item())
                gradients.append(flat(p.grad for p in model.parameters()))
                sgd.step()
        history = recorder.history
        assert_array_equal(history.n_samples, [5, 5, 5])
        assert_array_equal(history.denominator, [5, 5, 5])
        assert_allclose(history.running_loss, [np.mean(losses)], rtol=1e-12)
        assert_allclose(history.path_gradient, [np.mean(gradients, axis=0)], rtol=1e-5, atol=1e-8)

    def test_those_of_several_passes_are_added_up(self, model, sgd):
        with record(sgd, n_samples=5) as recorder:
            for inputs, targets in batches(3):
                nn.functional.mse_loss(model(inputs), targets).backward()
            sgd.step()
        assert_array_equal(recorder.history.n_samples, [15])

    def test_it_takes_the_place_of_what_a_criterion_would_tell(self, model, criterion, sgd):
        with record(sgd, criterion, n_samples=7) as recorder:
            train(model, criterion, sgd, batches(2))
        assert_array_equal(recorder.history.n_samples, [7, 7])

    def test_a_step_without_a_backward_pass_has_none(self, sgd):
        with pytest.warns(UserWarning, match="without a backward pass"):
            with record(sgd, n_samples=5) as recorder:
                sgd.step()
        assert np.isnan(recorder.history.n_samples).all()

    def test_observe_overrides_it(self, model, sgd):
        with record(sgd, n_samples=5) as recorder:
            ((inputs, targets),) = batches(1, size=3)
            loss = nn.functional.mse_loss(model(inputs), targets)
            recorder.observe(loss, n_samples=3)
            loss.backward()
            sgd.step()
        assert_array_equal(recorder.history.n_samples, [3])


class TestANumberOfSamplesByAFunction:
    """Where batches differ in size, and nothing else tells."""

    def test_without_a_criterion_it_is_called_with_nothing_in_each_backward_pass(self, model, sgd):
        with record(sgd, n_samples=lambda: len(inputs)) as recorder:
            for inputs, targets in batches(2) + batches(1, size=2):
                (model(inputs) - targets).square().sum().backward()
                (0 * model(inputs)).sum().backward()
                sgd.step()
                sgd.zero_grad()
        assert_array_equal(recorder.history.n_samples, [10, 10, 4])
        assert_array_equal(recorder.history.denominator, [10, 10, 4])

    @pytest.mark.parametrize("wrong", [None, -1])
    def test_what_it_returns_that_is_no_number_is_told(self, model, sgd, wrong):
        recorder = record(sgd, n_samples=lambda: wrong)
        model(torch.ones(2, 3)).sum().backward()
        sgd.step()
        with pytest.warns(UserWarning, match=f"not known.*{wrong}.*called with nothing"):
            recorder.close()
        assert np.isnan(recorder.history.n_samples).all()

    def test_that_of_calls_does_not_speak_for_what_is_none(self, model, criterion, sgd):
        recorder = record(sgd, criterion, n_samples=lambda predictions, targets: 7)
        ((inputs, targets),) = batches(1)
        nn.functional.mse_loss(model(inputs), targets).backward()
        sgd.step()
        with pytest.warns(UserWarning, match="number of samples of 1 steps is not known"):
            recorder.close()


class TestSizesFromTheGraph:
    """A loss that is a function is as good as a criterion, as far as its graph tells."""

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("gradients", ["auto", "norms"])
    @pytest.mark.parametrize(
        ("criterion", "function"),
        [
            (nn.MSELoss(), nn.functional.mse_loss),
            (
                nn.MSELoss(reduction="sum"),
                lambda p, t: nn.functional.mse_loss(p, t, reduction="sum"),
            ),
            (nn.L1Loss(), lambda p, t: (p - t).abs().mean()),
        ],
    )
    def test_a_function_is_recorded_as_the_criterion_is(self, criterion, function, gradients):
        def recorded(loss, *criteria):
            model = network()
            sgd = torch.optim.SGD(model.parameters(), 0.01)
            with record(sgd, *criteria, steps_per_epoch=4, gradients=gradients) as recorder:
                train(model, loss, sgd, batches(3) + batches(1, size=2))
            return recorder.history

        expected, found = recorded(criterion, criterion), recorded(function)
        assert_array_equal(found.n_samples, [5, 5, 5, 2])
        for name in ("loss", "n_samples", "denominator", "batch_loss", "running_loss"):
            assert_array_equal(getattr(found, name), getattr(expected, name))
        assert_array_equal(found.path_gradient, expected.path_gradient)

    def test_targets_that_are_ignored_do_not_count(self):
        model = network(n_outputs=3)
        sgd = torch.optim.SGD(model.parameters(), 0.0)
        targets = torch.tensor([0, -100, 1, 2, -100])
        inputs = torch.randn(5, 3)
        with record(sgd, steps_per_epoch=2) as recorder:
            for rows in (slice(0, 2), slice(2, 5)):
                nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
                sgd.step()
                sgd.zero_grad()
        assert_array_equal(recorder.history.denominator, [1, 2])
        assert_array_equal(recorder.history.n_samples, [2, 3])
        whole = nn.functional.cross_entropy(model(inputs), targets).item()
        assert_allclose(recorder.history.running_loss, [whole], rtol=1e-6)

    def test_accumulated_sums_divided_by_all_that_counts_are_a_mean(self, model, sgd):
        """As frameworks do that know how many tokens all micro-batches have."""
        with record(sgd, steps_per_epoch=1, gradients="norms") as recorder:
            for inputs, targets in batches(2) + batches(1, size=2):
                loss = nn.functional.mse_loss(model(inputs), targets, reduction="sum")
                (loss / 12).backward()
            before = recorder.history.n_steps
            sgd.step()
        history = recorder.history
        assert before == 0
        assert_array_equal(history.n_samples, [12])
        # The twelfth that each sum is multiplied by is one in single precision.
        assert_allclose(history.running_loss, history.loss, rtol=1e-6)
        assert_allclose(history.path_gradient_norm, history.gradient_norm, rtol=1e-6)

    def test_of_tokens_the_loss_is_known_and_the_samples_are_not(self):
        model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
        sgd = torch.optim.SGD(model.parameters(), 0.1)
        tokens = torch.randint(7, (2, 6))
        recorder = record(sgd, steps_per_epoch=1)
        loss = nn.functional.cross_entropy(model(tokens).view(-1, 7), tokens.view(-1))
        loss.backward()
        sgd.step()
        with pytest.warns(UserWarning, match="flattened.*running loss, are known"):
            recorder.close()
        assert_array_equal(recorder.history.denominator, [12])
        assert_array_equal(recorder.history.running_loss, [loss.item()])
        assert np.isnan(recorder.history.n_samples).all()

    def test_what_a_critic_takes_of_two_batches_is_no_mean_of_one(self, model, sgd):
        recorder = record(sgd, steps_per_epoch=1)
        (model(torch.randn(4, 3)).mean() - model(torch.randn(4, 3)).mean()).backward()
        sgd.step()
        with pytest.warns(UserWarning, match="samples of 1 steps is not known"):
            recorder.close()

    def test_two_heads_in_a_pass_each_are_about_the_same_samples(self, model, sgd):
        with record(sgd) as recorder:
            outputs = model(torch.randn(4, 3))
            outputs.square().mean().backward(retain_graph=True)
            outputs.abs().mean().backward()
            sgd.step()
            model(torch.randn(4, 3)).mean().backward()
            model(torch.randn(4, 3)).mean().backward()
            sgd.step()
        assert_array_equal(recorder.history.n_samples, [4, 8])
        assert_array_equal(recorder.history.denominator, [4, 8])

    def test_heads_whose_means_divide_by_other_numbers_have_none_together(self, model, sgd):
        recorder = record(sgd, steps_per_epoch=1)
        outputs = model(torch.randn(4, 3))
        (outputs - torch.ones(4, 2)).square().mean().backward(retain_graph=True)
        outputs.square().mean().backward()
        sgd.step()
        with pytest.warns(UserWarning, match="samples of 1 steps is not known"):
            recorder.close()
        assert_array_equal(recorder.history.n_samples, [4])

    def test_what_the_criteria_are_asked_for_stays_theirs(self, model, criterion, sgd):
        recorder = record(sgd, criterion, loss="criteria")
        ((inputs, targets),) = batches(1)
        (criterion(model(inputs), targets) + model[0].bias.square().sum()).backward()
        (model(inputs) - 7).square().mean().backward()
        sgd.step()
        recorder.close()
        assert recorder.history.loss[0] != recorder.history.objective[0]
        assert_array_equal(recorder.history.n_samples, [5])


class TestDenominators:
    """The denominator is what makes the size-weighted mean of batch losses that of all samples."""

    def check(self, criterion, predictions, targets, expected, **settings):
        """Record parts of unequal sizes, and compare with the loss of all of them together."""
        shift = nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.SGD([shift], lr=0.0)
        samples = settings.pop("samples", [5, 2])
        with record(optimizer, criterion, steps_per_epoch=2, **settings) as recorder:
            for part in (slice(0, 5), slice(5, None)):
                criterion(predictions[part] + shift, targets[part]).backward()
                optimizer.step()
        assert_allclose(recorder.history.denominator, expected, rtol=1e-6)
        assert_array_equal(recorder.history.n_samples, samples)
        whole = criterion(predictions, targets).item()
        assert_allclose(recorder.history.running_loss, [whole], rtol=1e-5)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_of_class_weights_it_is_their_sum(self, smoothing):
        weight = torch.tensor([1.0, 2.0, 0.5])
        targets = torch.tensor([0, 1, 2, 1, 0, 2, 2])
        criterion = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)
        expected = [weight[targets[:5]].sum(), weight[targets[5:]].sum()]
        self.check(criterion, torch.randn(7, 3), targets, expected)

    def test_of_ignored_targets_it_leaves_them_out(self):
        targets = torch.tensor([0, -100, 2, 1, -100, 2, -100])
        self.check(nn.CrossEntropyLoss(), torch.randn(7, 3), targets, [3, 1])
        targets = torch.tensor([0, 1, 2, 1, 1, 2, 1])
        self.check(nn.CrossEntropyLoss(ignore_index=1), torch.randn(7, 3), targets, [2, 1])

    def test_of_class_weights_and_ignored_targets_it_does_both(self):
        weight = torch.tensor([1.0, 2.0, 0.5])
        targets = torch.tensor([0, -100, 2, 1, -100, 2, -100])
        predictions = torch.randn(7, 3).log_softmax(dim=1)
        self.check(nn.NLLLoss(weight=weight), predictions, targets, [3.5, 0.5])

    def test_of_pixels_it_counts_each(self):
        targets = torch.randint(3, (7, 2, 2))
        self.check(nn.CrossEntropyLoss(), torch.randn(7, 3, 2, 2), targets, [20, 8])

    def test_of_probabilities_it_is_the_number_of_samples(self):
        targets = torch.rand(7, 3).softmax(dim=1)
        self.check(nn.CrossEntropyLoss(), torch.randn(7, 3), targets, [5, 2])

    @pytest.mark.parametrize(
        "criterion",
        [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.SmoothL1Loss(), nn.BCEWithLogitsLoss()],
        ids=lambda criterion: type(criterion).__name__,
    )
    def test_of_losses_over_elements_it_is_their_number(self, criterion):
        self.check(criterion, torch.randn(7, 3), torch.rand(7, 3), [15, 6])

    def test_of_kl_divergence_by_batch_it_is_the_number_of_samples(self):
        log = torch.randn(7, 3).log_softmax(dim=1)
        targets = torch.rand(7, 3).softmax(dim=1)
        self.check(nn.KLDivLoss(reduction="batchmean"), log, targets, [5, 2])

    def test_of_a_module_of_ones_own_it_is_the_length_of_the_first_argument(self):
        class Own(nn.Module):
            def forward(self, predictions, targets):
                return (predictions - targets).abs().sum(dim=1).mean()

        self.check(Own(), torch.randn(7, 3), torch.rand(7, 3), [5, 2])

    def test_it_may_be_given_as_a_function_of_the_arguments(self):
        def count(predictions, targets):
            return 3 * len(targets)

        self.check(
            nn.L1Loss(),
            torch.randn(7, 2),
            torch.rand(7, 2),
            [15, 6],
            n_samples=count,
            samples=[15, 6],
        )

    @pytest.mark.parametrize("shapes", [[(6, 4)] * 3, [(6, 4), (1, 4), (6, 1)]])
    def test_of_margins_between_pairs_it_counts_each(self, shapes):
        first, second = (nn.Parameter(torch.randn(shape)) for shape in shapes[:2])
        criterion, optimizer = nn.MarginRankingLoss(), torch.optim.SGD([first, second], 0.1)
        with record(optimizer, criterion) as recorder:
            criterion(first, second, torch.ones(shapes[2])).backward()
            optimizer.step()
        assert_array_equal(recorder.history.denominator, [24])
        assert_array_equal(recorder.history.n_samples, [6])

    def test_of_targets_ignored_by_a_loss_with_a_layer_of_its_own_it_leaves_them_out(self):
        if not hasattr(nn, "LinearCrossEntropyLoss"):
            pytest.skip("this torch has no LinearCrossEntropyLoss")
        criterion = nn.LinearCrossEntropyLoss(3, 4, ignore_index=-100)
        optimizer = torch.optim.SGD(criterion.parameters(), 0.1)
        with record(optimizer, criterion) as recorder:
            criterion(torch.randn(6, 3), torch.tensor([0, -100, 1, -100, 2, -100])).backward()
            optimizer.step()
        assert_array_equal(recorder.history.denominator, [3])
        assert_array_equal(recorder.history.n_samples, [6])

    def test_a_function_that_fails_leaves_nan_and_is_reported(self, model, criterion, sgd):
        recorder = record(sgd, criterion, n_samples=lambda predictions: 1)
        losses, _ = train(model, criterion, sgd, batches(2))
        with pytest.warns(UserWarning, match="number of samples of a batch is not known"):
            recorder.close()
        assert_array_equal(recorder.history.loss, losses)
        assert np.isnan(recorder.history.n_samples).all()

    def test_arguments_may_be_given_by_name(self, model, criterion, sgd):
        inputs, targets = batches(1)[0]
        with record(sgd, criterion) as recorder:
            criterion(input=model(inputs), target=targets).backward()
            sgd.step()
        assert_array_equal(recorder.history.n_samples, [5])


@pytest.mark.parametrize("wrong", [None, "ten", float("nan"), -1, 0, True, float("inf")])
def test_what_a_function_returns_that_is_no_number_of_samples_is_told(wrong):
    loop = Loop()
    recorder = loop.record(n_samples=lambda predictions, targets: wrong)
    plain(loop)
    with pytest.warns(UserWarning, match=rf"samples of a batch is not known.*{wrong!r}"):
        recorder.close()
    assert_array_equal(recorder.history.loss, loop.printed)
    assert np.isnan(recorder.history.n_samples).all()


def test_several_numbers_of_samples_for_one_batch_are_no_number():
    loop = Loop()
    recorder = loop.record(n_samples=lambda predictions, targets: torch.ones(len(targets)))
    plain(loop)
    with pytest.warns(UserWarning, match="samples of a batch is not known.*one real number"):
        recorder.close()
    assert_array_equal(recorder.history.loss, loop.printed)
    assert np.isnan(recorder.history.n_samples).all()
