import pytest

from sgd_analysis import checks
from tests.checks.loops import SHOWN, written

LINES = """\
for i, batch in enumerate(loader):
    for j, (x, y) in enumerate(batch):
        print(f"batch {i}, sample {j}: x = {x:.2f}, y = {y:.2f}")"""


def said(lines, language="en"):
    return checks.printed_batches(written(SHOWN, LINES=lines), language=language)


@pytest.mark.parametrize(
    "lines",
    [
        LINES,
        LINES.replace("(loader)", "(loader, 1)").replace("(batch)", "(batch, 1)"),
        LINES.replace(":.2f", "").replace("x = {x}", "x = {x.item()}").replace("{j}:", "{j}: "),
    ],
)
def test_a_line_a_sample_is_right_counted_from_zero_or_one(lines):
    assert said(lines) == "right: 25 lines, one for each of the 25 points of the small example"


COUNTED = """\
for i, batch in enumerate(loader):
    for j in range(10):
        print(i, j, batch[j, 0].item(), batch[j, 1].item())"""
WRONG = [
    ("...", "there is still a hole, “...” (line 3: ...)"),
    ("pass", "it prints nothing"),
    ("print(next(iter(loader)).shape)", "this one has 2: torch.Size([10, 2])"),
    ("for i, batch in enumerate(loader):\n    print(i, batch)", "this one has 3: 0 tensor("),
    (LINES + "\n    break", "it prints 10 lines for 25 samples"),
    (COUNTED, "count up to len(batch) or len(t): the last batch may be smaller"),
    (LINES.replace("(x, y)", "(y, x)"), "x and y have changed places"),
    (LINES.replace("i, batch in", "j, batch in").replace("j, (x", "i, (x"), "batch and sample"),
    (LINES.replace("{x:", "{2 * x:"), "are not those of the batches"),
    (LINES.replace("sample {j}", "sample {10 * i + j}"), "counted anew in each batch"),
    (LINES.replace("batch {i}", "batch {2 * i}"), "one after the other, and the samples"),
    (LINES.replace("{x:", "{1 / 0:"), "ZeroDivisionError: division by zero"),
]


@pytest.mark.parametrize(("lines", "expected"), WRONG)
def test_each_usual_mistake_is_told_from_the_others(lines, expected):
    answer = said(lines)
    assert answer.startswith("not yet: ") and expected in answer
