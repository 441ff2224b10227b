"""What a framework's loop leaves, recorded or not, and its gradients in double precision."""

import torch

from tests.recording.outcomes import state_of

N_SAMPLES, BATCH_SIZE = 20, 6  # four batches an epoch, the last of two samples


def samples():
    """Inputs and labels, the same each time."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(N_SAMPLES, 3, generator=generator), torch.arange(N_SAMPLES) % 2


def network():
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(4, 2)
    )


def norm(parameters):
    """The norm of their gradients, in double precision."""
    gradients = [p.grad.detach().double().flatten() for p in parameters if p.grad is not None]
    return torch.cat(gradients).norm().item()


def norms_of(optimizer):
    """Return a list to which each step from now on adds the norm of its gradient."""
    norms = []
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.register_step_pre_hook(lambda *step: norms.append(norm(parameters)))
    return norms


def left(model, *optimizers):
    """All that a run leaves in the model, the optimizers and the random state."""
    return {
        "model": model.state_dict(),
        "gradients": [state_of(p.grad) for p in model.parameters()],
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random state": torch.get_rng_state(),
    }
