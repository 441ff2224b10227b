"""The loops that tests record, and what they see of themselves."""

import torch
from torch import nn

from sgd_analysis import record


def network(n_outputs=1, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, n_outputs))


def batches(n, size=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 3, generator=generator), torch.randn(size, 1, generator=generator))
        for _ in range(n)
    ]


def flat(tensors):
    return torch.cat([torch.zeros(0)] + [t.detach().ravel() for t in tensors]).numpy()


def gradient_of(model):
    return flat([torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])


def backward(model, criterion, batch):
    inputs, targets = batch
    loss = criterion(model(inputs), targets)
    loss.backward()
    return loss.item()


def train(model, criterion, optimizer, data):
    """The plain loop; returns its losses and gradients."""
    losses, gradients = [], []
    for batch in data:
        optimizer.zero_grad()
        losses.append(backward(model, criterion, batch))
        gradients.append(gradient_of(model))
        optimizer.step()
    return losses, gradients


class Loop:
    """A model, its optimizer, and batches; `printed` is what each step's gradient belongs to."""

    def __init__(self, criterion=None, lr=0.1, optimizer=torch.optim.SGD):
        self.model = network()
        self.criterion = criterion or nn.MSELoss()
        self.optimizer = optimizer(self.model.parameters(), lr=lr)
        self.generator = torch.Generator().manual_seed(1)
        self.printed = []

    def batch(self, size=10):
        shape = torch.randn(size, 3, generator=self.generator)
        return shape, torch.randn(size, 1, generator=self.generator)

    def loss(self, inputs, targets):
        return self.criterion(self.model(inputs), targets)

    def step(self, *losses):
        """Make a step of which these are the objective, together."""
        self.optimizer.step()
        self.printed.append(sum(loss.item() for loss in losses))

    def record(self, *criteria, **settings):
        return record(self.optimizer, *(criteria or (self.criterion,)), **settings)

    def gradient(self):
        return torch.cat([p.grad.flatten() for p in self.model.parameters()]).numpy()


def plain(loop, **given):
    inputs, targets = loop.batch()
    loop.optimizer.zero_grad()
    loss = loop.loss(inputs, targets)
    loss.backward(**given)
    loop.step(loss)
