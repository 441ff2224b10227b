"""Loops of all kinds: models, optimizers, and the steps of the loops.

Each step is one of a `Training`, given the number of the step and its batch.
"""

import functools
import warnings
from types import SimpleNamespace

import torch
from torch import nn

N_SAMPLES, BATCH_SIZE, N_EPOCHS = 29, 8, 3
STEPS_PER_EPOCH = 4  # the last batch of an epoch is a ragged one of five samples
KEPT_STEPS = 5  # what a small memory has room for: the changeover comes within an epoch


class TiedDecoder(nn.Module):
    """A language model in small: its decoder is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.decoder = nn.Linear(6, 11)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens):
        return self.decoder(self.embedding(tokens).mean(1))


class MeanEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 2, sparse=True)

    def forward(self, tokens):
        return self.embedding(tokens).mean(1)


class LastOfSequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.readout = nn.Linear(5, 2)

    def forward(self, sequences):
        return self.readout(self.lstm(sequences)[0][:, -1])


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )


def partly_used():
    model = network()
    model[0].bias.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))  # its gradient stays None
    return model


def values(*shape):
    return torch.randn(N_SAMPLES, *shape)


def tokens():
    return torch.randint(11, (N_SAMPLES, 3))


def next_tokens():
    targets = torch.randint(11, (N_SAMPLES,))
    targets[::5] = -100  # ignored by the criterion, so that batches count for different sizes
    return targets


MODELS = {  # the model, its criterion, the inputs and the targets
    "network": (network, nn.MSELoss, lambda: values(4), lambda: values(2)),
    "partly used network": (partly_used, nn.MSELoss, lambda: values(4), lambda: values(2)),
    "network in half precision": (
        lambda: network().bfloat16(),
        nn.L1Loss,  # torch 2.3 has no mean of squares in bfloat16
        lambda: values(4).bfloat16(),
        lambda: values(2).bfloat16(),
    ),
    "convolutions": (
        convolutions,
        nn.CrossEntropyLoss,
        lambda: values(1, 6, 6),
        lambda: torch.randint(3, (N_SAMPLES,)),
    ),
    "sparse embedding": (MeanEmbedding, nn.MSELoss, tokens, lambda: values(2)),
    "tied decoder": (TiedDecoder, nn.CrossEntropyLoss, tokens, next_tokens),
    "lstm": (LastOfSequence, nn.MSELoss, lambda: values(6, 4), lambda: values(2)),
}


def in_two_groups(parameters):
    first, *others = parameters
    return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others}], lr=0.01)


class UnscalingSGD(torch.optim.Optimizer):
    """Gradient descent that leaves out what a GradScaler finds infinite, as fused optimizers do."""

    _step_supports_amp_scaling = True

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                update = -group["lr"] * p.grad / self.grad_scale
                p.add_(torch.where(self.found_inf > 0, 0.0, update))


OPTIMIZERS = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.05),
    "SGD foreach": functools.partial(torch.optim.SGD, lr=0.05, foreach=True),
    "SGD in two groups": in_two_groups,
    "SGD that unscales": functools.partial(UnscalingSGD, lr=0.05),
    "Nesterov": functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
    "Adam": functools.partial(torch.optim.Adam, lr=0.01),
    "Adam foreach": functools.partial(torch.optim.Adam, lr=0.01, foreach=True, amsgrad=True),
    "Adam with a tensor as its step size": lambda parameters: torch.optim.Adam(
        parameters, lr=torch.tensor(0.01)
    ),
    "AdamW fused": functools.partial(torch.optim.AdamW, lr=0.01, fused=True),
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": functools.partial(torch.optim.Adagrad, lr=0.05),
    "SparseAdam": functools.partial(torch.optim.SparseAdam, lr=0.05),
    "LBFGS": functools.partial(
        torch.optim.LBFGS, lr=0.1, max_iter=4, line_search_fn="strong_wolfe"
    ),
}


class Training(SimpleNamespace):
    """A model, its criteria and its optimizer, and what the loop prints.

    `losses` are the printed ones, one a step that a recording should have; `printed` may hold
    more.
    """

    def loss(self, inputs, targets):
        loss = self.criterion(self.model(inputs), targets)
        self.printed.append(None if loss.grad_fn is None else loss.grad_fn.name())
        return loss

    def print(self, loss):
        self.losses.append(loss.item())

    @functools.cached_property
    def scheduler(self):
        return torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)

    @functools.cached_property
    def scaler(self):
        return torch.amp.GradScaler("cpu", init_scale=1024.0)


def plain(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    loss.backward()
    gradients = [p.grad for p in t.model.parameters()]
    t.optimizer.step()
    t.printed += [p.grad is g for p, g in zip(t.model.parameters(), gradients, strict=True)]
    t.print(loss)


def cleared_after_the_forward_pass(t, k, inputs, targets):
    loss = t.loss(inputs, targets)
    t.optimizer.zero_grad()
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def cleared_after_the_step(t, k, inputs, targets):
    loss = t.loss(inputs, targets)
    loss.backward()
    t.optimizer.step()
    t.optimizer.zero_grad()
    t.print(loss)


def cleared_to_zeros(t, k, inputs, targets):
    t.optimizer.zero_grad(set_to_none=False)
    loss = t.loss(inputs, targets)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def with_a_closure(t, k, inputs, targets):
    evaluated = []

    def closure():
        t.optimizer.zero_grad()
        loss = t.loss(inputs, targets)
        loss.backward()
        evaluated.append(loss.item())
        return loss

    returned = t.optimizer.step(closure) if k % 2 else t.optimizer.step(closure=closure)
    t.printed.append((evaluated, returned))
    t.losses.append(evaluated[0])


def accumulated(t, k, inputs, targets):
    t.optimizer.zero_grad()
    parts = list(zip(inputs.split(3), targets.split(3), strict=True))
    mean = 0.0
    for some_inputs, some_targets in parts:
        loss = t.loss(some_inputs, some_targets) * (len(some_inputs) / len(inputs))
        loss.backward()
        mean = mean + loss.detach()
    t.optimizer.step()
    t.print(mean)


def clipped(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    loss.backward()
    t.printed.append(nn.utils.clip_grad_norm_(t.model.parameters(), 0.1))
    t.optimizer.step()
    t.print(loss)


def scheduled(t, k, inputs, targets):
    scheduler = t.scheduler  # made after the recorder: it wraps the method `step` once more
    plain(t, k, inputs, targets)
    scheduler.step()
    t.printed.append(scheduler.get_last_lr())


def in_mixed_precision(t, k, inputs, targets):
    t.optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = t.loss(inputs, targets)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def scaled(t, k, inputs, targets, clips=False):
    overflows = k in {1, 6}
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    if overflows:
        loss = loss * float("inf")
    t.scaler.scale(loss).backward()
    if clips:
        t.scaler.unscale_(t.optimizer)
        t.printed.append(nn.utils.clip_grad_norm_(t.model.parameters(), 0.1))
    t.scaler.step(t.optimizer)
    t.scaler.update()
    t.printed.append((loss.item(), t.scaler.get_scale()))
    # A step that is left out calls no hook, unless the optimizer unscales the gradients itself.
    if not overflows or getattr(t.optimizer, "_step_supports_amp_scaling", False):
        t.print(loss)


scaled_and_clipped = functools.partial(scaled, clips=True)


scaled_and_clipped.__name__ = "scaled_and_clipped"


def with_two_losses(t, k, inputs, targets):
    t.optimizer.zero_grad()
    outputs = t.model(inputs)
    loss = t.criterion(outputs, targets) + t.other_criterion(outputs, targets)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def with_two_passes(t, k, inputs, targets):
    t.optimizer.zero_grad()
    outputs = t.model(inputs)
    first, second = t.criterion(outputs, targets), t.other_criterion(outputs, targets)
    first.backward(retain_graph=True)
    second.backward()
    t.optimizer.step()
    t.print(first.detach() + second.detach())


def with_a_pass_whose_gradients_are_dropped(t, k, inputs, targets):
    t.optimizer.zero_grad()
    t.loss(inputs.flip(0), targets).backward()
    plain(t, k, inputs, targets)


def with_a_pass_whose_gradients_are_zeroed(t, k, inputs, targets):
    t.optimizer.zero_grad(set_to_none=False)
    t.loss(inputs.flip(0), targets).backward()
    cleared_to_zeros(t, k, inputs, targets)


def with_a_penalty_on_the_gradient(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    parameters = [p for p in t.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    loss = loss + 0.1 * sum(g.square().sum() for g in gradients)
    loss.backward()
    t.optimizer.step()
    t.print(loss)


def with_gradients_that_have_a_graph(t, k, inputs, targets):
    t.optimizer.zero_grad()
    loss = t.loss(inputs, targets)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using backward.. with create_graph=True")
        loss.backward(create_graph=True)
    t.optimizer.step()
    t.print(loss)


def evaluated(t, k, inputs, targets):
    plain(t, k, inputs, targets)
    if k % 3 == 1:
        t.model.eval()
        with torch.no_grad():
            t.printed.append(t.loss(t.inputs, t.targets).item())
        t.model.train()


def evaluated_with_gradients(t, k, inputs, targets):
    if k % 3 == 0:
        t.model.eval()
        t.printed.append(t.loss(t.inputs, t.targets).item())
        t.model.train()
    plain(t, k, inputs, targets)
    if k % 3 == 1:
        t.printed.append(t.loss(t.inputs, t.targets).item())
