import textwrap

import pytest

from sgd_analysis import checks
from tests.checks.loops import DESCENT, STEP, without, written

NEW = "loss.backward()\nw = w - eta * w.grad"
MADE_A_LEAF = "loss.backward()\nw = (w - eta * w.grad).detach().requires_grad_()"
NEW_BY_HAND = without("w.grad.zero_()").replace("w -=", "w = w -")
MEAN = "((y - f(w, x)) ** 2).mean()"
KEPT = "keep the loss a tensor until backward(): .item(), float() and NumPy leave autograd"
BEFORE = "if w.grad is not None:\n    w.data -= eta * w.grad\n    w.grad = None\nloss.backward()"
ANOTHER = "change the one that is given, as w -= … does; w = w - … makes another"

SAMPLES = "for x, y in t:\n    loss = (y - f(w, x)) ** 2\n" + textwrap.indent(STEP, "    ")
IN_A_LOOP = SAMPLES.replace("x, y in", "_ in").replace(" ** 2\n", " ** 2\n    loss = loss.mean()\n")
ONE_BY_ONE = """for k in range(3):
    w.data[k] -= eta * (2 * (f(w, x) - y) * x ** (2 - k)).mean().item()"""
AGAIN = """gradient = [(2 * (f(w, x) - y) * x ** (2 - k)).mean().item() for k in range(3)]
w.data -= eta * torch.tensor(gradient)"""
RETURNED = STEP.replace("loss.b", "grad = loss.b").replace("w.grad\n", "grad\n")


def said(language="en", **changed):
    return checks.gradient_descent(written(DESCENT, **changed), language=language)


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"STEP": STEP.replace("loss.backward()", "w.grad = None\nloss.backward()")},
        {"STEP": "loss.backward()\nw.data.sub_(eta * w.grad)\nw.grad.data.zero_()"},
        {"LOSS": "torch.mean((y - f(w, x)[..., :]) ** 2)"},  # dots that are no hole
        {"LOSS": "torch.mean(torch.pow(f(w, x) - y, 2)) + 0 * f(w, x).sum()"},  # asks twice
        {"STEP": AGAIN},
    ],
)
def test_gradient_descent_is_right_however_it_is_written(right):
    assert said(**right) in [
        f"right: epoch {epoch}, with the weights 0.3, −1.7, 2.0" for epoch in range(9335, 9346)
    ]


