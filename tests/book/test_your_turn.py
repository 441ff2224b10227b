"""Whoever fills a hole of a chapter wrongly is told what is wrong with it."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.book.contents import ROOT
from tests.book.markup import Page

STEP = """
    loss.backward()
    with torch.no_grad():
        w -= eta * w.grad
        w.grad.zero_()
"""
# By page, what fills each of its holes rightly, in their order.
RIGHT = {
    "which-number": ["model.eval()", "model.train()"],
    "fitting-problem": ["return torch.mean(errors**2)"],
    "gradient-descent": [
        "loss = torch.mean((y - f(w, x)) ** 2)",
        STEP,
        "if loss.item() < epsilon:",
    ],
    "gradient-norm": [
        "share = len(points) / len(samples)",
        "mean_norm += share * w.grad.norm(); mean_gradient += share * w.grad",
    ],
    "single-samples": [STEP],
    "torch-optim": [
        "optimizer = torch.optim.RMSprop([w], lr=lr)",
        "optimizer.zero_grad(); loss.backward(); optimizer.step()",
    ],
    "without-shuffling": [
        "loader = DataLoader(t, batch_size=minibatch, shuffle=False)",
        "at_end.append(mse_loss(f(w, t[:, 0]), t[:, 1]).item())",
    ],
    "sum-of-losses": [
        "running_loss += loss.item() * len(x)",
        "end_loss = torch.nn.functional.mse_loss(f(w, t[:, 0]), t[:, 1]).item()",
    ],
    "mini-batches": [STEP + "    running_loss += loss.item() * len(x)", "running_loss /= len(t)"],
}
FIRST, SECOND, THIRD = range(3)
HOLE = re.compile(r"^ *(?:\w+ = |if )?\.\.\.", re.M)
# (page, which hole, what is put there instead, what is said)
WRONG = [
    ("which-number", FIRST, "pass", "the loss in training mode"),
    ("which-number", SECOND, "pass", "stays in evaluation mode"),
    ("which-number", SECOND, "model.train(); model(inputs)", "averages or weights are no longer"),
    ("which-number", FIRST, "model.eval(); inputs = inputs / 2", "in evaluation mode is 2.3"),
    ("which-number", FIRST, "model = model.evaluate()", "not yet: AttributeError"),
    ("fitting-problem", FIRST, "pass", "it returns None"),
    ("fitting-problem", FIRST, "return errors**2", "it returns 2000 numbers"),
    ("fitting-problem", FIRST, "return torch.sum(errors**2)", "sum of the squares"),
    ("fitting-problem", FIRST, "return torch.mean(errors**2) / 2", "half the mean"),
    ("fitting-problem", FIRST, "return torch.mean(errors**2) ** 0.5", "the root of the mean"),
    ("fitting-problem", FIRST, "return torch.mean(errors)", "errors of both signs cancel"),
    ("fitting-problem", FIRST, "return torch.mean(errors.abs())", "square them instead"),
    ("fitting-problem", FIRST, "return torch.mean(errors**4)", "the mean of the squares is 333.1"),
    ("fitting-problem", FIRST, "return mean(errors**2)", "not yet: NameError"),
    ("gradient-descent", FIRST, "loss = torch.sum((y - f(w, x)) ** 2)", "sum of the squares; take"),
    ("gradient-descent", SECOND, STEP.replace("-=", "+="), "w went uphill"),
    ("gradient-descent", SECOND, STEP.replace("w.grad.zero_()", "pass"), "still in w.grad"),
    ("gradient-descent", SECOND, STEP.replace("loss.backward()", ""), "w.grad is None"),
    ("gradient-descent", SECOND, "pass", "w is what it was"),
    ("gradient-descent", THIRD, "if loss.item() > epsilon:", "it stops after epoch 1"),
    ("gradient-descent", THIRD, "if False:", "it goes on though"),
    ("gradient-norm", FIRST, "share = batch_size / len(samples)", "has 5 points of 25"),
    ("gradient-norm", FIRST, "share = 1 / 3", "what share of 25 points"),
    ("gradient-norm", FIRST, "share = 1", "is the sum of the norms"),
    ("gradient-norm", SECOND, "pass", "both are still zero"),
    (
        "gradient-norm",
        SECOND,
        "mean_norm += share * w.grad.norm(); mean_gradient += share * w.grad.norm()",
        "norms are added to mean_gradient",
    ),
    (
        "gradient-norm",
        SECOND,
        "mean_gradient += share * w.grad; mean_norm = mean_gradient.norm()",
        "take each batch's norm",
    ),
    ("single-samples", FIRST, STEP.replace("-=", "+="), "w went uphill"),
    ("single-samples", FIRST, STEP.replace("w.grad.zero_()", "pass"), "are still in w.grad"),
    ("torch-optim", FIRST, "optimizer = torch.optim.Adam([w], lr=lr)", "a step of Adam"),
    ("torch-optim", SECOND, "loss.backward(); optimizer.step()", "are still in w.grad"),
    ("torch-optim", SECOND, "pass", "w is what it was"),
    ("torch-optim", FIRST, "pass", "not yet: NameError"),
    (
        "without-shuffling",
        FIRST,
        "loader = DataLoader(t, batch_size=minibatch, shuffle=True)",
        "in the samples' given order",
    ),
    ("without-shuffling", SECOND, "at_end.append(printed[-1])", "the running loss again"),
    ("without-shuffling", SECOND, "at_end.append(loss.item())", "are all samples in it"),
    (
        "without-shuffling",
        SECOND,
        "at_end.append(((f(w, t[:, 0]) - t[:, 1]) ** 2).sum().item())",
        "a sum over the samples",
    ),
    ("without-shuffling", SECOND, "pass", "holds 0 losses"),
    ("sum-of-losses", FIRST, "running_loss += loss.item()", "what does a batch of five"),
    ("sum-of-losses", SECOND, "end_loss = ...", "still three dots"),
    ("sum-of-losses", SECOND, "end_loss = loss.item()", "at which weights, over which points"),
    ("sum-of-losses", SECOND, "end_loss = running_loss", "at which weights, over which points"),
    ("sum-of-losses", SECOND, "pass", "not yet: NameError"),
    ("mini-batches", FIRST, STEP + "    running_loss += loss.item()", "weigh each by its size"),
    ("mini-batches", SECOND, "running_loss /= len(loader)", "divide it by the number of"),
    ("mini-batches", FIRST, "running_loss += loss.item() * len(x)", "w is what it was"),
    (
        "mini-batches",
        FIRST,
        STEP.replace("w.grad.zero_()", "pass") + "    running_loss += loss.item() * len(x)",
        "are still in w.grad",
    ),
]


def indented(line: str, code: str) -> str:
    """Return code that takes the place of a line, as far to the right as it."""
    margin = re.match(" *", line)[0]  # type: ignore[index]
    lines = [part.removeprefix("    ") if "\n" in code else part for part in code.split("\n")]
    return "\n".join(margin + part for part in lines if part.strip())


def filled(code: str, fillings: list[str]) -> str:
    """Return code with its holes filled, all of them."""
    lines, left = [], iter(fillings)
    for line in code.split("\n"):
        lines.append(indented(line, next(left)) if HOLE.match(line) else line)
    assert next(left, None) is None, "there are fewer holes than fillings"
    return "\n".join(lines)


def said_of(page: str, fillings: list[str]) -> str:
    """Return what the chapter's check says of its cell, with its holes filled."""
    cells = [cell.code for cell in Page(ROOT / f"book/{page}.md").cells]
    names: dict[str, Any] = {}
    exec(cells[0], names)
    cell = next(
        text for text in cells if re.search(r"^\s*(?:\.\.\.|\w+ = \.\.\.|if \.\.\.)", text, re.M)
    )
    printed = r"print\(((?:checks\.\w+|check)\(\w+\))\)"
    exec(re.sub(printed, r"said = \1", filled(cell, fillings)), names)
    return str(names["said"])


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show no bars, and keep what a page sets from the tests that come after."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with np.printoptions():
        yield


@pytest.mark.parametrize("page", RIGHT)
def test_the_right_lines_are_right(page: str) -> None:
    assert said_of(page, RIGHT[page]).startswith("right")


@pytest.mark.parametrize(("page", "hole", "instead", "said"), WRONG)
def test_a_wrong_line_is_told_what_is_wrong(page: str, hole: int, instead: str, said: str) -> None:
    fillings = [*RIGHT[page]]
    fillings[hole] = instead
    answer = said_of(page, fillings)
    assert answer.startswith("not yet") and said in answer
