from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sgd_analysis import (
    History,
    LeastSquares,
    RiskEstimate,
    estimate_empirical_risk,
    quadratic_fit,
    record,
    train,
)
from sgd_analysis.diagnosis.first_order import FirstOrder

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(400, 5)) * np.linspace(0.5, 1.5, 5)
NOISY = LeastSquares(FEATURES, FEATURES @ RNG.normal(size=5) + 0.5 * RNG.normal(size=400))
SMALL = 0.5 / (40 * NOISY.eigenvalues[-1])  # a half in units of the first order's range


def run_of(problem, step_size, epochs, seed=0, **settings):
    run = train(problem, step_size=step_size, max_epochs=epochs, seed=seed, **settings)
    return run.history, np.array([problem.empirical_risk(w) for w in run.checkpoints[1:]])


def loop(
    model, optimizer, data, batch_size, epochs, before_step=lambda: None, scale=1.0, **options
):
    """Train a classifier, and evaluate it after each epoch."""
    loader, risks = DataLoader(data, batch_size, shuffle=True), []
    with record(optimizer, **options) as recorder:
        for _ in range(epochs):
            for inputs, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                before_step()
                optimizer.step()
            with torch.no_grad():
                risks.append(nn.functional.cross_entropy(model(data[:][0]), data[:][1]).item())
    return recorder.history, np.array(risks)


def classes(seed, *, random, n=256):
    """Data that a small network learns, or that it can only memorise."""
    torch.manual_seed(seed)
    inputs = torch.randn(n, 20)
    labels = torch.randint(4, (n,)) if random else inputs[:, :4].argmax(dim=1)
    return TensorDataset(inputs, labels)


def network(width=64):
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 4))


def memorise(seed, epochs=25):
    data, model = classes(seed, random=True), network(256)
    return loop(model, torch.optim.SGD(model.parameters(), lr=0.05), data, 4, epochs)


def tell_apart(seed, epochs=10):
    """Each sample is a class of its own, and each step raises it above all others."""
    torch.manual_seed(seed)
    data, model = TensorDataset(torch.rand(128, 20), torch.arange(128)), nn.Linear(20, 128)
    return loop(model, torch.optim.SGD(model.parameters(), lr=0.3), data, 4, epochs)


def learn(seed, lr=0.05, epochs=12, momentum=0.0, weight_decay=0.0, **settings):
    data, model = classes(seed, random=False), network()
    settings_of_sgd = {"momentum": momentum, "weight_decay": weight_decay}
    sgd = torch.optim.SGD(model.parameters(), lr=lr * (1 - momentum), **settings_of_sgd)
    return loop(model, sgd, data, 8, epochs, **settings)


def learn_on_a_schedule(seed, epochs=10):
    data, model = classes(seed, random=False), network()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 32 * epochs)
    sgd.register_step_post_hook(lambda *_: schedule.step())
    return loop(model, sgd, data, 8, epochs)


RUNS = {
    "least_squares": lambda seed: run_of(NOISY, SMALL, 12, seed, batch_size=10),
    "learning": learn,
    "learning_with_momentum": lambda seed: learn(seed, momentum=0.9),
    "learning_with_weight_decay": lambda seed: learn(seed, weight_decay=0.03),
    "learning_on_a_schedule": learn_on_a_schedule,
    "memorising": memorise,
    "telling_apart": tell_apart,
}


class TestCoverage:
    @pytest.mark.parametrize("kind", RUNS)
    def test_nineteen_of_twenty_losses_are_within_two_standard_errors(self, kind):
        deviations, closer = [], []
        for seed in range(3):
            history, risk = RUNS[kind](seed)
            found = estimate_empirical_risk(history)
            told = np.array([not why for why in found.unknown])
            assert_array_equal(np.isfinite(found.empirical_risk), told)
            error = np.abs(found.empirical_risk - risk)[told]
            deviations.extend(error / found.standard_error[told])
            closer.extend(error < 0.5 * np.abs(history.running_loss - risk)[told])
        assert len(deviations) >= 12
        assert np.mean(np.array(deviations) < 2) >= 0.95
        assert np.mean(closer) > 0.8  # than half as far off as the running loss

    def test_the_error_is_a_few_hundredths_of_the_correction_in_the_range_of_the_first_order(self):
        history, risk = run_of(NOISY, SMALL / 10, 8, batch_size=10)
        found = estimate_empirical_risk(history)
        correction = history.running_loss - risk
        assert (found.standard_error[1:] < 0.1 * correction[1:]).all()
        assert (np.abs(found.empirical_risk - risk)[1:] < 0.05 * correction[1:]).all()

    def test_what_lasts_of_the_own_gains_is_learned_from_the_trend_within_epochs(self):
        history, risk = tell_apart(seed=0)
        found = estimate_empirical_risk(history)
        correction = history.running_loss - risk
        assert (correction[1:] > -np.diff(risk)).all()  # later than a whole epoch
        error = found.standard_error / correction
        assert error[-1] < 0.3
        early, late = (FirstOrder.of(history[e]) for e in (1, -1))
        assert error[1] / error[-1] > 1.3 and abs(early.own / late.own - 1) < 0.2

    def test_an_estimate_does_not_depend_on_later_epochs(self):
        history, _ = RUNS["learning"](0)
        whole, part = (estimate_empirical_risk(one) for one in (history, history[:6]))
        assert_array_equal(whole.empirical_risk[:6], part.empirical_risk)
        assert whole.unknown[:6] == part.unknown


