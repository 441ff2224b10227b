from functools import partial

import pytest
import torch

from sgd_analysis import checks
from tests.checks.loops import BATCHES, USUAL, written

METHODS = [
    torch.optim.RMSprop,
    torch.optim.Adam,
    torch.optim.SGD,
    partial(torch.optim.SGD, momentum=0.9),
]
STEPS = "optimizer.zero_grad()\nloss.backward()\noptimizer.step()"
MADE = "optimizer = torch.optim.RMSprop([w], lr=eta)"


def said(language="en", **changed):
    loop = written(BATCHES, **({"MADE": MADE, "STEP": STEPS} | changed))
    return checks.optimizer_step(loop, language=language)


@pytest.mark.parametrize(
    "step", [STEPS, "loss.backward()\noptimizer.step()\noptimizer.zero_grad()"]
)
def test_the_gradient_may_be_cleared_before_or_after(step):
    assert said(STEP=step) == "right"


@pytest.mark.parametrize("order", ["{stop}\n{step}", "{step}\n{stop}"])
def test_a_loop_may_compare_within_an_epoch_where_it_does_so_with_its_last_batch_only(order):
    stop = "seen += len(x)\nif seen == len(t) and loss < epsilon:\n    return epoch"
    changed = {"BEGIN": "seen = 0", "STEP": order.format(stop=stop, step=STEPS), "RULE": "False"}
    assert said(**changed) == "right"


@pytest.mark.parametrize("loader", ["(t, 10, True)", "(t, batch_size=10, shuffle=True)"])
def test_a_batch_size_of_ten_that_was_not_given_is_not_right(loader):
    answer = said(LOADER=f"DataLoader{loader}")
    assert answer.endswith(
        "with minibatch=7, your batches have 10, 10, 5 points; give the loader batch_size=minibatch"
    )


@pytest.mark.parametrize("method", METHODS)
def test_any_optimizer_may_be_asked_for(method):
    loop = written(BATCHES, MADE="optimizer = method([w], lr=eta)", STEP=STEPS)
    loop.__globals__["method"] = method
    assert checks.optimizer_step(loop, method) == "right"
    other = torch.optim.Adagrad
    assert "not yet: " in checks.optimizer_step(loop, other)


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("Adam", "'Adam'"),
        (None, "None"),
        (torch.optim.Adam([torch.zeros(3)]), "Adam(…)"),
        (torch.optim.LBFGS, "<class 'torch.optim.lbfgs.LBFGS'>"),
    ],
)
def test_what_is_no_method_is_told_so(method, shown):
    answer = checks.optimizer_step(written(BATCHES, MADE=MADE, STEP=STEPS), method)
    assert "the method should be a class of torch.optim, as torch.optim.Adam" in answer
    assert answer.endswith(f"; this is {shown}")


BACKWARD = "loss.backward()"
WRONG = [
    ({"MADE": "pass"}, "NameError: name 'optimizer' is not defined"),
    ({"MADE": MADE.replace("RMSprop", "Adam")}, "a step of Adam, and RMSprop was asked for"),
    ({"MADE": MADE.replace("RMSprop", "SGD")}, "a step of SGD, and RMSprop was asked for"),
    ({"MADE": MADE.replace("eta", "0.02")}, "of lr=0.02, and 0.003 is given: give the optimizer"),
    ({"MADE": MADE.replace(", lr=eta", "")}, "these are the steps of lr=0.01, and 0.003 is given"),
    ({"MADE": "pass", "BEGIN": MADE}, "with each epoch the optimizer forgets"),
    ({"STEP": f"{MADE}\n{STEPS}"}, "with each batch the optimizer forgets what it has learned"),
    ({"STEP": STEPS.replace("loss.b", "(loss**2).b")}, "RMSprop's step 2 leads from"),
    ({"ADD": "loss = torch.nn.functional.mse_loss(f(w, x), y)"}, "is the loss after the step, and"),
    ({"LOADER": USUAL["LOADER"].replace("(t", "(POINTS")}, "the DataLoader, too, is made inside"),
    ({"STEP": "...", "MADE": "optimizer = ..."}, "a hole, “...” (line 3: optimizer = ...)"),
    ({"STEP": "..."}, "there is still a hole, “...” (line 11: ...)"),
    ({"MADE": MADE.replace("[w]", "w")}, "the optimizer wants a list of what it changes, [w]"),
    ({"MADE": MADE.replace("[w]", "[w.clone()]")}, "[w]; ValueError: can't optimize a non-leaf"),
    ({"MADE": MADE.replace("[w]", "[w.detach().clone()]")}, "the optimizer changes another tensor"),
    (
        {"MADE": f"w = w.detach().clone().requires_grad_()\n{MADE}"},
        "and f is asked at other weights",
    ),
    ({"STEP": STEPS.replace("step()", "step")}, "optimizer.step() is missing, or its ()"),
    ({"STEP": STEPS.replace("backward()", "backward")}, "does anything call loss.backward()?"),
    ({"STEP": STEPS.replace("loss.backward()", "")}, "does anything call loss.backward()?"),
    ({"STEP": "pass"}, "the order is zero_grad(), backward(), step()"),
    ({"STEP": f"{BACKWARD}\noptimizer.step()"}, "the gradients of the steps before"),
    ({"STEP": f"{BACKWARD}\n{STEPS.replace(BACKWARD, '')}"}, "the order is zero_grad()"),
    ({"STEP": f"optimizer.step()\noptimizer.zero_grad()\n{BACKWARD}"}, "the first batch moves"),
    ({"RULE": "loss ** 0.5 < epsilon"}, "the root of the loss, and should be the loss of the last"),
    ({"RULE": "loss > epsilon"}, "it stops after epoch 1, though"),
    ({"BEGIN": "low = False", "ADD": "low |= loss < epsilon", "RULE": "low"}, "is the smallest"),
    ({"BEGIN": "low = True", "ADD": "low &= loss < epsilon", "RULE": "low"}, "is the largest loss"),
    (
        {
            "ADD": "running_loss += loss.item() * len(x)",
            "AFTER": "running_loss /= len(t)",
            "RULE": "running_loss < epsilon",
        },
        "that the epoch has met, and should be the loss of the last batch alone",
    ),
]


@pytest.mark.parametrize(("changed", "expected"), WRONG)
def test_each_usual_mistake_is_told_from_the_others(changed, expected):
    answer = said(**changed)
    assert answer.startswith("not yet: ") and expected in answer


STOP, LEAVE = ("if loss.item() < epsilon:\n    " + way for way in ("return epoch", "break"))


@pytest.mark.parametrize(
    "changed",
    [
        {"ADD": STOP, "RULE": "False"},
        {"STEP": f"{STOP}\n{STEPS}", "RULE": "False"},
        {"ADD": STOP},
        {"STEP": f"{STOP}\n{STEPS}"},
        {"ADD": LEAVE},
        {"STEP": f"{LEAVE}\n{STEPS}"},
        {"ADD": STOP.replace("<", ">"), "RULE": "False"},
        {"ADD": "return epoch"},
    ],
)
def test_a_loop_that_stops_on_any_batch_is_not_right(changed):
    assert said(**changed).startswith("not yet: it stops in the middle of an epoch: the comparison")
