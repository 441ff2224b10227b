import pytest

from sgd_analysis import checks
from tests.checks.loops import DESCENT, SINGLE, STEP, without, written


def said(language="en", **changed):
    return checks.one_sample_at_a_time(written(SINGLE, **changed), language=language)


def test_the_given_order_is_right():
    assert said() == "right: epoch 3"


@pytest.mark.parametrize("drawn", ["torch.randint(len(t), (len(t),))", "torch.randperm(len(t))"])
def test_drawn_samples_are_right_and_their_last_loss_need_not_be_small(drawn):
    assert said(SAMPLES=f"t[{drawn}]").startswith("right")


WHOLE = "torch.mean((t[:, 1] - f(w, t[:, 0])) ** 2)"
STOP, LEAVE = ("if loss.item() < epsilon:\n    " + way for way in ("return epoch", "break"))
INSIDE = "it stops in the middle of an epoch: the comparison with epsilon belongs after the inner"
WRONG = [
    ({"STEP": f"{STEP}\n{STOP}", "RULE": "False"}, INSIDE),
    ({"STEP": f"{STEP}\n{STOP}"}, INSIDE),
    ({"STEP": f"{LEAVE}\n{STEP}"}, INSIDE),
    ({"STEP": STEP + "\n" + STOP.replace("<", ">")}, INSIDE),
    ({"STEP": STEP.replace("w -=", "w = w -")}, "w has become another tensor: change the"),
    ({"STEP": "loss.backward()"}, "is there a step, w -= eta * w.grad?"),
    ({"STEP": "..."}, "there is still a hole, “...” (line"),
    ({"STEP": "pass"}, "does anything call loss.backward()?"),
    ({"STEP": STEP.replace("-=", "+=")}, "w went uphill"),
    ({"STEP": without("w.grad.zero_()")}, "the gradients of the steps before"),
    ({"STEP": "loss.backward()", "AFTER": STEP.partition("\n")[2]}, "w moves once an epoch"),
    ({"STEP": "pass", "AFTER": STEP}, "w moves once an epoch, and should with each sample"),
    ({"RULE": f"{WHOLE} < epsilon"}, "the loss of all samples at the epoch's end, and should be"),
    ({"RULE": "(y - f(w, x)) ** 2 < epsilon"}, "the loss after the step, and should be"),
    ({"OF_ONE": "y - f(w, x)"}, "are not squared; the loss of a sample is its square"),
    ({"OF_ONE": "(y - f(w, x)) ** 2 / 2"}, "times the gradient of the loss: is there a factor ½"),
    ({"OF_ONE": "torch.nn.MSELoss(f(w, x), y)"}, "MSELoss() has to be made first, without data"),
    ({"OF_ONE": "(y - f(w, x)) ** 2 / len(t)"}, "25 times too short: is the loss of the sample"),
    ({"SAMPLES": "(t[i] for i in range(2000))"}, "or len(t): the last batch may be smaller, and t"),
    ({"STEP": STEP.replace("eta", "eta / 10")}, "is 0.1 times as long as it should be: 0.0003 t"),
    ({"RULE": "loss ** 0.5 < epsilon"}, "the root of the loss, and should be the loss of the last"),
    ({"SAMPLES": "t[:-1]"}, "2 epochs should make 50 steps, and make 48"),
]


@pytest.mark.parametrize(("changed", "expected"), WRONG)
def test_each_usual_mistake_is_told_from_the_others(changed, expected):
    answer = said(**changed)
    assert answer.startswith("not yet: ") and expected in answer


def test_gradient_descent_is_not_one_sample_at_a_time():
    answer = checks.one_sample_at_a_time(written(DESCENT))
    assert "f is asked for 25 samples at once" in answer
