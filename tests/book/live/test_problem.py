"""The live figures compute what the library computes: their JavaScript and it run side by side."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from playwright.sync_api import Page

from sgd_analysis import LeastSquares, batches, quadratic_fit, train, train_ensemble

FITTING = quadratic_fit()
EXACT = LeastSquares(FITTING.features, FITTING.features @ FITTING.true_weights)
ROWS = np.arange(2000).reshape(200, 10)
STEP_SIZE, EPOCHS = 0.0002, 48
SETTINGS = {"step_size": STEP_SIZE, "batch_size": 10, "max_epochs": EPOCHS}
FIXED = {
    "sorted": [ROWS],
    "middle": [np.concatenate([ROWS[99::-1], ROWS[100:]])],
    "back": [ROWS, ROWS[::-1]],
    "strided": [ROWS.reshape(10, 200).T],
}
DRAWN = {"shuffled": "reshuffle", "replacement": "with_replacement"}

RUN = """([order, size, epochs, eta, seed, held, visits]) => {
  const [w, random, step] = [[0, 0, 0], Live.random(seed), Live.optimizers.sgd(eta)];
  return Array.from({ length: epochs }, (_, e) => {
    const indices = Live.orders[order](size, random, e + 1, held);
    const { batchLoss, running } = Live.epoch(w, indices, size, step);
    return [[...batchLoss], running, Live.problem.loss(w), [...w], visits ? [...indices] : []];
  });
}"""


def run(
    script: Page,
    order: str,
    *,
    size: int = 10,
    epochs: int = EPOCHS,
    seed: int = 1,
    held: int = 2,
    visits: bool = False,
) -> list[NDArray[Any]]:
    """The batch losses, running loss, global loss, weights and perhaps indices of each epoch."""
    given = [order, size, epochs, STEP_SIZE, seed, held, visits]
    return [np.array(part) for part in zip(*script.evaluate(RUN, given), strict=True)]


def visiting(epochs: list[np.ndarray]):
    def order(n_samples, batch_size, generator):
        while True:
            yield from (torch.as_tensor(rows.reshape(-1).copy()) for rows in epochs)

    return order


# The problem


def test_the_samples_are_the_librarys(script: Page) -> None:
    x, y = script.evaluate("() => [[...Live.problem.x], [...Live.problem.y]]")
    assert np.array_equal(x, FITTING.inputs.double().numpy())
    assert_allclose(y, EXACT.targets, rtol=1e-12, atol=1e-13)


def test_the_global_loss_is_the_librarys(script: Page) -> None:
    w = np.random.default_rng(0).normal(size=(20, 3)) * np.geomspace(1, 1e6, 20)[:, None]
    losses = script.evaluate("(w) => w.map((at) => Live.problem.loss(at))", w.tolist())
    assert_allclose(losses, EXACT.empirical_risk(w), rtol=1e-10)


def test_eigenvalues_and_eigenvectors_are_the_librarys(script: Page) -> None:
    spectrum: dict[str, Any] = script.evaluate("() => Live.problem.spectrum")
    assert_allclose(spectrum["values"], EXACT.eigenvalues, rtol=1e-10)
    cosines = np.sum(np.array(spectrum["vectors"]) * EXACT.eigenvectors.T, axis=1)
    assert_allclose(np.abs(cosines), 1, rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_eigenvalues_of_any_symmetric_matrix_are_found(script: Page, size: int) -> None:
    root = np.random.default_rng(size).normal(size=(size, size))
    matrix = root + root.T
    found = script.evaluate("(A) => Live.eigen(A)", matrix.tolist())
    vectors = np.array(found["vectors"])
    assert_allclose(found["values"], np.linalg.eigvalsh(matrix), rtol=1e-10)
    assert_allclose(vectors @ vectors.T, np.eye(size), atol=1e-12)
    assert_allclose(vectors @ matrix @ vectors.T, np.diag(found["values"]), atol=1e-12)


@pytest.mark.parametrize("order", ["sorted", "strided", "shuffled"])
def test_the_curvature_of_a_batch_is_its_hessians_largest_eigenvalue(
    script: Page, order: str
) -> None:
    indices, found = script.evaluate(
        """(order) => {
          const indices = Live.orders[order](10, Live.random(3), 1);
          const steepness = (_, b) => Live.problem.steepness(indices, 10 * b, 10 * b + 10);
          return [[...indices], Array.from({ length: 200 }, steepness)];
        }""",
        order,
    )
    hessians = EXACT.batch_hessians(batches(indices, 10))
    assert_allclose(found, np.linalg.eigvalsh(hessians)[:, -1], rtol=1e-10)


# Its loops


def assert_equal_losses(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    """Compare their roots, which are distances, to the tenth digit of the farthest one.

    What swings far out and comes back has lost the digits that it did not have out there.
    """
    one, other = np.sqrt(ours), np.sqrt(theirs)
    assert_allclose(one, other, rtol=1e-10, atol=1e-10 * other.max())


@pytest.mark.parametrize("order", FIXED)
def test_a_run_in_a_fixed_order_is_the_librarys(script: Page, order: str) -> None:
    batch_loss, running, at_end, weights, _ = run(script, order)
    library = train(EXACT, order=visiting(FIXED[order]), gradient="closed form", **SETTINGS)
    assert_equal_losses(batch_loss.reshape(-1), library.history.loss.reshape(-1))
    assert_equal_losses(running, library.history.running_loss)
    assert_equal_losses(at_end, EXACT.empirical_risk(library.checkpoints[1:]))
    assert_allclose(weights, library.checkpoints[1:], rtol=1e-10, atol=1e-10)


def test_a_last_smaller_batch_counts_by_its_size(script: Page) -> None:
    batch_loss, running, _, weights, _ = run(script, "sorted", size=30, epochs=2)
    library = train(
        EXACT,
        order="cyclic",
        gradient="closed form",
        **SETTINGS | {"batch_size": 30, "max_epochs": 2},
    )
    assert batch_loss.shape == (2, 67)
    assert_allclose(running, library.history.running_loss, rtol=1e-10)
    assert_allclose(weights, library.checkpoints[1:], rtol=1e-10)


OPTIMIZERS = {
    "sgd(0.0002)": (torch.optim.SGD, 0.0002),
    "sgd(0.0002, 0.9)": (partial(torch.optim.SGD, momentum=0.9), 0.0002),
    "rmsprop(0.01)": (torch.optim.RMSprop, 0.01),
    "rmsprop(0.01, 0.9)": (partial(torch.optim.RMSprop, alpha=0.9), 0.01),
    "adam(0.01)": (torch.optim.Adam, 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_steps_as_pytorchs(script: Page, name: str) -> None:
    path = script.evaluate(
        f"""() => {{
          const [w, step, path] = [[0, 0, 0], Live.optimizers.{name}, []];
          for (let k = 0; k < 50; k++) {{
            step(w, Live.problem.batch(w, Live.orders.sorted()).gradient);
            path.push([...w]);
          }}
          return path;
        }}"""
    )
    optimizer, step_size = OPTIMIZERS[name]
    library = train(
        EXACT, optimizer=optimizer, step_size=step_size, max_epochs=50, gradient="closed form"
    )
    assert_allclose(path, library.checkpoints[1:], rtol=1e-10)


# Orders


@pytest.mark.parametrize("order", FIXED)
def test_a_fixed_order_visits_the_batches_of_chapter_6(script: Page, order: str) -> None:
    indices = run(script, order, epochs=4, visits=True)[-1]
    expected = (FIXED[order] * 4)[:4]
    assert np.array_equal(indices, np.reshape(expected, (4, 2000)))


@pytest.mark.parametrize("held", [1, 2, 50, 2000])
@pytest.mark.parametrize("order", ["shuffled", "buffer"])
def test_a_random_order_visits_each_sample_once_an_epoch(
    script: Page, order: str, held: int
) -> None:
    indices = run(script, order, epochs=3, held=held, visits=True)[-1]
    assert np.array_equal(np.sort(indices), [range(2000)] * 3)
    assert (indices[0] == indices[1]).all() == (order == "buffer" and held == 1)


@pytest.mark.parametrize("held", [2, 50])
def test_a_buffer_hands_out_only_what_it_has_read_and_each_place_of_it_as_often(
    script: Page, held: int
) -> None:
    indices = run(script, "buffer", epochs=20, held=held, visits=True)[-1]
    ahead = indices - np.arange(2000)
    assert ahead.max() == held - 1
    newest = (ahead == held - 1)[:, : 2001 - held].mean()  # what has just come in goes out at once
    n = 20 * (2001 - held)
    assert abs(newest - 1 / held) < 4 * np.sqrt(1 / held / n)


def test_a_seed_decides_the_numbers_which_are_uniform(script: Page) -> None:
    draws = np.array(
        script.evaluate(
            """() => [1, 1, 2].map((seed) => {
              const random = Live.random(seed);
              return Array.from({ length: 20000 }, random);
            })"""
        )
    )
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).mean() > 0.99
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.stack([np.histogram(row, 50, (0, 1))[0] for row in draws[1:]])
    chi_square = np.sum((counts - 400) ** 2 / 400, axis=1)  # of 49 degrees of freedom
    assert (np.abs(chi_square - 49) < 4 * np.sqrt(2 * 49)).all()
    neighbours = np.corrcoef(draws[2, :-1], draws[2, 1:])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(20000)


@pytest.mark.parametrize("order", DRAWN)
def test_runs_in_a_random_order_are_distributed_as_the_librarys(script: Page, order: str) -> None:
    seeds = range(64)
    ours = np.array([run(script, order, seed=seed)[1:3] for seed in seeds])
    ensemble = train_ensemble(EXACT, seeds, order=DRAWN[order], gradient="closed form", **SETTINGS)
    theirs = np.stack([ensemble.running_loss, ensemble.empirical_risk], axis=1)
    for epoch in (1, 10, EPOCHS):
        one, other = ours[..., epoch - 1], theirs[..., epoch - 1]
        spread = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / 64)
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4 * spread).all(), epoch
        # Kolmogorov and Smirnov: equal distributions are as far apart once in 10,000 times.
        values = np.concatenate([one, other])
        below = [(part <= values[:, None]).mean(axis=1) for part in (one[None], other[None])]
        assert np.abs(below[0] - below[1]).max() < 2.23 * np.sqrt(2 / 64), epoch
