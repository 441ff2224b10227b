"""What it costs to read a long history, counted in numbers that are looked at, not in time."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History
from sgd_analysis.history import path_gradient
from sgd_analysis.history.vectors import Vectors

N_STEPS = 3  # an epoch


def long_history(n_epochs, seed=0):
    draw = np.random.default_rng(seed)
    n = n_epochs * N_STEPS
    gradients = draw.normal(size=(n, 2)).astype(np.float32)
    return History(
        loss=draw.uniform(size=n),
        n_samples=draw.integers(1, 9, size=n),
        epoch=np.repeat(np.arange(n_epochs), N_STEPS),
        step_size=np.ones((n, 1)),
        n_epochs=n_epochs,
        gradients=Vectors(gradients, np.ones(n)),
        kept_weights=gradients,
    )


def plain(value):
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return np.asarray(value) if isinstance(value, Counted) else value


class Counted(np.ndarray):
    """An array that adds up how many numbers go into and come out of what is done with it."""

    work = 0.0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return self.count(getattr(ufunc, method)(*plain(inputs), **plain(kwargs)), inputs)

    def __array_function__(self, function, types, args, kwargs):
        result = function(*plain(args), **plain(kwargs))
        if function is np.searchsorted:  # looks at as few as a search by halves does
            Counted.work += np.size(args[1]) * math.log2(np.size(args[0]) + 1)
            return result
        return self.count(result, args)

    def count(self, result, inputs):
        Counted.work += np.size(result)
        Counted.work += sum(value.size for value in inputs if isinstance(value, np.ndarray))
        return result.view(Counted) if isinstance(result, np.ndarray) else result


def counted(history):
    for name in (
        "loss",
        "n_samples",
        "denominator",
        "epoch",
        "step_size",
        "skipped",
        "kept_weights",
    ):
        object.__setattr__(history, name, getattr(history, name).view(Counted))
    for name in ("kept", "norm"):
        part = getattr(history.gradients, name)
        object.__setattr__(history.gradients, name, part.view(Counted))
    return history


@pytest.fixture
def work(monkeypatch):
    """Count what a reading looks at, the checks of every history that it makes included."""
    checks = History.__post_init__

    def check(self):
        checks(self)
        Counted.work += self.n_steps

    monkeypatch.setattr(History, "__post_init__", check)
    monkeypatch.setattr(path_gradient, "_BLOCK", 64)  # several blocks, for a short history, too

    def measure(read, n_epochs):
        history = counted(long_history(n_epochs))
        Counted.work = 0.0
        read(history)
        return Counted.work

    return measure


COLUMNS = [
    *("batch_loss", "running_loss", "mean_batch_loss", "gradient_norm", "gradient", "weights"),
    *("path_gradient", "path_gradient_norm"),
]


def epoch_by_epoch(history):
    return [history[epoch].running_loss for epoch in range(history.n_epochs)]


@pytest.mark.parametrize(
    "read",
    [
        *(pytest.param(lambda h, name=name: getattr(h, name), id=name) for name in COLUMNS),
        pytest.param(repr, id="repr"),
        pytest.param(History._repr_html_, id="HTML table"),
        pytest.param(History.to_pandas, id="to_pandas"),
        pytest.param(epoch_by_epoch, id="epoch by epoch"),
        pytest.param(list, id="all epochs"),
    ],
)
def test_twice_as_many_epochs_are_twice_the_work(work, read):
    assert work(read, 1024) < 2.3 * max(work(read, 512), 1)


@pytest.mark.parametrize("epochs", [7, -1, slice(20, 23)])
def test_a_slice_costs_what_it_holds_and_a_search(work, epochs):
    def read(history):
        return history[epochs].path_gradient_norm

    assert work(read, 2048) < work(read, 256) + 100


def test_the_table_reads_the_gradients_of_the_epochs_that_it_shows(work):
    def without_gradients(history):
        object.__setattr__(history, "gradients", None)
        return history._repr_html_()

    def gradients_read(n_epochs):
        return work(History._repr_html_, n_epochs) - work(without_gradients, n_epochs)

    assert gradients_read(1024) < gradients_read(128) + 100


def by_hand(history):
    """Each path gradient in a loop over the steps, in double precision."""
    paths = []
    for epoch in range(history.n_epochs):
        total, weight = np.zeros(history.gradients.kept.shape[1]), 0.0
        for step in np.flatnonzero(history.epoch == history.epoch[0] + epoch):
            if not history.skipped[step]:
                total += history.n_samples[step] * history.gradients.kept[step].astype(float)
                weight += history.n_samples[step]
        paths.append(total / weight)
    return np.array(paths)


@pytest.mark.parametrize("block", [1, 16, 100, 10_000])
def test_the_path_gradients_are_those_of_a_slow_loop_however_they_are_cut(monkeypatch, block):
    monkeypatch.setattr(path_gradient, "_BLOCK", block)
    draw = np.random.default_rng(1)
    epoch = np.repeat(np.arange(40) + 5, draw.integers(1, 12, size=40))
    n = len(epoch)
    skipped = (draw.uniform(size=n) < 0.1) & (np.diff(epoch, prepend=4) == 0)
    gradients = np.where(skipped[:, None], np.nan, draw.normal(size=(n, 3)))
    history = History(
        loss=np.ones(n),
        n_samples=draw.integers(1, 9, size=n),
        epoch=epoch,
        step_size=np.ones((n, 1)),
        n_epochs=39,
        skipped=skipped,
        gradients=Vectors(gradients, np.linalg.norm(gradients, axis=1)),
    )
    expected = by_hand(history)
    assert skipped.any()
    assert_allclose(history.path_gradient, expected, rtol=1e-12, atol=1e-15)
    assert_allclose(history.path_gradient_norm, np.linalg.norm(expected, axis=1), rtol=1e-12)
    part = history[10:30]
    assert_allclose(part.path_gradient_norm, history.path_gradient_norm[10:30], rtol=1e-12)


def test_a_single_precision_history_has_path_gradients_in_single_precision():
    history = long_history(5)
    assert history.path_gradient.dtype == np.float32
    assert_array_equal(history.path_gradient, by_hand(history).astype(np.float32))
