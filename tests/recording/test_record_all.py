"""Every optimizer that makes a step, without being given one."""

import contextlib
import copy
import gc
import logging
import pickle
import threading
import warnings
import weakref

import pytest
import torch
from numpy.testing import assert_array_equal
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from sgd_analysis import record, record_all
from sgd_analysis.recording import everywhere
from tests.recording.loops import batches, network, train

MSE = torch.nn.MSELoss()

# Most of these loops look at steps only.
pytestmark = pytest.mark.filterwarnings("ignore:.*no epoch has ended")


def made(optimizer=torch.optim.SGD, seed=0, **options):
    model = network(seed=seed)
    return model, optimizer(model.parameters(), **{"lr": 0.1} | options)


def trained(model, optimizer, n=3):
    return train(model, MSE, optimizer, batches(n))


def check(recorder, expected):
    losses, gradients = expected
    assert_array_equal(recorder.history.loss, losses)
    assert_array_equal(recorder.history.gradient, gradients)


def stood_in_for():
    """Return what record_all replaces or adds to in torch while it lasts."""
    return (
        vars(Optimizer)["__init__"],
        vars(Optimizer)["__setstate__"],
        torch.autograd._engine_run_backward,
        torch.amp.GradScaler.scale,
        dict(torch_optimizer._global_optimizer_pre_hooks),
        dict(torch_optimizer._global_optimizer_post_hooks),
    )


class TestWhichOptimizers:
    def test_one_made_before_and_one_made_inside_from_their_first_steps_on(self):
        before = made()
        with record_all() as recorders:
            expected = [trained(*made(torch.optim.Adam)), trained(*before)]
        for recorder, expected_of_it in zip(recorders, expected, strict=True):
            check(recorder, expected_of_it)
        names = [recorder.history.metadata["optimizer"] for recorder in recorders]
        assert names == ["Adam", "SGD"], "in the order of their first steps"

    def test_steps_from_before_do_not_count(self):
        model, optimizer = made()
        trained(model, optimizer)
        with record_all() as recorders:
            expected = trained(model, optimizer)
        check(recorders[0], expected)

    def test_the_list_grows_as_optimizers_make_their_first_steps(self):
        with record_all() as recorders:
            model, optimizer = made()
            seen = [len(recorders)]
            for _ in range(2):
                trained(model, optimizer)
                seen.append(len(recorders))
            assert recorders[0].history.n_steps == 6
        assert seen == [0, 1, 1]

    def test_two_losses_and_optimizers_that_take_turns(self):
        (one, sgd), (other, adam) = made(), made(torch.optim.Adam, seed=1)
        losses = {sgd: [], adam: []}
        with record_all() as recorders:
            for inputs, targets in batches(4):
                for optimizer in (sgd, adam):
                    optimizer.zero_grad()
                    loss = MSE(one(inputs) + other(inputs), targets + len(losses[optimizer]))
                    loss.backward()
                    optimizer.step()
                    losses[optimizer].append(loss.item())
        assert_array_equal(recorders[0].history.loss, losses[sgd])
        assert_array_equal(recorders[1].history.loss, losses[adam])

    def test_a_closure(self):
        model, optimizer = made(torch.optim.LBFGS, max_iter=3)
        inputs, targets = batches(1)[0]

        def closure():
            optimizer.zero_grad()
            loss = MSE(model(inputs), targets)
            loss.backward()
            return loss

        with record_all() as recorders:
            losses = [optimizer.step(closure).item() for _ in range(3)]
        assert_array_equal(recorders[0].history.loss, losses)

    def test_one_made_in_a_thread_that_trains_it(self):
        expected = []
        thread = threading.Thread(target=lambda: expected.append(trained(*made())))
        with record_all() as recorders:
            thread.start()
            thread.join()
        check(recorders[0], expected[0])

    @pytest.mark.parametrize(
        "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))]
    )
    def test_a_copy(self, copied):
        with record_all() as recorders:
            both = made()
            expected = [trained(*copied(both)), trained(*both)]
        for recorder, expected_of_it in zip(recorders, expected, strict=True):
            check(recorder, expected_of_it)

    def test_one_that_the_garbage_collector_overlooks_lacks_its_first_loss(self):
        both = made()
        gc.freeze()
        try:
            with pytest.warns(UserWarning, match="1 steps were made without a backward pass"):
                with record_all() as recorders:
                    losses, gradients = trained(*both)
        finally:
            gc.unfreeze()
        assert_array_equal(recorders[0].history.loss, [float("nan"), *losses[1:]])
        assert_array_equal(recorders[0].history.gradient, gradients)

    def test_one_whose_constructor_is_called_again_begins_a_new_recording(self):
        with record_all() as recorders:
            model, optimizer = made()
            expected = [trained(model, optimizer)]
            optimizer.__init__(model.parameters(), lr=0.01)
            expected.append(trained(model, optimizer))
        for recorder, expected_of_it in zip(recorders, expected, strict=True):
            check(recorder, expected_of_it)

    def test_a_loaded_state_changes_nothing(self):
        with record_all() as recorders:
            model, optimizer = made(torch.optim.Adam)
            trained(model, optimizer)
            optimizer.load_state_dict(optimizer.state_dict())
            trained(model, optimizer)
        assert [recorder.history.n_steps for recorder in recorders] == [6]

    def test_a_wrapper_without_hooks_leaves_the_one_it_wraps(self):
        class Wrapper(Optimizer):
            def __init__(self, wrapped):
                self.wrapped, self.param_groups = wrapped, wrapped.param_groups

            def zero_grad(self):
                self.wrapped.zero_grad()

            def step(self):
                self.wrapped.step()

        model, optimizer = made()
        wrapper = Wrapper(optimizer)
        with record_all() as recorders:
            expected = trained(model, wrapper)
        (recorder,) = recorders
        check(recorder, expected)

    def test_one_that_makes_no_step_leaves_no_recorder_and_no_message(self):
        model, optimizer = made()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with record_all(steps_per_epoch=3) as recorders:
                torch.optim.Adam(model.parameters())
                trained(model, optimizer)
        assert len(recorders) == 1

    def test_a_recorder_by_hand_and_another_record_all_see_the_same(self):
        with record_all() as outer, record_all(gradients="norms") as inner:
            model, optimizer = made()
            with record(optimizer) as by_hand:
                expected = trained(model, optimizer)
        for recorder in (by_hand, *outer):
            check(recorder, expected)
        assert_array_equal(inner[0].history.loss, expected[0])

    def test_the_options_are_those_of_record(self):
        with record_all(gradients="none", weights=True, steps_per_epoch=2) as recorders:
            trained(*made(), n=4)
        history = recorders[0].history
        assert (history.n_epochs, history.gradients, history.weights.shape) == (2, None, (4, 21))

    @pytest.mark.parametrize("name", ["history", "loss", "named_parameters"])
    def test_an_option_about_one_optimizer_is_refused(self, name):
        with pytest.raises(TypeError, match=f"no {name}=.*give it to record"):
            record_all(**{name: None})

    def test_what_record_refuses_is_refused_at_once(self):
        with pytest.raises(ValueError, match=r"steps_per_epoch.*got 0"):
            record_all(steps_per_epoch=0)
        with pytest.raises(TypeError, match="step_per_epoch"):
            record_all(step_per_epoch=3)


