"""The table of what several optimizers have seen."""

import numpy as np
import torch

from sgd_analysis import History, record
from sgd_analysis.recording.report import report
from tests.recording.loops import batches, network, train


def history(n=6, optimizer=torch.optim.SGD, **settings):
    model = network()
    made = optimizer(model.parameters(), lr=0.1)
    with record(made, **{"steps_per_epoch": 3, "n_samples": 5} | settings) as recorder:
        train(model, torch.nn.MSELoss(), made, batches(n))
    return recorder.history


def numbers(*values):
    return [f"{value:.4g}" for value in values]


def cells(text):
    return [line.split() for line in text.splitlines()]


def test_the_first_epoch_and_the_last_of_each_with_its_running_loss_and_norms():
    one, two = history(n=9), history(optimizer=torch.optim.Adam, gradients="norms")
    head, *rows = cells(report([one, two]))
    assert " ".join(head) == "optimizer steps at loss step norm path norm"
    expected = []
    for number, (name, seen, last) in enumerate([("SGD", one, 2), ("Adam", two, 1)], start=1):
        table = seen.epochs()
        columns = [table[n] for n in ("running_loss", "mean_gradient_norm", "path_gradient_norm")]
        for e, before in ((0, [str(number), name, str(seen.n_steps)]), (last, [])):
            loss, *norms = numbers(*(column[e] for column in columns))
            expected.append([*before, "epoch", str(e + 1), "running", loss, *norms])
    assert rows == expected


def test_an_epoch_that_is_the_only_one_is_there_once():
    assert len(cells(report([history(n=3)]))) == 2


def test_the_mean_batch_loss_where_the_number_of_samples_is_not_known():
    known = history()
    unknown = np.full(6, np.nan)
    seen = History(
        loss=known.loss,
        n_samples=unknown,
        epoch=known.epoch,
        step_size=known.step_size,
        n_epochs=2,
        gradients=known.gradients,
    )
    loss = numbers(seen.mean_batch_loss[0])
    norm = numbers(seen.epochs()["mean_gradient_norm"][0])
    assert cells(report([seen]))[1] == ["1", "6", "epoch", "1", "mean", "batch", *loss, *norm, "-"]


def test_the_first_step_and_the_last_where_no_epoch_has_ended():
    seen = history(n=2)
    loss, norm = numbers(*seen.loss), numbers(*seen.gradient_norm)
    assert cells(report([seen]))[1:] == [
        ["1", "SGD", "2", "step", "1", "batch", loss[0], norm[0], "-"],
        ["step", "2", "batch", loss[1], norm[1], "-"],
    ]


def test_without_gradients_there_are_no_norms():
    for n in (2, 3):
        assert cells(report([history(n=n, gradients="none")]))[1][-2:] == ["-", "-"]


def test_it_is_as_wide_as_a_terminal_and_as_long_as_a_screen_at_most():
    class AnOptimizerWithAVeryLongName(torch.optim.SGD):
        pass

    long = history(optimizer=AnOptimizerWithAVeryLongName)
    wide = History(
        loss=np.full(2, 1.2345e-100),
        n_samples=np.full(2, np.nan),
        epoch=np.array([999_998, 999_999]),
        step_size=np.ones((2, 1)),
        n_epochs=2,
        gradients=long[0].gradients.part(slice(0, 2), slice(0, 0), is_last=False),
    )
    lines = report([long, wide] * 30).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 22 and lines[-1] == "... and 50 more"