class TestUnknown:
    def test_the_first_epoch(self):
        history, _ = run_of(NOISY, SMALL, 1, batch_size=10)
        found = estimate_empirical_risk(history)
        assert np.isnan(found.empirical_risk).all() and np.isnan(found.standard_error).all()
        assert found.unknown[0].startswith("in the first epoch")
        assert "first epoch" in repr(found)

    def test_no_epoch_at_all(self):
        history, _ = run_of(NOISY, SMALL, 1, batch_size=10)
        assert estimate_empirical_risk(history[:0]).unknown == ()

    @pytest.mark.parametrize("seed", range(3))
    def test_the_parabola_at_its_step_size_is_beyond_the_first_order(self, seed):
        history, _ = run_of(quadratic_fit(), 2e-4, 48, seed, batch_size=10)
        found = estimate_empirical_risk(history)
        assert np.isnan(found.empirical_risk).all() and all(found.unknown)
        assert "its batch's whole loss" in found.unknown[-1]

    def test_running_losses_that_fall_by_less_than_the_gradients_predict(self):
        history, _ = run_of(NOISY, SMALL, 3, batch_size=10)
        slower = replace(history, loss=np.repeat(history.running_loss[-1], history.n_steps))
        found = estimate_empirical_risk(slower)
        assert "where the gradients predict" in found.unknown[1]

    def test_weight_decay_that_moves_the_weights_as_much_as_the_gradients(self):
        history, _ = learn(seed=0, weight_decay=0.5)
        late = estimate_empirical_risk(history).unknown[-1]
        assert "not the gradients alone move the loss, but weight decay" in late

    def test_a_correction_as_large_as_the_loss(self):
        even = RNG.normal(size=(400, 5))  # all directions are fitted at the same rate
        exact = LeastSquares(even, even @ np.ones(5))
        history, _ = run_of(exact, 1.2 / (40 * exact.eigenvalues[-1]), 3, batch_size=10)
        assert "more than half of the running loss" in estimate_empirical_risk(history).unknown[1]

    def test_a_correction_that_is_not_known_at_all(self):
        start = NOISY.minimiser
        history, _ = run_of(NOISY, SMALL, 6, batch_size=10, start=start)
        assert not np.isfinite(estimate_empirical_risk(history).empirical_risk).any()

    def test_adam(self):
        history, _ = run_of(NOISY, 0.01, 2, batch_size=10, optimizer=torch.optim.Adam)
        found = estimate_empirical_risk(history)
        assert all("a step of Adam" in why for why in found.unknown)

    def test_an_optimizer_that_was_not_recorded(self):
        history, _ = run_of(NOISY, SMALL, 2, batch_size=10)
        found = estimate_empirical_risk(replace(history, metadata={}))
        assert "unknown optimizer" in found.unknown[1]

    def test_gradients_that_were_not_recorded(self):
        history, _ = learn(0, epochs=2, gradients="none")
        assert 'gradients="norms"' in estimate_empirical_risk(history).unknown[1]

    def test_parameter_groups_with_different_step_sizes(self):
        data, model = classes(0, random=False), network()
        groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}]
        history, _ = loop(model, torch.optim.SGD(groups, lr=0.05), data, 8, 2)
        assert "parameter groups" in estimate_empirical_risk(history).unknown[1]

    def test_gradients_of_another_function_than_the_loss(self):
        history, _ = learn(0, epochs=2)
        other = replace(history, own_objective=1.5 * history.loss)
        assert "another function" in estimate_empirical_risk(other).unknown[1]

    def test_losses_that_are_not_known(self):
        history, _ = learn(0, epochs=2)
        lost = replace(history, loss=np.where(history.epoch == 1, np.nan, history.loss))
        assert "are not known" in estimate_empirical_risk(lost).unknown[1]

    def test_a_single_batch(self):
        history, _ = run_of(NOISY, SMALL, 3)
        assert "a single step" in estimate_empirical_risk(history).unknown[2]

    def test_one_process_of_several(self):
        history, _ = learn(0, epochs=2)
        rank = replace(history, local_gradients=history.gradients)
        assert "recorder.gather()" in estimate_empirical_risk(rank).unknown[1]

    def test_what_is_no_history(self):
        with pytest.raises(TypeError, match="history must be a History, got list"):
            estimate_empirical_risk([1.0])


