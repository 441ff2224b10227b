import pytest

from sgd_analysis import checks
from tests.checks.loops import BATCHES, STEP, USUAL, without, written

SUM = {
    "ADD": "running_loss += loss.item() * len(batch)",
    "AFTER": "running_loss /= len(t)",
    "RULE": "running_loss < epsilon",
}
UNWEIGHTED = "running_loss += loss.item()"


def said(**changed):
    return checks.mini_batches(written(BATCHES, **(SUM | changed)))


@pytest.mark.parametrize("right", [{}, {"BEGIN": "f(w, t[:, 0])"}])
def test_mini_batches_are_right_also_where_the_loop_looks_at_all_points(right):
    assert said(**right) == "right: epoch 48, with the weights 0.3, −1.7, 2.0"


OTHER_SIZE = USUAL["LOADER"].replace("minibatch", "5")
GIVEN_ORDER = USUAL["LOADER"].replace("True", "False")
CUT = USUAL["LOADER"].replace("True", "True, drop_last=True")
TWICE = "list(DataLoader(t[:15].repeat(2, 1)[:25], batch_size=10, shuffle=True))"
STEP_AFTER = {"STEP": "loss.backward()", "AFTER": "running_loss /= len(t)\n" + STEP[16:]}
AT_END = "torch.mean((t[:, 1] - f(w, t[:, 0])) ** 2)"
WRONG = [
    ({"STEP": "..."}, "there is still a hole, “...” (line"),
    ({"STEP": "pass"}, "does anything call loss.backward()?"),
    ({"STEP": without("w.grad.zero_()")}, "the gradients of the steps before"),
    ({"STEP": STEP.replace("loss", "(len(x) * loss)")}, "10 times too long"),
    (STEP_AFTER, "w moves once an epoch, and should with each batch"),
    ({"ADD": UNWEIGHTED}, "is the sum of the batches' means divided by the number of samples"),
    ({"ADD": UNWEIGHTED, "AFTER": "running_loss /= len(loader)"}, "is the mean of the batches'"),
    ({"ADD": UNWEIGHTED, "AFTER": "pass"}, "is the sum of the batches' means (weigh"),
    ({"ADD": SUM["ADD"].replace("+", "")}, "is what the last batch alone adds"),
    ({"AFTER": "pass"}, "is a sum over all samples (divide"),
    ({"AFTER": "running_loss /= len(loader)"}, "divided by the number of batches (divide it"),
    ({"RULE": "loss < epsilon"}, "is the loss of the last batch alone"),
    ({"RULE": f"{AT_END} < epsilon"}, "is the loss of all samples at the epoch's end"),
    ({"RULE": "running_loss > epsilon"}, "it stops after epoch 1, though"),
    ({"LOADER": GIVEN_ORDER}, "shuffle=True is missing"),
    ({"BEGIN": "torch.manual_seed(0)"}, "each epoch has the same order"),
    ({"LOADER": OTHER_SIZE}, "yours have 5, 5, 5, 5, 5"),
    ({"LOADER": CUT}, "yours have 10, 10"),
    ({"LOADER": TWICE}, "an epoch should see each of the 25 points once"),
]


@pytest.mark.parametrize(("changed", "expected"), WRONG)
def test_each_usual_mistake_is_told_from_the_others(changed, expected):
    answer = said(**changed)
    assert answer.startswith("not yet: ") and expected in answer