WRONG = [
    ({"LOSS": "..."}, "there is still a hole, “...” (line 5: loss = ...)"),
    ({"LOSS": "...", "STEP": "...", "RULE": "..."}, "“...” (line 5: loss = ...)"),
    ({"STEP": "...", "RULE": "..."}, "“...” (line 6: ...)"),
    ({"LOSS": "torch.sum((y - f(w, x)) ** 2)"}, "that is the sum of the squares; take their mean"),
    (
        {"LOSS": "torch.mean((y - f(w, x)) ** 2) / 2"},
        "half as long as eta times the gradient of the loss: is there",
    ),
    ({"LOSS": "torch.mean((y - f(w, x)) ** 2) * 2"}, "is there a factor 2 too many?"),
    ({"LOSS": "torch.mean((y - f(w, x)) ** 2) * 3"}, "is 3 times as long as it should be: 0.009 t"),
    ({"LOSS": "1 / 2000 * torch.sum((y - f(w, x)) ** 2)"}, "divided by 2000, the number of all"),
    ({"LOSS": f"{MEAN} / len(t)"}, "25 times too short: is the mean of the squares divided once"),
    ({"LOSS": f"{MEAN} / 2000"}, "2000 times too short: is the mean of the squares divided once"),
    ({"LOSS": "(f(w, x) - y).mean() ** 2"}, "that is the square of the mean of the differences"),
    ({"LOSS": f"{MEAN}.item()"}, f"{KEPT}; AttributeError: 'float' object has no"),
    ({"LOSS": f"float({MEAN})"}, KEPT),
    (
        {"LOSS": f"({MEAN.replace('**', '.detach().numpy() **')})"},
        f"{KEPT}; AttributeError: 'numpy",
    ),
    ({"LOSS": MEAN.replace("(w, x))", "(w, x)).numpy()")}, f"{KEPT}; RuntimeError: Can't"),
    ({"LOSS": "numpy.mean((y - f(w, x)) ** 2)"}, f"{KEPT}; TypeError: mean() got"),
    (
        {"LOSS": MEAN.replace("**", "^")},
        "a power is written **, as in (y - f(w, x)) ** 2; ^ is some",
    ),
    ({"STEP": BEFORE}, "the first step moves nothing: is the step made before backward()"),
    (
        {"STEP": STEP.replace("eta", "0.00001")},
        "should be: 1·10⁻⁵ times the gradient, where eta is",
    ),
    ({"STEP": AGAIN.replace("2 *", "1 *")}, "or is a 2 of the derivative missing?"),
    ({"LOSS": "(y - f(w, x)) ** 2"}, "one number a point: take their mean; RuntimeError: grad can"),
    (
        {"LOSS": "((y - f(w, x)) ** 2).mean"},
        "put its () behind it, as in .mean() or .item(); Attri",
    ),
    ({"RULE": "loss.item < epsilon"}, "a function is not called: put its () behind it"),
    ({"LOSS": "torch.nn.MSELoss(f(w, x), y)"}, "MSELoss() has to be made first, without data"),
    ({"LOSS": "torch.nn.MSELoss"}, "MSELoss() has to be made first"),
    ({"LOSS": "torch.mean((y - f(x, w)) ** 2)"}, "it is f(w, x), the weights first"),
    ({"STEP": RETURNED}, "backward() returns nothing, the gradient is in w.grad (line 8"),
    ({"STEP": STEP.replace("w.grad\n", "loss.grad\n")}, "is None: backward() returns nothing"),
    ({"STEP": f"w.grad.zero_()\n{without('w.grad.zero_()')}"}, "with w.grad = None (line 6: w.g"),
    ({"LOSS": "torch.mean(abs(y - f(w, x)))"}, "the differences y - f(w, x) are not squared"),
    ({"LOSS": "torch.mean(y - f(w, x))"}, "the differences y - f(w, x) are not squared"),
    ({"LOSS": "torch.linalg.norm(y - f(w, x))"}, "the differences y - f(w, x) are not squared"),
    ({"LOSS": "torch.mean((y - f(w, x)) ** 2) ** 0.5"}, "are not squared"),
    ({"LOSS": "torch.mean((y - f(w, x)) ** 4)"}, "step 1 leads from (0, 0, 0) to (0.08"),
    ({"LOSS": "torch.mean((y - x) ** 2)"}, "is the loss made of f(w, x)"),
    ({"LOSS": "0 * w.sum()"}, "f is never asked"),
    ({"LOSS": "torch.mean((x - f(w, y)) ** 2)"}, "f is asked for inputs that are not in t"),
    ({"LOSS": "torch.mean((y[:9] - f(w, x[:9])) ** 2)"}, "9 of the 25 points"),
    ({"LOSS": "None", "STEP": SAMPLES}, "f is asked for 1 of the 25 points"),
    ({"LOSS": "0", "STEP": IN_A_LOOP}, "an epoch makes 25 steps, and should make 1: is the"),
    ({"STEP": ONE_BY_ONE}, "the weights are changed one after the other"),
    ({"LOSS": "torch.mean((y - f(w, POINTS[: len(y), 0])) ** 2)"}, "points that are not in t"),
    ({"STEP": STEP.replace("-=", "+=")}, "w went uphill"),
    ({"STEP": without("w.grad.zero_()")}, "the gradients of the steps before are still"),
    ({"STEP": STEP.replace("eta * ", "")}, "multiply it by eta"),
    (
        {"STEP": STEP.replace("eta", "0.0002")},
        "0.0002 times the gradient, where eta is 0.003; is it the eta",
    ),
    ({"STEP": without("loss.backward()")}, "w.grad is None: loss.backward() comes before it (line"),
    ({"STEP": "pass"}, "does anything call loss.backward()?"),
    ({"STEP": "loss.backward()"}, "though there is a gradient in w.grad: is there a step, w -="),
    ({"STEP": MADE_A_LEAF}, "change w itself, as w -= … does; w = w - … makes"),
    ({"STEP": "loss.backward()\nw.grad.zero_()"}, "w is what it was: is there a step"),
    ({"STEP": "loss.backward()\nw -= eta * w.grad"}, "put it under torch.no_grad()"),
    ({"STEP": NEW}, ANOTHER),
    ({"STEP": f"{NEW}\nw.grad.zero_()"}, ANOTHER),
    ({"STEP": NEW_BY_HAND}, ANOTHER),
    ({"STEP": STEP.replace("w -=", "w = w -")}, f"{ANOTHER} (line 9: w.grad.zero_())"),
    ({"RULE": "loss > epsilon"}, "it stops after epoch 1, though"),
    ({"RULE": "..."}, "there is still a hole, “...” (line 10: if ...:)"),
    ({"RULE": "epsilon == 3"}, "it goes on though its loss is far below epsilon: which side"),
    ({"RULE": "loss < 0.1"}, "which it never looks at: compare the loss with the epsilon that is"),
    ({"RULE": "epoch == nepoch"}, "it returns 2 though no loss was below epsilon"),
    ({"RULE": "torch.mean((y - f(w, x)) ** 2) < epsilon"}, "the loss after the step"),
    ({"RULE": "loss ** 0.5 < epsilon"}, "the root of the loss, and should be the loss before"),
    ({"RULE": "loss * len(t) < epsilon"}, "before the step, the mean of the squares"),
    (
        {"RULE": "loss / 7 < epsilon"},
        "the mean of the squares: 23.05 in the first epoch of a small",
    ),
    ({"RESULT": "break"}, "returns None: return the epoch"),
    ({"RESULT": "return epoch - 1"}, "count the epochs from 1"),
    ({"RESULT": "return loss"}, "and returns tensor(23.05"),
    ({"EPOCHS": "range(nepoch)"}, "count the epochs from 1"),
    ({"EPOCHS": "range(1, nepoch)"}, "2 epochs should make 2 steps, and make 1"),
    ({"EPOCHS": "range(nepoch + 1)"}, "2 epochs should make 2 steps, and make 3"),
]


