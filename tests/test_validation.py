"""What errors call the things that they were given."""

import collections

import pytest
import torch

from sgd_analysis import quadratic_fit, record
from sgd_analysis._validation import kind_of


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3, "int"),
        (None, "NoneType"),
        (collections.Counter(), "collections.Counter"),
        (torch.ones(1), "torch.Tensor"),
        (quadratic_fit(), "LeastSquares"),
    ],
)
def test_a_class_is_named_with_its_module_if_it_is_foreign(value, name):
    assert kind_of(value) == name


def test_an_optimizer_of_another_library_is_told_from_torchs_of_that_name():
    class Optimizer:
        __module__ = "fastai.optimizer"
        __qualname__ = "Optimizer"

    with pytest.raises(
        TypeError, match=r"torch\.optim\.Optimizer that .* got fastai\.optimizer\.Opt"
    ):
        record(Optimizer())
