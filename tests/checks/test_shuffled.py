import pytest

from sgd_analysis import checks
from tests.checks.loops import BATCHES, STEP, USUAL, without, written

SUM = {
    "ADD": "running_loss += loss.item() * len(batch)",
    "AFTER": "running_loss /= len(t)",
    "RULE": "running_loss < epsilon",
}
UNWEIGHTED = "running_loss += loss.item()"


def said(language="en", **changed):
    return checks.mini_batches(written(BATCHES, **(SUM | changed)), language=language)


@pytest.mark.parametrize("right", [{}, {"BEGIN": "f(w, t[:, 0])"}])
def test_mini_batches_are_right_also_where_the_loop_looks_at_all_points(right):
    assert said(**right) == "right: epoch 48, with the weights 0.3, −1.7, 2.0"


OTHER_SIZE = USUAL["LOADER"].replace("minibatch", "5")
FIXED = USUAL["LOADER"].replace("minibatch", "10")
GIVEN_ORDER = USUAL["LOADER"].replace("True", "False")
CUT = USUAL["LOADER"].replace("True", "True, drop_last=True")
TWICE = "list(DataLoader(t[:15].repeat(2, 1)[:25], batch_size=10, shuffle=True))"
STEP_AFTER = {"STEP": "loss.backward()", "AFTER": "running_loss /= len(t)\n" + STEP[16:]}
PADDED = SUM["ADD"].replace("len(batch)", "minibatch")
AGAIN = "running_loss += torch.mean((y - f(w, x)) ** 2).item() * len(batch)"
AT_END = "torch.mean((t[:, 1] - f(w, t[:, 0])) ** 2)"
INSIDE = "it stops in the middle of an epoch: the comparison with epsilon belongs after the inner"
WRONG = [
    ({"STEP": "..."}, "there is still a hole, “...” (line"),
    ({"MADE": "w = w.detach().clone().requires_grad_()"}, "change that w itself, and no copy"),
    ({"STEP": STEP.replace("w -=", "w = w -")}, "w has become another tensor: change the one"),
    ({"STEP": "pass"}, "does anything call loss.backward()?"),
    ({"ADD": SUM["ADD"] + "\nif running_loss / len(t) < epsilon:\n    return epoch"}, INSIDE),
    *(
        (
            {"ADD": f"{added}\nrunning_loss /= {by}", "AFTER": "pass"},
            "is a sum that is divided in the inner loop, with each batch (divide it once",
        )
        for added in (SUM["ADD"], UNWEIGHTED)
        for by in ("len(t)", "len(loader)", "minibatch")
    ),
    ({"STEP": without("w.grad.zero_()")}, "the gradients of the steps before"),
    ({"STEP": STEP.replace("loss", "(len(x) * loss)")}, "10 times too long"),
    (STEP_AFTER, "w moves once an epoch, and should with each batch"),
    ({"ADD": UNWEIGHTED}, "is the sum of the batches' means divided by the number of samples"),
    ({"ADD": UNWEIGHTED, "AFTER": "running_loss /= len(loader)"}, "is the mean of the batches'"),
    ({"ADD": UNWEIGHTED, "AFTER": "pass"}, "is the sum of the batches' means (weigh"),
    ({"ADD": "pass"}, "is 0 (what does each batch add to it?), and should be the mean over all"),
    ({"AFTER": "running_loss /= minibatch"}, "is a sum over all samples divided by minibatch"),
    ({"AFTER": "running_loss /= 2000"}, "is a sum over all samples divided by 2000"),
    ({"AFTER": "running_loss /= len(loader) * minibatch"}, "divided by len(loader) * minibatch"),
    ({"ADD": PADDED}, "times minibatch, divided by the num"),
    ({"ADD": PADDED, "AFTER": "running_loss /= len(loader)"}, "divided by the number of batches"),
    ({"ADD": UNWEIGHTED, "AFTER": "running_loss /= minibatch"}, "means divided by minibatch"),
    ({"ADD": AGAIN}, "is the mean over all samples of the losses after the steps"),
    (
        {"STEP": STEP.replace("loss", "(loss / len(t))")},
        "divided once more, by 25?",
    ),
    (
        {"STEP": STEP.replace("loss", "(loss / len(x))")},
        "divided once more, by 10?",
    ),
    ({"STEP": STEP.replace("loss", "(len(x) * loss / len(t))")}, "is divided by len(t); divide it"),
    ({"STEP": STEP.replace("loss", "(len(x) * loss / minibatch)")}, "batch of 5 points is divided"),
    ({"ADD": SUM["ADD"].replace("+", "")}, "is what the last batch alone adds"),
    ({"AFTER": "pass"}, "is a sum over all samples (divide"),
    ({"AFTER": "running_loss /= len(loader)"}, "divided by the number of batches (divide it"),
    ({"RULE": "loss < epsilon"}, "is the loss of the last batch alone"),
    ({"RULE": f"{AT_END} < epsilon"}, "is the loss of all samples at the epoch's end"),
    ({"RULE": "running_loss > epsilon"}, "it stops after epoch 1, though"),
    ({"LOADER": GIVEN_ORDER}, "shuffle=True is missing"),
    ({"BEGIN": "torch.manual_seed(0)"}, "each epoch has the same order"),
    ({"LOADER": OTHER_SIZE}, "yours have 5, 5, 5, 5, 5"),
    ({"LOADER": "DataLoader(t, shuffle=True)"}, "one point each; give the loader batch_size=mini"),
    ({"LOADER": "DataLoader(t)"}, "your batches hold one point each"),
    ({"LOADER": USUAL["LOADER"].replace("minibatch", "2")}, "yours have 2, 2, 2, 2, 2, 2, …"),
    ({"LOADER": USUAL["LOADER"].replace("(t", "(POINTS")}, "the DataLoader, too, is made inside"),
    ({"LOADER": "DataLoader(POINTS)"}, "f is asked for points that are not in t"),
    ({"LOADER": FIXED}, "your batches have 10, 10, 5 points; give the loader batch_size=minibatch"),
    ({"LOADER": CUT}, "yours have 10, 10"),
    ({"LOADER": TWICE}, "an epoch should see each of the 25 points once"),
]


@pytest.mark.parametrize(("changed", "expected"), WRONG)
def test_each_usual_mistake_is_told_from_the_others(changed, expected):
    answer = said(**changed)
    assert answer.startswith("not yet: ") and expected in answer