@pytest.mark.parametrize(("changed", "expected"), WRONG)
def test_each_usual_mistake_is_told_from_the_others(changed, expected):
    answer = said(**changed)
    assert answer.startswith("not yet: ") and expected in answer


def test_a_loop_that_is_right_but_for_all_points_is_told_where_it_ends():
    answer = said(EPOCHS="range(1, min(nepoch, 50) + 1)")
    assert answer.endswith("with all 2000 points it returns None, not 9340")


def test_a_loop_that_only_calls_backward_is_not_told_of_a_tensor_that_it_never_made():
    assert "another tensor" not in said(STEP="loss.backward()")
    assert "same tensor" not in said(STEP=without("loss.backward()"))


def test_an_epsilon_of_another_name_is_not_taken_for_one_that_is_never_looked_at():
    def sgd(f, w, t, eta, eps, nepoch):
        for epoch in range(nepoch):
            loss = ((t[:, 1] - f(w, t[:, 0])) ** 2).mean()
            w.grad = None
            loss.backward()
            w.data -= eta * w.grad
            if loss < -abs(eps):
                return epoch

    assert checks.gradient_descent(sgd).endswith("which side should stop it?")


def test_the_ready_made_loss_has_to_be_asked():
    by_hand, ready = written(DESCENT), written(DESCENT, LOSS="torch.nn.MSELoss()(f(w, x), y)")
    assert checks.ready_made_loss(by_hand).endswith("but MSELoss was not asked for them")
    assert checks.ready_made_loss(ready).startswith("right: epoch 93")
