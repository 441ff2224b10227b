"""Each line that chapter 9 offers for a loop is that of a test, and its count of loops is right."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.book.markup import Page
from tests.recording.test_published_loops import LOOPS, recorded

ROOT = Path(__file__).parents[2]
PAGE = Page(ROOT / "book/own-loop.md")

FITS = "test_a_fit_is_recorded_step_by_step_and_left_as_it_is"
PUBLISHED = "recording/published/"
TESTS = {  # by what a loop is, the functions that record such a loop
    "calls a criterion, or a function": [
        "recording/test_sizes.py::test_a_function_is_recorded_as_the_criterion_is"
    ],
    "gets the loss from its model": [f"{PUBLISHED}sequences.py::mingpt"],
    "accumulates, clips, steps twice (SAM)": [
        f"{PUBLISHED}sequences.py::nanogpt",
        f"{PUBLISHED}images.py::label_smoothing_and_averaged_weights",
        f"{PUBLISHED}images.py::sharpness_aware",
    ],
    "passes a closure (LBFGS)": [f"{PUBLISHED}sequences.py::time_series"],
    "scales its losses (AMP)": [f"{PUBLISHED}others.py::mixed_precision"],
    "compiles its model": [f"{PUBLISHED}others.py::compiled"],
    "has two optimizers, as a GAN": [f"{PUBLISHED}images.py::dcgan"],
    "takes its batches from no `DataLoader`": [
        "recording/test_recorder.py::test_the_loop_of_any_tutorial_with_one_line_added",
        "recording/test_recorder.py::test_without_a_with_statement_and_with_epochs_ended_by_hand",
    ],
    "has a loss of its own, which is no plain mean": [
        "recording/test_sizes.py::"
        "test_without_a_criterion_it_is_called_with_nothing_in_each_backward_pass"
    ],
    "runs in several processes, under DDP or FSDP": [
        "recording/test_processes.py::test_recording_changes_nothing_about_a_distributed_run",
        "recording/test_processes.py::test_whole_gradients_and_weights_are_put_together",
    ],
    "is accelerate's": [
        "frameworks/test_accelerate.py::test_a_loop_is_recorded_step_by_step_and_left_as_it_is"
    ],
    "is ignite's": [
        "frameworks/test_ignite.py::test_a_run_is_recorded_step_by_step_and_left_as_it_is"
    ],
    "is skorch's": [f"frameworks/test_skorch.py::{FITS}"],
    "is Lightning's Trainer": [f"frameworks/test_lightning.py::{FITS}"],
    "is transformers' Trainer": [
        "frameworks/test_transformers.py::test_a_training_is_recorded_step_by_step_and_left_as_it_is"
    ],
    "is fastai's Learner": [f"frameworks/test_fastai.py::{FITS}"],
    "is Keras 3, on torch": [f"frameworks/test_keras.py::{FITS}"],
    "makes its optimizers out of reach, or many": [
        "recording/test_record_all.py::test_training_is_the_same_to_the_bit"
    ],
    "is a script you cannot edit": ["test_main.py::test_what_it_saves_is_the_same_to_the_bit"],
}
GROUPS = (  # by row, the loops that it counts
    "mnist imagenet label_smoothing_and_averaged_weights mixup distillation",
    "variational_autoencoder dcgan denoising_diffusion",
    "siamese triplets contrastive",
    "speech recommender",
    "sharpness_aware checkpointed_reentrant checkpointed_anew",
    "mixed_precision compiled early_bound optimizer_in_backward",
    "mingpt masked_language_model translation",
    "nanogpt word_language_model",
    "reinforce actor_critic q_learning proximal_policy meta_learning",
    "graph_convolution time_series style_transfer",
    "wasserstein_with_gradient_penalty detection two_heads loss_by_sample",
)

LISTED = PAGE.text.split("## Your loop is another one\n", 1)[1].split("\n## ", 1)[0]
RECIPES = {
    loop: line
    for loops, line in re.findall(r"^… (.+)\n: (.+)$", LISTED, re.M)
    for loop in loops.split("; ")
}
COUNTED = re.findall(r"^\| (\d+) (.+?) \| (.+?) \|$", LISTED, re.M)


def test_each_recipe_has_its_tests() -> None:
    assert list(RECIPES) == list(TESTS)


@pytest.mark.parametrize("loop", RECIPES)
def test_what_a_recipe_calls_is_called_where_it_is_tested(loop: str) -> None:
    paths, names = zip(*(test.split("::") for test in TESTS[loop]), strict=True)
    sources = [(ROOT / "tests" / path).read_text("utf-8") for path in paths]
    for source, name in zip(sources, names, strict=True):
        assert re.search(rf"^ *def {name}\(", source, re.M)
    code = " ".join(re.findall(r"`([^`]+)`", RECIPES[loop]))
    for called in {*re.findall(r"\w+(?=\()", code), *re.findall(r"\w+(?==)", code)} - {"len"}:
        assert any(re.search(rf"\b{called}\b", source) for source in sources), called


def test_the_callback_for_skorch_is_the_tested_one() -> None:
    (shown,) = re.findall(r"^```python\n(class Recording.*?)^```", PAGE.text, re.M | re.S)
    assert shown in (ROOT / "tests/frameworks/test_skorch.py").read_text("utf-8")


def test_each_published_loop_is_counted_once() -> None:
    counted = [loops.split() for loops in GROUPS]
    assert sorted(loop for loops in counted for loop in loops) == sorted(LOOPS)
    assert [int(number) for number, *_ in COUNTED] == [len(loops) for loops in counted]
    assert len(LOOPS) == 37 and "### Thirty-seven loops" in LISTED


@pytest.mark.parametrize("row", range(len(COUNTED)), ids=lambda row: COUNTED[row][1])
def test_what_is_left_to_tell_is_what_the_recorder_does_not_know(row: int) -> None:
    left = COUNTED[row][2]
    histories = [steps.history for loop in GROUPS[row].split() for steps in recorded(loop)]
    finds_epochs = [history.n_epochs > 0 for history in histories]
    knows_weights = [np.isfinite(history.denominator).all() for history in histories]
    counts_samples = [np.isfinite(history.n_samples).all() for history in histories]
    if "where epochs end" in left:
        assert not any(finds_epochs)
    else:
        assert all(finds_epochs)
        assert all(counts_samples) == (left == "nothing")
    assert all(knows_weights) == ("sizes" not in left)
