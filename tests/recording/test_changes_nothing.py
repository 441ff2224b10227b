"""Recording changes nothing: a recorded run equals the unrecorded one to the bit.

Every loop below is run from the same seeds without a recorder and with one, in each of its
settings, and all that could tell two runs apart is compared: see `outcome`.
"""

import contextlib

import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import record
from tests.recording.outcomes import (
    SETTINGS,
    assert_same,
    attributes_and_hooks,
    bytes_of_steps,
    described,
    made,
    outcome,
    train,
    unrecorded,
)
from tests.recording.trainings import (
    KEPT_STEPS,
    STEPS_PER_EPOCH,
    accumulated,
    cleared_after_the_forward_pass,
    cleared_after_the_step,
    cleared_to_zeros,
    clipped,
    evaluated,
    evaluated_with_gradients,
    in_mixed_precision,
    plain,
    scaled,
    scaled_and_clipped,
    scheduled,
    with_a_closure,
    with_a_pass_whose_gradients_are_dropped,
    with_a_pass_whose_gradients_are_zeroed,
    with_a_penalty_on_the_gradient,
    with_gradients_that_have_a_graph,
    with_two_losses,
    with_two_passes,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:no epoch has ended"),  # most loops look at steps only
    pytest.mark.usefixtures("one_thread"),
]


SEVERAL_TERMS = {accumulated, with_two_losses, with_two_passes}  # rounded where they are added up


CASES = [
    ("network", "SGD", plain),
    ("network", "SGD", cleared_after_the_forward_pass),
    ("network", "SGD", cleared_after_the_step),
    ("network", "SGD", with_a_closure),
    ("network", "SGD", scaled_and_clipped),
    ("network", "SGD", with_a_penalty_on_the_gradient),
    ("network", "SGD", with_gradients_that_have_a_graph),
    ("network", "SGD foreach", with_a_pass_whose_gradients_are_dropped),
    ("network", "SGD foreach", with_a_pass_whose_gradients_are_zeroed),
    ("network", "SGD in two groups", evaluated),
    ("network", "SGD that unscales", scaled),
    ("network", "Nesterov", cleared_to_zeros),
    ("network", "Nesterov", scheduled),
    ("network", "Adam", accumulated),
    ("network", "Adam", scaled),
    ("network", "Adam", evaluated_with_gradients),
    ("network", "Adam foreach", clipped),
    ("network", "Adam with a tensor as its step size", plain),
    ("network", "Adam with a tensor as its step size", scheduled),
    ("network", "AdamW fused", scaled),
    ("network", "RMSprop", with_two_losses),
    ("network", "Adagrad", with_two_passes),
    ("network", "LBFGS", with_a_closure),
    ("partly used network", "Adam", plain),
    ("partly used network", "Nesterov", scaled),
    ("network in half precision", "Nesterov", plain),
    ("convolutions", "Nesterov", plain),
    ("convolutions", "SGD", accumulated),
    ("convolutions", "SGD", evaluated_with_gradients),
    ("convolutions", "Adam", evaluated),
    ("convolutions", "AdamW fused", in_mixed_precision),
    ("convolutions", "Adagrad", scaled_and_clipped),
    ("sparse embedding", "SGD", plain),
    ("sparse embedding", "SGD", accumulated),
    ("sparse embedding", "SparseAdam", plain),
    ("sparse embedding", "SparseAdam", with_a_closure),
    ("sparse embedding", "Adagrad", cleared_to_zeros),
    ("tied decoder", "Adam", plain),
    ("tied decoder", "SGD in two groups", clipped),
    ("tied decoder", "Nesterov", with_a_closure),
    ("lstm", "RMSprop", clipped),
    ("lstm", "Adam", in_mixed_precision),
    ("lstm", "LBFGS", with_a_closure),
]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of Adagrad, once a process
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", CASES, ids=described)
def test_a_recorded_run_equals_the_unrecorded_one_to_the_bit(case, setting):
    expected, left_behind, losses = unrecorded(case)
    t, settings = made(case), {"steps_per_epoch": STEPS_PER_EPOCH} | SETTINGS[setting]
    runs_full = settings.get("memory") == "little"
    if runs_full:
        settings["memory"] = bytes_of_steps(t, settings)
    recorder = record(t.optimizer, t.criterion, t.other_criterion, **settings)
    if settings["steps_per_epoch"]:
        train(t)
    else:
        train(t, lambda k: repr(recorder.history), recorder.end_epoch)
    with pytest.warns(UserWarning, match="memory") if runs_full else contextlib.nullcontext():
        recorder.close()

    assert_same(outcome(t), expected, "run")
    assert attributes_and_hooks(t) == left_behind

    # What was recorded is what was printed: the recorder was there.
    rtol = 1e-6 if case[2] in SEVERAL_TERMS else 0
    assert_allclose(recorder.history.loss, losses, rtol=rtol, atol=0)
    if runs_full:
        assert len(recorder.history.gradients.kept) == KEPT_STEPS


def test_a_recorder_that_is_closed_early_leaves_the_rest_of_the_run_alone():
    case = ("network", "Adam", plain)
    expected, left_behind, losses = unrecorded(case)
    t = made(case)
    recorder = record(t.optimizer, t.criterion)
    train(t, lambda k: recorder.close() if k == KEPT_STEPS - 1 else None)
    assert_same(outcome(t), expected, "run")
    assert attributes_and_hooks(t) == left_behind
    assert_array_equal(recorder.history.loss, losses[:KEPT_STEPS])


def test_an_interrupted_loop_is_left_without_hooks():
    t = made(("network", "Adam", plain))
    before = attributes_and_hooks(t)
    with pytest.raises(KeyboardInterrupt), record(t.optimizer, t.criterion) as recorder:
        assert attributes_and_hooks(t) != before
        plain(t, 0, t.inputs, t.targets)
        t.loss(t.inputs, t.targets)
        raise KeyboardInterrupt
    t.optimizer.zero_grad()
    t.optimizer.state.clear()
    assert attributes_and_hooks(t) == before
    assert recorder.history.n_steps == 1


def test_hooks_of_the_loops_own_stay_and_are_called():
    t, calls = made(("network", "Adam", plain)), []
    t.criterion.register_forward_hook(lambda *_: calls.append("forward"))
    t.optimizer.register_step_pre_hook(lambda *_: calls.append("before the step"))
    with record(t.optimizer, t.criterion):
        t.optimizer.register_step_post_hook(lambda *_: calls.append("after the step"))
        plain(t, 0, t.inputs, t.targets)
    plain(t, 1, t.inputs, t.targets)
    assert calls == ["forward", "before the step", "after the step"] * 2
