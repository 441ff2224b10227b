"""Optimizers that are not torch's: their steps are seen by one that follows them."""

import copy
import pickle

import pytest
import torch
from numpy.testing import assert_array_equal

from sgd_analysis import record
from sgd_analysis.frameworks.following import follower_of
from tests.recording.loops import batches, network


class Descent:
    """An optimizer of its own kind."""

    def __init__(self, parameters, rate):
        self.parameters, self.rate = [*parameters], rate

    def apply(self, decay=1.0):
        with torch.no_grad():
            for parameter in self.parameters:
                parameter -= self.rate * parameter.grad
        self.rate *= decay
        return "applied"

    def groups(self):
        return [{"params": self.parameters, "lr": self.rate}]


def train(*, recorded):
    """Four steps; returns the weights, what was seen in each step, and the recorder."""
    model = network()
    optimizer = Descent(model.parameters(), 0.1)
    follower = follower_of(optimizer, "apply", optimizer.groups) if recorded else None
    recorder = record(follower, n_samples=5) if recorded else None
    seen = []
    for inputs, targets in batches(4):
        loss = (model(inputs) - targets).square().mean()
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        seen.append((loss.item(), optimizer.rate, gradient.tolist()))
        assert optimizer.apply(decay=0.5) == "applied"
    if recorded:
        recorder.close()
        follower.leave()
        assert "apply" not in vars(optimizer)
    return model.state_dict(), seen, recorder


@pytest.mark.filterwarnings("ignore:no epoch has ended")
def test_each_of_their_steps_is_recorded_and_left_as_it_is():
    weights, seen, _ = train(recorded=False)
    recorded_weights, seen_recorded, recorder = train(recorded=True)
    assert seen_recorded == seen
    for name, weight in weights.items():
        assert torch.equal(recorded_weights[name], weight)
    losses, rates, gradients = zip(*seen, strict=True)
    history = recorder.history
    assert_array_equal(history.loss, losses)
    assert_array_equal(history.step_size[:, 0], rates)
    assert_array_equal(history.gradient, gradients)
    assert history.metadata["optimizer"] == "Descent"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_the_followed_optimizer_is_followed_by_none(copied):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = Descent([weight], 0.5)
    follower = follower_of(optimizer, "apply", optimizer.groups)
    recorder = record(follower)
    other = copied(optimizer)
    (other_weight,) = other.parameters
    other_weight.grad = torch.ones(2)
    assert other.apply() == "applied"
    assert other_weight.tolist() == [0.5, 0.5] and weight.tolist() == [1.0, 1.0]
    assert recorder.history.n_steps == 0
    recorder.close()
    follower.leave()


def test_who_stands_in_for_the_follower_meanwhile_is_left_alone():
    optimizer = Descent([torch.nn.Parameter(torch.ones(2))], 0.5)
    follower = follower_of(optimizer, "apply", optimizer.groups)
    wrapped = optimizer.apply
    optimizer.apply = lambda: wrapped()
    follower.leave()
    assert "apply" in vars(optimizer)


@pytest.mark.parametrize("framework", ["fastai", "keras"])
def test_record_names_the_callback_that_takes_an_optimizer_which_is_not_torchs(framework):
    kind = type("Adam", (Descent,), {"__module__": f"{framework}.optimizers"})
    with pytest.raises(TypeError, match=rf"Adam: the callback of .*frameworks\.{framework}"):
        record(kind([], 0.1))


def test_record_names_the_attribute_that_has_the_optimizer_of_torch():
    wrapper = Descent([], 0.1)
    wrapper.opt = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    with pytest.raises(TypeError, match="Descent: give its `opt`"):
        record(wrapper)
