"""A reader's loops, right but for one line."""

import linecache
import textwrap

import numpy
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from sgd_analysis.checks.points import POINTS

STEP = "loss.backward()\nwith torch.no_grad():\n    w -= eta * w.grad\n    w.grad.zero_()"
SINGLE = """
def sgd(f, w, t, eta=0.00001, epsilon=0.001, nepoch=100):
    for epoch in range(1, nepoch + 1):
        for x, y in SAMPLES:
            loss = OF_ONE
            STEP
        AFTER
        if RULE:
            return epoch
"""
DESCENT = """
def sgd(f, w, t, eta=0.0002, epsilon=0.1, nepoch=10_000):
    x, y = t[:, 0], t[:, 1]
    for epoch in EPOCHS:
        loss = LOSS
        STEP
        if RULE:
            RESULT
"""
BATCHES = """
def sgd(f, w, t, eta=0.0002, epsilon=0.1, nepoch=50, minibatch=10):
    MADE
    loader = LOADER
    for epoch in range(1, nepoch + 1):
        running_loss = 0.0
        BEGIN
        for batch in loader:
            x, y = batch[:, 0], batch[:, 1]
            loss = torch.nn.functional.mse_loss(f(w, x), y)
            STEP
            ADD
        AFTER
        if RULE:
            return epoch
"""
SHOWN = """
def sgd(loader):
    LINES
"""
USUAL = {
    "SAMPLES": "t",
    "OF_ONE": "(y - f(w, x)) ** 2",
    "AFTER": "pass",
    "RULE": "loss.item() < epsilon",
    "STEP": STEP,
    "EPOCHS": "tqdm(range(1, nepoch + 1))",
    "LOSS": "torch.mean((y - f(w, x)) ** 2)",
    "RESULT": "return epoch",
    "MADE": "pass",
    "BEGIN": "pass",
    "ADD": "pass",
    "LOADER": "DataLoader(t, batch_size=minibatch, shuffle=True)",
}


def written(template, **changed):
    """Return the function of a template, in which a few things are other than usual."""
    lines = []
    for line in template.split("\n"):
        word = line.strip()
        parts = {name: code for name, code in (USUAL | changed).items() if name in line}
        if word in parts:
            line = textwrap.indent(parts[word], line[: -len(word)])
        else:
            for name, code in parts.items():
                line = line.replace(name, code)
        lines.append(line)
    names = {
        "torch": torch,
        "DataLoader": DataLoader,
        "tqdm": tqdm,
        "numpy": numpy,
        "POINTS": POINTS,
    }
    source = "\n".join(lines)
    path = f"<reader's cell {hash(source)}>"
    linecache.cache[path] = len(source), None, source.splitlines(True), path
    exec(compile(source, path, "exec"), names)
    return names["sgd"]


def without(line, code=STEP):
    assert line in code
    return code.replace(line, "pass")