class TestChangesNothing:
    @pytest.mark.parametrize("gradients", ["auto", "norms", "none"])
    def test_training_is_the_same_to_the_bit(self, gradients):
        def outcome(watching):
            torch.manual_seed(3)
            with watching:
                before, inside = made(torch.optim.Adam), None
                trained(*before)
                inside = made(momentum=0.9)
                trained(*inside)
            state = [p.detach().numpy().tobytes() for p in (*before[0].parameters(),)]
            buffers = [str(optimizer.state_dict()) for _, optimizer in (before, inside)]
            return state, buffers, torch.random.get_rng_state().tolist()

        recorded = outcome(record_all(gradients=gradients))
        assert recorded == outcome(contextlib.nullcontext())

    def test_torch_is_put_back_exactly(self):
        before = stood_in_for()
        model, optimizer = made()
        with record_all():
            trained(model, optimizer)
            assert stood_in_for() != before
        assert stood_in_for() == before
        assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks

    def test_two_that_overlap_in_any_order(self):
        before = stood_in_for()
        first, second = record_all(), record_all()
        first_recorders, second_recorders = first.__enter__(), second.__enter__()
        trained(*made())
        first.__exit__(None, None, None)
        trained(*made())
        second.__exit__(None, None, None)
        assert (len(first_recorders), len(second_recorders)) == (1, 2)
        assert stood_in_for() == before

    def test_who_stands_in_meanwhile_stays(self, monkeypatch):
        monkeypatch.setattr(Optimizer, "__init__", Optimizer.__init__)  # what it ends with
        with record_all():
            ours = Optimizer.__init__
            Optimizer.__init__ = theirs = lambda *args, **kwargs: ours(*args, **kwargs)
        assert Optimizer.__init__ is theirs
        trained(*made())  # through ours, which does nothing any more
        with record_all() as recorders:
            expected = trained(*made())
        check(recorders[0], expected)

    def test_an_error_of_the_loop_is_its_own_and_what_was_recorded_stays(self):
        before = stood_in_for()
        with pytest.raises(ZeroDivisionError) as caught, record_all() as recorders:
            trained(*made())
            raise ZeroDivisionError
        assert recorders[0].history.n_steps == 3
        assert caught.value.__notes__[0].startswith("From record_all(): optimizer 1 (SGD, 4 tens")
        assert stood_in_for() == before

    def test_an_optimizer_that_cannot_be_made_raises_its_own_error(self):
        with record_all(), pytest.raises(ValueError, match="empty parameter list"):
            torch.optim.SGD([], lr=0.1)


