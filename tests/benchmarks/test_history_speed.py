"""What reading a long history costs, as ratios to one pass over its gradients by hand."""

import numpy as np
import pytest

from sgd_analysis import History
from sgd_analysis.history.vectors import Vectors

N_STEPS = 10  # an epoch


@pytest.mark.parametrize(
    ("n_epochs", "n_parameters"), [(10_000, 3), (100_000, 3), (10_000, 300), (1000, 10_000)]
)
def test_a_long_history(in_turns, n_epochs, n_parameters):
    n = n_epochs * N_STEPS
    gradients = np.random.default_rng(0).normal(size=(n, n_parameters)).astype(np.float32)
    history = History(
        loss=np.ones(n),
        n_samples=np.full(n, 10),
        epoch=np.repeat(np.arange(n_epochs), N_STEPS),
        step_size=np.ones((n, 1)),
        n_epochs=n_epochs,
        gradients=Vectors(gradients, np.ones(n)),
    )
    by_epoch = gradients.reshape(n_epochs, N_STEPS, n_parameters)
    runs = {
        "by hand": lambda: np.linalg.norm(by_epoch.mean(axis=1, dtype=float), axis=1),
        "path_gradient_norm": lambda: history.path_gradient_norm,
        "path_gradient": lambda: history.path_gradient,
        "running_loss": lambda: history.running_loss,
        "HTML table": history._repr_html_,
        "a thousand epochs, one by one": lambda: [history[e].running_loss for e in range(1000)],
    }
    in_turns(runs, relative_to="by hand", rounds=10)
