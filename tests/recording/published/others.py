"""Loops over episodes, graphs, pixels and pairs, and ways of making a step."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import backward
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from tests.recording.published.images import convnet, digits


def episode(policy, n=8):
    """Play: what was decided is worth more where the state's first number is positive."""
    chosen, rewards, values = [], [], []
    state = torch.randn(3)
    for _ in range(n):
        scores, *value = policy(state)
        choice = torch.distributions.Categorical(F.softmax(scores, dim=-1))
        action = choice.sample()
        chosen.append(choice.log_prob(action))
        rewards.append(float(action == (state[0] > 0)))
        values += value
        state = torch.randn(3)
    returns, after = [], 0.0
    for reward in reversed(rewards):
        after = reward + 0.99 * after
        returns.insert(0, after)
    returns = torch.tensor(returns)
    return chosen, (returns - returns.mean()) / (returns.std() + 1e-6), values


def reinforce(script):
    """The policy's gradient, summed over an episode: there is neither loader nor criterion."""
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with script.record(optimizer) as step:
        for _ in range(5):
            chosen, returns, _ = episode(lambda state: (model(state),))
            optimizer.zero_grad()
            loss = torch.stack([-log * r for log, r in zip(chosen, returns, strict=True)]).sum()
            loss.backward()
            optimizer.step()
            step(loss, len(chosen))
    return model


def actor_critic(script):
    """The same with a second head that says what the state is worth."""
    body, actor, critic = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 1)
    parameters = [p for part in (body, actor, critic) for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-2)

    def policy(state):
        hidden = F.relu(body(state))
        return actor(hidden), critic(hidden)

    with script.record(optimizer) as step:
        for _ in range(5):
            chosen, returns, values = episode(policy)
            of_policy, of_values = [], []
            for log, value, r in zip(chosen, values, returns, strict=True):
                of_policy.append(-log * (r - value.item()))
                of_values.append(F.smooth_l1_loss(value, r[None]))
            optimizer.zero_grad()
            loss = torch.stack(of_policy).sum() + torch.stack(of_values).sum()
            loss.backward()
            optimizer.step()
            step(loss, len(chosen))
    return body, actor, critic


def q_learning(script):
    """Batches drawn from a memory; a target network that follows; values clipped one by one."""
    policy, target = nn.Linear(3, 2), nn.Linear(3, 2)
    target.load_state_dict(policy.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, amsgrad=True)
    states, actions, rewards = torch.randn(31, 3), torch.randint(2, (30, 1)), torch.rand(30)
    with script.record(optimizer) as step:
        for _ in range(5):
            drawn = torch.randperm(30)[:8]
            q = policy(states[drawn]).gather(1, actions[drawn])
            with torch.no_grad():
                best = target(states[drawn + 1]).max(1).values
            loss = F.smooth_l1_loss(q, (rewards[drawn] + 0.9 * best)[:, None])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_value_(policy.parameters(), 0.1)
            optimizer.step()
            step(loss, len(drawn))
            for slow, fast in zip(target.parameters(), policy.parameters(), strict=True):
                slow.data.lerp_(fast.data, 0.1)
    return policy, target


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


LOOPS = (
    reinforce,
    actor_critic,
    q_learning,
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
)
