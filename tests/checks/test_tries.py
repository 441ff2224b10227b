import itertools
import random

import numpy as np
import pytest
import torch
import tqdm.notebook

from sgd_analysis import checks
from sgd_analysis._random_state import RandomStates
from tests.checks.loops import DESCENT, written

CHECKS = [getattr(checks, name) for name in checks.__all__]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("given", [None, 3, "sgd", torch.zeros(3)])
def test_what_is_no_function_is_told_so(check, given):
    assert check(given).startswith("not yet: give the function itself, without calling it")


@pytest.mark.parametrize("check", CHECKS)
def test_a_function_of_other_arguments_is_told_which_ones(check):
    expected = "loader" if check is checks.printed_batches else "f, w, t, "
    assert check(lambda: None).startswith(f"not yet: it should take {expected}")


class Odd(Exception):
    pass


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "error", [ValueError("bad"), Odd("odd"), SystemExit("bye"), RecursionError]
)
def test_whatever_is_raised_is_told_with_its_line(check, error):
    def sgd(*_):
        raise error

    answer = check(sgd)
    assert answer.startswith("not yet: ") and "(line " in answer and ": raise error)" in answer


def test_the_reader_can_still_interrupt():
    def sgd(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.gradient_descent(sgd)


@pytest.mark.parametrize("check", [c for c in CHECKS if c is not checks.printed_batches])
@pytest.mark.parametrize("at", [slice(None, 1), slice(None), slice(3, 13)])
def test_a_loop_without_an_end_is_ended(check, at):
    def sgd(f, w, t, *_):
        for _ in itertools.count():
            try:
                f(w, t[at, 0])
            except Exception:
                pass

    assert "it does not end: f has been called" in check(sgd)


@pytest.mark.parametrize("check", CHECKS)
def test_no_global_random_state_is_left_changed(check):
    def draws(*_):
        return torch.rand(1), np.random.rand(), random.random(), torch.manual_seed(3)

    before = RandomStates()
    check(draws)
    assert RandomStates() == before


def test_no_try_prints_and_only_the_last_whole_run_shows_its_bar(capsys):
    epochs = "tqdm(range(1, nepoch + 1), disable=False)"  # also where TQDM_DISABLE is set
    result = "return print('stop') or epoch"
    checks.gradient_descent(written(DESCENT, EPOCHS=epochs, RESULT=result))
    shown = capsys.readouterr()
    assert shown.out == "" and "/10000 [" in shown.err
    checks.gradient_descent(
        written(DESCENT, STEP="print('step')", EPOCHS="tqdm(range(2), disable=False)")
    )
    assert capsys.readouterr() == ("", "")


def test_holes_are_found_without_a_source_where_running_meets_them():
    names = {}
    exec("def sgd(f, w, t, *_):\n    loss = f(w, t[:, 0]) - ...", names)
    assert "there is still a hole" in checks.gradient_descent(names["sgd"])


def test_the_bars_of_a_notebook_are_hidden_too():
    loop = written(DESCENT, STEP="pass")
    loop.__globals__["tqdm"] = tqdm.notebook.tqdm  # which would raise, or draw a widget
    assert "does anything call loss.backward()?" in checks.gradient_descent(loop)


def test_tqdm_is_what_it_was():
    start = tqdm.tqdm.__init__
    checks.gradient_descent(written(DESCENT, STEP="pass"))
    assert tqdm.tqdm.__init__ is start


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda f, w, t, *_: f(w, torch.zeros(0)),
        lambda f, w, t, *_: f(w * torch.nan, t[:, 0]),
        lambda f, w, t, *_: w.data.fill_(torch.nan) + f(w, t[:, 0]).sum(),
        lambda f, w, t, *_: f([1, 2, 3], t[:, 0]),
        lambda f, w, t, *_: f(w, 2.0),
        lambda f, w, t, *_: f(w, t),
        lambda f, w, t, *_: t.zero_(),
        lambda f, w, t, *_: w.data.resize_(7) + f(w, t[:, 0]).sum(),
        lambda f, *_: print(f),
    ],
)
@pytest.mark.parametrize("check", [c for c in CHECKS if c is not checks.printed_batches])
def test_nonsense_is_answered(check, nonsense):
    assert check(nonsense).startswith("not yet: ")