class TestKeepsNothingAlive:
    @pytest.mark.parametrize("gradients", ["auto", "norms", "none"])
    def test_an_optimizer_and_its_model_are_gone_as_soon_as_without_it(self, gradients):
        gc.disable()
        try:
            with record_all(gradients=gradients) as recorders:
                model, optimizer = made()
                losses, _ = trained(model, optimizer)
                alive = [weakref.ref(optimizer), *map(weakref.ref, model.parameters())]
                del model, optimizer
                assert not any(one() is not None for one in alive)
                assert_array_equal(recorders[0].history.loss, losses)
                assert repr(recorders[0]) == "Recorder(closed, 3 steps, 0 finished epochs)"
        finally:
            gc.enable()

    def test_one_that_never_made_a_step_is_gone_with_its_recorder(self):
        with record_all() as recorders:
            trained(*made())
            model, optimizer = made()
            alive = [weakref.ref(optimizer), *map(weakref.ref, model.parameters())]
            del model, optimizer
            assert not any(one() is not None for one in alive)
        assert len(recorders) == 1

    def test_after_the_with_its_recorders_hold_no_model(self):
        model, optimizer = made()
        with record_all() as recorders:
            expected = trained(model, optimizer)
        alive = weakref.ref(next(model.parameters()))
        del model, optimizer
        assert alive() is None
        check(recorders[0], expected)

    def test_closing_a_recorder_once_more_does_no_harm(self):
        with record_all() as recorders:
            model, optimizer = made()
            with recorders[0] if recorders else contextlib.nullcontext():
                trained(model, optimizer)
            recorders[0].close()
            trained(model, optimizer)
        with recorders[0] as recorder:
            recorder.close()
        assert recorder.history.n_steps == 3

    def test_one_with_the_id_of_one_that_is_gone_is_another(self, monkeypatch):
        monkeypatch.setattr(everywhere, "id", lambda optimizer: 1, raising=False)
        gc.collect()
        with record_all() as recorders:
            for _ in range(3):
                model, optimizer = made()
                trained(model, optimizer)
                del model, optimizer
        assert [recorder.history.n_steps for recorder in recorders] == [3] * 3

    def test_evaluating_once_it_is_gone_is_refused(self):
        with record_all(steps_per_epoch=3) as recorders:
            model, optimizer = made()
            trained(model, optimizer)
            recorders[0].evaluate(test=0.5)
        with pytest.raises(RuntimeError, match=r"evaluate\(\) comes too late"):
            recorders[0].evaluate(test=0.4)
        assert recorders[0].history.evaluated["test"].tolist() == [0.5]


class TestMessages:
    def test_one_warning_names_the_optimizers_that_each_message_is_about(self):
        with pytest.warns(UserWarning) as caught, record_all(steps_per_epoch=3) as recorders:
            for _ in range(5):
                model, optimizer = made()
                optimizer.step()
                trained(model, optimizer, n=2)
            trained(*made(torch.optim.Adam))
        assert len(recorders) == 6
        (warning,) = caught
        assert warning.filename == __file__
        (message,) = str(warning.message).splitlines()
        sgd = ", ".join(f"{n} (SGD, 4 tensors)" for n in (1, 2, 3))
        assert message.startswith(f"optimizers {sgd} and 2 more: 1 steps were made without")

    def test_what_several_recorders_log_is_logged_once(self, caplog):
        with pytest.warns(UserWarning, match="optimizers 1 .*, 2 .*, 3 .*: 1 steps were made"):
            with record_all(steps_per_epoch=1):
                for _ in range(3):
                    made()[1].step()
        (logged,) = caplog.messages
        assert logged.startswith("1 steps were made without a backward pass")
        assert not logging.getLogger("sgd_analysis").filters

    def test_nothing_is_said_of_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with record_all() as recorders:
                made()
        assert recorders == []

    def test_passes_without_a_step_of_any_optimizer_are_told_of(self):
        with pytest.warns(UserWarning, match="^1 backward passes were seen, but no step"):
            with record_all() as recorders:
                model, optimizer = made()
                MSE(model(torch.ones(2, 3)), torch.ones(2, 1)).backward()
                del optimizer
        assert recorders == []

    def test_an_optimizer_that_cannot_be_recorded_is_named_once(self, monkeypatch):
        tried = []

        def fails(*args, **kwargs):
            tried.append(args)
            raise ValueError("not this one")

        expected = trained(*made())
        with pytest.warns(UserWarning, match=r"^SGD cannot be recorded: ValueError\('not this on"):
            with record_all() as recorders:
                monkeypatch.setattr(everywhere, "record", fails)
                assert trained(*made())[0] == expected[0]
        assert recorders == []
        assert len(tried) == 2, "when it is made, and at its first step"