class TestLoops:
    """What a loop does with its steps leaves the estimate right, or is named."""

    def assert_right(self, history, risk):
        found = estimate_empirical_risk(history)
        assert not any(found.unknown[1:])
        error = np.abs(found.empirical_risk - risk)[1:]
        assert (error < 2.5 * found.standard_error[1:]).all()
        assert np.mean(error < 0.3 * np.abs(history.running_loss - risk)[1:]) > 0.7

    def test_batches_that_have_no_loss_left_do_not_hide_the_others(self):
        history, _ = learn(seed=0)
        norms = history.gradient_norm.copy()
        loss, norms[300] = np.where(np.arange(384) == 300, 0.0, history.loss), 0.0
        gradients = replace(history.gradients, norm=norms)
        fitted = replace(history, loss=loss, gradients=gradients)
        assert not any(estimate_empirical_risk(fitted).unknown[1:])
        assert np.isfinite(FirstOrder.of(fitted[9]).longest)

    def test_in_an_epoch_at_step_size_zero_the_running_loss_is_the_global_loss(self):
        data, model = classes(0, random=False), network()
        still = loop(model, torch.optim.SGD(model.parameters(), lr=0.0), data, 8, 3)
        found = estimate_empirical_risk(still[0])
        assert_allclose(found.empirical_risk[1:], still[1][1:], rtol=1e-5)
        assert_array_equal(found.standard_error, [np.nan, 0, 0])

    def test_it_is_so_in_the_last_epoch_of_a_schedule(self):
        history, _ = learn(seed=0, epochs=4)
        ends_still = replace(history, step_size=history.step_size * (history.epoch < 3)[:, None])
        found = estimate_empirical_risk(ends_still)
        assert found.empirical_risk[3] == history.running_loss[3] and not found.unknown[3]

    def test_norms_alone_suffice(self):
        whole, norms = (learn(0, gradients=how)[0] for how in ("auto", "norms"))
        one, other = (estimate_empirical_risk(history) for history in (whole, norms))
        assert_allclose(one.empirical_risk, other.empirical_risk, rtol=1e-5)

    def test_a_ragged_last_batch(self):
        self.assert_right(*run_of(NOISY, SMALL, 8, batch_size=39))

    def test_a_last_batch_of_five_moves_the_loss_by_more_than_the_noise_of_whole_ones(self):
        images, digits = load_digits(return_X_y=True)  # 28 · 64 + 5
        data = TensorDataset(torch.tensor(images / 16).float(), torch.tensor(digits))
        inside, reasons = [], []
        for seed in range(3):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
            sgd = torch.optim.SGD(model.parameters(), lr=0.1)
            history, risk = loop(model, sgd, data, 64, 12)
            found = estimate_empirical_risk(history)
            deviation = (found.empirical_risk - risk) / found.standard_error
            inside.extend(np.abs(deviation[np.isfinite(deviation)]) < 2)
            reasons.extend(found.unknown)
        assert len(inside) > 6 and np.mean(inside) >= 0.95
        assert any("drop_last=True" in why for why in reasons)

    def test_step_sizes_that_change_within_epochs(self):
        data, model = classes(0, random=False), network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.08)
        schedule = torch.optim.lr_scheduler.ExponentialLR(sgd, 0.99)
        sgd.register_step_post_hook(lambda *_: schedule.step())
        self.assert_right(*loop(model, sgd, data, 8, 5))

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_momentum(self, nesterov):
        data, model = classes(0, random=False), network()
        sgd = torch.optim.SGD(model.parameters(), 0.005, momentum=0.9, nesterov=nesterov)
        history, risk = loop(model, sgd, data, 8, 8)
        self.assert_right(history[2:], risk[2:])

    def test_sums_instead_of_means(self):
        problem = LeastSquares(FEATURES, FEATURES @ np.ones(5) + RNG.normal(size=400))
        mean, risk = run_of(problem, SMALL, 8, batch_size=10)
        vectors = mean.gradients
        tenfold = replace(vectors, kept=10 * vectors.kept, norm=10 * vectors.norm)
        summed = replace(
            mean,
            loss=10 * mean.loss,
            step_size=mean.step_size / 10,
            divisor=np.full(mean.n_steps, 10.0),
            gradients=tenfold,
        )
        self.assert_right(summed, risk)
        same = [estimate_empirical_risk(one).empirical_risk for one in (mean, summed)]
        assert_allclose(*same, rtol=1e-12)

    def test_steps_that_are_skipped(self):
        history, risk = run_of(NOISY, SMALL, 6, batch_size=10)
        skipped = np.zeros(history.n_steps, bool)
        skipped[::40] = True
        vectors = history.gradients
        kept = np.where(skipped[:, None], np.nan, vectors.kept)
        lost = replace(vectors, kept=kept, norm=np.where(skipped, np.nan, vectors.norm))
        found = estimate_empirical_risk(replace(history, skipped=skipped, gradients=lost))
        error = np.abs(found.empirical_risk - risk)[1:]
        assert (error < 0.2 * (history.running_loss - risk)[1:]).all()

    def test_clipping_is_named_unless_the_unclipped_norms_are_recorded(self):
        data, model = classes(0, random=False), network()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)

        def clip():
            nn.utils.clip_grad_norm_(model.parameters(), 0.2)

        options = {"before_step": clip, "also": ["unclipped_norm"]}
        history, risk = loop(model, sgd, data, 8, 10, **options)
        assert (history.unclipped_norm > 1.5 * history.gradient_norm).mean() > 0.5
        self.assert_right(history, risk)
        assert "unclipped_norm" in estimate_empirical_risk(replace(history, also={})).unknown[1]


