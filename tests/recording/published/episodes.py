"""Loops of agents that learn from what they have done."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, SubsetRandomSampler


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


def proximal_policy(script):
    """Rollouts, each gone through twice in mini-batches of indices; a loss of three means."""
    actor, critic = nn.Linear(3, 2), nn.Linear(3, 1)
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=1e-2)
    with script.record(optimizer) as step:
        for _ in range(2):
            states, returns = torch.randn(16, 3), torch.randn(16)
            with torch.no_grad():
                actions = torch.distributions.Categorical(logits=actor(states)).sample()
                before = F.log_softmax(actor(states), dim=1).gather(1, actions[:, None])[:, 0]
                advantages = returns - critic(states)[:, 0]
            for _ in range(2):
                for drawn in BatchSampler(SubsetRandomSampler(range(16)), 6, drop_last=False):
                    policy = torch.distributions.Categorical(logits=actor(states[drawn]))
                    ratio = (policy.log_prob(actions[drawn]) - before[drawn]).exp()
                    gain = (advantages[drawn] - advantages[drawn].mean()) / advantages[drawn].std()
                    clipped = ratio.clamp(0.8, 1.2)
                    of_policy = torch.max(-gain * ratio, -gain * clipped).mean()
                    of_values = (critic(states[drawn])[:, 0] - returns[drawn]).pow(2).mean()
                    loss = of_policy + 0.5 * of_values - 0.01 * policy.entropy().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(actor.parameters(), 0.5)
                    optimizer.step()
                    step(loss, len(drawn))
    return actor, critic


LOOPS = (reinforce, actor_critic, q_learning, proximal_policy)
