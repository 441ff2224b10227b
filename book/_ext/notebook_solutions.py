"""A page's notebook with or without its solutions, and the solutions alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plain_notebook import FENCE, Cell, joined

GATE = re.compile(r"^:::\{solution-(start|end)\}.*\n(?::[\w-]+:.*\n)*:::[ ]*$", re.M)
ANSWER = "# Your answer"
ANSWER_IN_FRENCH = "# Votre réponse"


def has_exercises(cells: list[Cell]) -> bool:
    return next(exercises_and_solutions(cells), None) is not None


def parts(cells: list[Cell]) -> Iterator[tuple[bool, Cell]]:
    """Yield what belongs to a solution and what does not: cells, or the pieces of one."""
    inside = False
    for cell in cells:
        if cell["cell_type"] != "markdown":
            yield inside, cell
            continue
        text, start = joined(cell["source"]), 0
        for gate in GATE.finditer(text):
            opens = gate[1] == "start"
            end = gate.start() if opens else gate.end()
            yield inside, cell | {"source": text[start:end].strip()}
            inside, start = opens, end
        yield inside, cell | {"source": text[start:].strip()}


def blank(cell: Cell) -> Cell:
    """Return a code cell that has not been run."""
    return cell | {"execution_count": None, "outputs": []}


def to_do(cells: list[Cell], answer: str = ANSWER) -> Iterator[Cell]:
    """Yield a page's cells as one meets them: nothing has been run, and no solution is there.

    Where a solution has code, there is a cell for the reader's own, unless the exercise gives one.
    """
    to_write = True
    for solves, cell in parts(cells):
        code = cell["cell_type"] == "code"
        if solves:
            if code and to_write:
                yield blank(cell) | {"metadata": {}, "source": answer}
            to_write = to_write and not code
        elif code:
            to_write = False
            yield blank(cell)
        else:
            to_write = to_write or ":::{exercise}" in cell["source"]
            yield cell | {"source": without_boxes(cell["source"])}


def without_boxes(text: str) -> str:
    return FENCE.sub(lambda box: "" if box["name"] == "solution" else box[0], text).strip()


def exercises_and_solutions(cells: list[Cell]) -> Iterator[Cell]:
    """Yield a page's exercises, each with its solution."""
    for solves, cell in parts(cells):
        if solves:
            yield cell
        elif cell["cell_type"] == "markdown":
            for box in FENCE.finditer(cell["source"] + "\n"):
                if box["name"] in ("exercise", "solution"):
                    yield cell | {"source": box[0]}
