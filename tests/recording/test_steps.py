"""Each step of an optimizer is recorded once, whatever calls it and however it ends."""

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import record
from tests.recording.loops import backward, batches, flat, gradient_of, train

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch has ended")


class TestClosures:
    def lbfgs(self, model, **options):
        return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=6, **options)

    @pytest.mark.parametrize("as_keyword", [False, True])
    @pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
    def test_of_lbfgs_the_first_evaluation_of_each_step_is_recorded(
        self, model, criterion, as_keyword, line_search
    ):
        optimizer = self.lbfgs(model, line_search_fn=line_search)
        expected, gradients, weights, evaluations = [], [], [], 0
        with record(optimizer, criterion, steps_per_epoch=2, weights=True) as recorder:
            for batch in batches(4):
                is_first = True

                def closure(batch=batch):
                    nonlocal is_first, evaluations
                    optimizer.zero_grad()
                    loss = criterion(model(batch[0]), batch[1])
                    loss.backward()
                    evaluations += 1
                    if is_first:
                        expected.append(loss.item())
                        gradients.append(gradient_of(model))
                        weights.append(flat(model.parameters()))
                        is_first = False
                    return loss

                if as_keyword:
                    optimizer.step(closure=closure)
                else:
                    optimizer.step(closure)
        assert evaluations > 8
        history = recorder.history
        assert_array_equal(history.loss, expected)
        assert_array_equal(history.gradient, gradients)
        assert_array_equal(history.weights, weights)
        assert history.n_epochs == 2

    def test_of_a_closure_that_accumulates_the_whole_first_evaluation_is_recorded(
        self, model, criterion
    ):
        optimizer = self.lbfgs(model)
        data = batches(2) + batches(1, size=2, seed=4)
        firsts = []

        def closure():
            optimizer.zero_grad()
            losses = [backward(model, criterion, batch) for batch in data]
            firsts.append(losses)
            return sum(losses)

        with record(optimizer, criterion) as recorder:
            optimizer.step(closure)
        assert_allclose(recorder.history.loss, [sum(firsts[0])], rtol=1e-12)
        assert_array_equal(recorder.history.n_samples, [12])

    def test_a_closure_that_the_optimizer_does_not_call(self, model, criterion):
        class Deaf(torch.optim.SGD):
            def step(self, closure=None):
                return super().step()

        optimizer = Deaf(model.parameters(), lr=0.1)
        with record(optimizer, criterion) as recorder:
            loss = backward(model, criterion, batches(1)[0])
            optimizer.step(lambda: None)
        assert_array_equal(recorder.history.loss, [loss])

    def test_the_value_of_the_closure_is_what_step_returns(self, model, criterion, sgd):
        with record(sgd, criterion) as recorder:
            loss = sgd.step(lambda: backward(model, criterion, batches(1)[0]))
        assert_array_equal(recorder.history.loss, [loss])


def test_a_subclass_that_calls_the_step_of_its_parent_is_one_step(model, criterion):
    class Child(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    class Grandchild(Child):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Grandchild(model.parameters(), lr=0.1)
    with record(optimizer, criterion, steps_per_epoch=2) as recorder:
        losses, gradients = train(model, criterion, optimizer, batches(4))
        closure_loss = []
        for batch in batches(2, seed=5):

            def closure(batch=batch):
                optimizer.zero_grad()
                closure_loss.append(backward(model, criterion, batch))

            optimizer.step(closure)
    assert_array_equal(recorder.history.loss, losses + closure_loss)
    assert_array_equal(recorder.history.gradient[:4], gradients)
    assert recorder.history.n_epochs == 3


class Failing(torch.optim.SGD):
    fails = False

    def step(self, closure=None):
        if self.fails:
            raise RuntimeError("no step today")
        return super().step(closure)


def test_an_exception_inside_step_does_not_confuse_the_steps_that_follow(model, criterion):
    optimizer = Failing(model.parameters(), lr=0.1)
    with record(optimizer, criterion, steps_per_epoch=3) as recorder:
        losses, _ = train(model, criterion, optimizer, batches(2))
        optimizer.fails = True
        optimizer.zero_grad()
        failed = backward(model, criterion, batches(1, seed=7)[0])
        with pytest.raises(RuntimeError, match="no step today"):
            optimizer.step()
        optimizer.fails = False
        later, _ = train(model, criterion, optimizer, batches(3, seed=8))
    # Its loss and gradient were seen, so that the step has its row.
    assert_array_equal(recorder.history.loss, [*losses, failed, *later])
    assert recorder.history.n_epochs == 2