class TestFirstOrder:
    def test_is_the_theorem_in_any_order(self):
        """(η/2)(V + D) above the end and ηD in an epoch, of a survey at the start."""
        eta = SMALL * 1e-6
        order = np.arange(400).reshape(40, 10)
        at_start = NOISY.survey(NOISY.start, order)
        history, _ = run_of(NOISY, eta, 1, batch_size=10, order="cyclic")
        found = FirstOrder.of(history)
        spread = eta * np.mean(at_start.batch_gradient_norm**2)
        drop = eta * 40 * at_start.full_gradient_norm**2
        assert_allclose([found.own, found.drop, found.before_end], [spread, drop, 0.5], rtol=1e-5)

    @pytest.mark.parametrize(
        "options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"dampening": 0.5}]
    )
    def test_counts_of_a_gradient_what_it_has_moved_by_the_epochs_end(self, options):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        sgd = torch.optim.SGD([weight], lr=0.1, **{"momentum": 0.5} | options)
        with record(sgd, steps_per_epoch=12) as recorder:
            for k in range(12):
                sgd.param_groups[0]["lr"] = 0.1 / (k + 1)
                weight.grad = torch.full_like(weight, float(k == 4))
                recorder.observe(1.0, n_samples=1)
                sgd.step()
        own = FirstOrder.of(recorder.history[0]).own
        assert_allclose(own, -weight.item() / 12)

    def test_of_batches_of_unequal_sizes_is_the_mean_over_orders(self):
        """Against the sum over all pairs of steps, in many random orders."""
        rng, sizes = np.random.default_rng(1), np.array([3, 30, 7, 60, 100, 200])
        edges = np.cumsum(sizes)
        cut = np.split(rng.permutation(400), edges[:-1])
        at_start = NOISY.survey(NOISY.start, cut)
        g, p, eta = at_start.gradient, sizes / 400, 1e-3
        later = [
            sum(p[a] * eta * g[a] @ g[b] for i, a in enumerate(order) for b in order[i:])
            for order in (rng.permutation(6) for _ in range(4000))
        ]
        spread = eta * p @ at_start.batch_gradient_norm**2
        drop = eta * 6 * at_start.full_gradient @ at_start.step_gradient
        assert abs(np.mean(later) - (spread + drop) / 2) < 4 * np.std(later) / 4000**0.5
        assert_allclose(at_start.lateness, (spread + drop) / 2 / drop)


def test_repr_tells_the_last_epoch():
    found = RiskEstimate(np.array([np.nan, 2.0]), np.array([np.nan, 0.25]), ("first", ""))
    assert repr(found) == "RiskEstimate(2 epochs, the last: 2 ± 0.25)"
    assert isinstance(run_of(NOISY, SMALL, 1)[0], History)
