import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History


@pytest.fixture
def history():
    """Two finished epochs of three batches, the last one ragged, and one that was begun."""
    return History(
        loss=np.array([8.0, 6.0, 1.0, 4.0, 2.0, 0.5, 3.0]),
        n_samples=np.array([10, 10, 5, 10, 10, 5, 10]),
        epoch=np.array([0, 0, 0, 1, 1, 1, 2]),
        step_size=np.full((7, 1), 0.1),
        n_epochs=2,
    )


def test_the_running_loss_is_weighted_by_batch_sizes_and_the_mean_batch_loss_is_not(history):
    assert_allclose(history.running_loss, [(80 + 60 + 5) / 25, (40 + 20 + 2.5) / 25])
    assert_allclose(history.mean_batch_loss, [5, 6.5 / 3])


def test_an_unfinished_epoch_is_the_last_one_and_is_not_counted(history):
    assert history.n_epochs == 2
    assert_array_equal(history[-1].loss, [3])
    assert history[-1].n_epochs == 0
    assert history[-1].running_loss.shape == (0,)


def test_an_epoch_is_a_history_of_its_own(history):
    epoch = history[1]
    assert_array_equal(epoch.loss, [4, 2, 0.5])
    assert (epoch.n_steps, epoch.n_epochs) == (3, 1)
    assert_allclose(epoch.running_loss, history.running_loss[1:])
    assert_array_equal(epoch[0].loss, epoch[-1].loss)
    assert np.shares_memory(epoch.loss, history.loss)


@pytest.mark.parametrize("epoch", [3, -4])
def test_an_epoch_that_was_not_recorded_is_an_error(history, epoch):
    with pytest.raises(IndexError, match=f"epoch {epoch} was not recorded: the history holds 3"):
        history[epoch]


def test_iterating_visits_each_epoch_once(history):
    assert [epoch.n_steps for epoch in history] == [3, 3, 1]


def test_an_empty_history_has_no_epoch():
    empty = History(np.zeros(0), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 1)), 0)
    assert empty.running_loss.shape == empty.mean_batch_loss.shape == (0,)
    with pytest.raises(IndexError, match="holds 0 epochs"):
        empty[0]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one row a step each, got shapes \[\(2,\), \(3,\), "):
        History(np.zeros(2), np.zeros(3, int), np.zeros(2, int), np.zeros((2, 1)), 1)


@pytest.mark.parametrize("epoch", [[0, 0, 2], [1, 0, 1]])
def test_epochs_that_are_left_out_or_go_backwards_are_refused(epoch):
    with pytest.raises(ValueError, match="epoch must stay or grow by one from step to step"):
        History([1, 2, 3], [1, 1, 1], epoch, np.ones((3, 1)), 2)


@pytest.mark.parametrize("n_epochs", [0, 3])
def test_a_number_of_epochs_that_the_steps_do_not_hold_is_refused(n_epochs):
    with pytest.raises(ValueError, match=f"n_epochs must be 2.*got {n_epochs}"):
        History([1, 2, 3], [1, 1, 1], [0, 0, 1], np.ones((3, 1)), n_epochs)


@pytest.mark.parametrize("position", [1.0, "a", True, slice(0, 2)])
def test_a_position_that_is_not_an_integer_is_refused(history, position):
    with pytest.raises(TypeError, match="selected by its position, an integer, got"):
        history[position]


def test_the_repr_says_how_much_was_recorded(history):
    assert repr(history) == "History(7 steps, 2 finished epochs)"
