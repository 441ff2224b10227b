"""Loops over graphs, pixels, tasks and pairs, and ways of making a step."""

import contextlib

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import backward
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from tests.recording.published.images import convnet, digits


def graph_convolution(script):
    """The whole graph is one batch; the loss is that of the nodes that are for training."""
    features, labels = torch.rand(20, 6), torch.randint(3, (20,))
    neighbours = (torch.rand(20, 20) < 0.2).float() + torch.eye(20)
    neighbours /= neighbours.sum(1, keepdim=True)
    for_training = torch.arange(20) < 12
    first, second = nn.Linear(6, 8), nn.Linear(8, 3)
    optimizer = torch.optim.Adam(
        [{"params": first.parameters(), "weight_decay": 5e-4}, {"params": second.parameters()}],
        lr=0.01,
    )

    def model():
        hidden = F.dropout(F.relu(first(neighbours @ features)), 0.5)
        return F.log_softmax(second(neighbours @ hidden), dim=1)

    with script.record(optimizer) as step:
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.nll_loss(model()[for_training], labels[for_training])
            loss.backward()
            optimizer.step()
            step(loss, 12)
            with torch.no_grad():
                (model().argmax(1) == labels)[~for_training].float().mean().item()
    return first, second


def style_transfer(script):
    """The pixels are what is trained, by LBFGS; content and style are weighed and added up."""
    network = convnet()[:2].requires_grad_(False)
    content, style = network(torch.rand(1, 1, 8, 8)), network(torch.rand(1, 1, 8, 8))
    pixels = nn.Parameter(torch.rand(1, 1, 8, 8))
    optimizer = torch.optim.LBFGS([pixels], max_iter=4)

    def gram(seen):
        return seen.flatten(2)[0] @ seen.flatten(2)[0].T / seen.numel()

    with script.record(optimizer) as step:
        for _ in range(3):
            losses = []

            def closure(losses=losses):
                with torch.no_grad():
                    pixels.clamp_(0, 1)
                optimizer.zero_grad()
                seen = network(pixels)
                loss = F.mse_loss(seen, content) + 1e3 * F.mse_loss(gram(seen), gram(style))
                losses.append(loss)
                loss.backward()
                step.look()
                return loss

            optimizer.step(closure)
            step(losses[0], 1)
    return nn.ParameterList([pixels])


def meta_learning(script):
    """The loss after one step on each task, whose own gradient has a graph."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with script.record(optimizer) as step:
        for _ in range(4):
            optimizer.zero_grad()
            losses = []
            for slope in torch.randn(3):
                inputs = torch.randn(10, 1)
                fit = F.mse_loss(model(inputs[:5]), slope * inputs[:5])
                gradients = torch.autograd.grad(fit, [*model.parameters()], create_graph=True)
                adapted = [p - 0.1 * g for p, g in zip(model.parameters(), gradients, strict=True)]
                losses.append(F.mse_loss(F.linear(inputs[5:], *adapted), slope * inputs[5:]))
            loss = torch.stack(losses).mean()
            loss.backward()
            optimizer.step()
            step(loss, 3 * 5)
    return model


def recommender(script):
    """Factors of users and items with sparse gradients, and the optimizer made for them."""
    users, items = nn.Embedding(7, 3, sparse=True), nn.Embedding(9, 3, sparse=True)
    optimizer = torch.optim.SparseAdam([*users.parameters(), *items.parameters()], lr=1e-2)
    rated = TensorDataset(torch.randint(7, (20,)), torch.randint(9, (20,)), torch.rand(20))
    with script.record(optimizer) as step:
        for _ in range(2):
            for user, item, rating in DataLoader(rated, 6, shuffle=True):
                optimizer.zero_grad()
                loss = ((users(user) * items(item)).sum(1) - rating).pow(2).mean()
                loss.backward()
                optimizer.step()
                step(loss, len(user))
    return users, items


def early_bound(script):
    """`backward` was imported by its name, before any recorder was there; two roots at once."""
    model = convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with script.record(optimizer) as step:
        for images, target in digits():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), target)
            penalty = 1e-2 * sum(p.square().sum() for p in model.parameters())
            backward([loss, penalty])
            optimizer.step()
            step([loss, penalty], len(images))
    return model


def loss_by_sample(script):
    """`backward` is called on a vector, with the weight of each sample."""
    model = convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with script.record(optimizer) as step:
        for images, target in digits():
            optimizer.zero_grad()
            losses = F.cross_entropy(model(images), target, reduction="none")
            weights = torch.full((len(images),), 0.25)  # a power of two, so that sums are exact
            losses.backward(weights)
            optimizer.step()
            step((losses.detach().double() * weights).sum(), len(images))
    return model


def two_heads(script):
    """Two losses, a backward pass each; the second one needs the graph of the first."""
    body, heads = nn.Linear(64, 6), nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 64)])
    optimizer = torch.optim.Adam([*body.parameters(), *heads.parameters()], lr=1e-2)
    with script.record(optimizer) as step:
        for images, target in digits():
            optimizer.zero_grad()
            hidden = torch.tanh(body(images.flatten(1)))
            of_labels = F.cross_entropy(heads[0](hidden), target)
            of_pixels = F.mse_loss(heads[1](hidden), images.flatten(1))
            of_labels.backward(retain_graph=True)
            of_pixels.backward()
            optimizer.step()
            step([of_labels, of_pixels], len(images), len(images) + images.numel())
    return body, heads


def checkpointed(script, *, use_reentrant):
    """The forward pass is made twice, the second time inside the backward pass."""
    model = convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with script.record(optimizer) as step:
        for images, target in digits():
            hidden = checkpoint(model[:4], images.requires_grad_(), use_reentrant=use_reentrant)
            loss = F.cross_entropy(model[4:](hidden), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step(loss, len(images))
    return model


def checkpointed_reentrant(script):
    return checkpointed(script, use_reentrant=True)


def checkpointed_anew(script):
    return checkpointed(script, use_reentrant=False)


def mixed_precision(script):
    """Autocast, a scaler, clipping of what it has unscaled."""
    model = convnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with script.record(optimizer) as step:
        for _ in range(2):
            for images, target in digits():
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = F.cross_entropy(model(images), target)
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.3)
                scaler.step(optimizer)
                scaler.update()
                step(loss, len(images))
    return model


def compiled(script):
    """The model is compiled, the rest of the loop is not."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 4))
    fast = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with script.record(optimizer) as step:
        for _ in range(2):
            for images, target in digits(n=18):
                optimizer.zero_grad()
                loss = F.cross_entropy(fast(images), target)
                loss.backward()
                optimizer.step()
                step(loss, len(images))
    return model


def optimizer_in_backward(script):
    """Each parameter has an optimizer, which makes its step while backward() still runs."""
    model = convnet()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def make_step(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(make_step)
    with contextlib.ExitStack() as stack:
        steps = [stack.enter_context(script.record(o)) for o in optimizers.values()]
        for _ in range(2):
            for images, target in digits():
                loss = F.cross_entropy(model(images), target)
                loss.backward()
                for step in steps:
                    step(loss, len(images))
    return model


LOOPS = (
    graph_convolution,
    style_transfer,
    meta_learning,
    recommender,
    early_bound,
    loss_by_sample,
    two_heads,
    checkpointed_reentrant,
    checkpointed_anew,
    mixed_precision,
    compiled,
    optimizer_in_backward,
)
