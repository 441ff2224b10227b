import doctest
import inspect
import re

import pytest

import sgd_analysis
from sgd_analysis import checks, figures, stopping
from sgd_analysis.surveying import measures

INIT = "sgd_analysis/__init__.py"
NAMES = {name: getattr(sgd_analysis, name, None) for name in sgd_analysis.__all__}
NAMES |= {
    f"figures.{name}": drawn
    for name, drawn in inspect.getmembers(figures, inspect.isfunction)
    if drawn.__module__ == figures.__name__
}
NAMES |= {f"checks.{name}": getattr(checks, name) for name in checks.__all__}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example_that_runs_in_an_empty_namespace(name):
    assert NAMES[name] is not None, f"{INIT}: `__all__` has {name}, which is not imported there"
    tests = doctest.DocTestFinder().find(NAMES[name], name, globs={})
    assert tests[0].examples, f"{name} has no Example in its docstring: show what it is for"
    report = []
    for test in tests:  # a class and its methods
        doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)


def test_only_public_names_are_listed():
    assert set(dir(sgd_analysis)) == {*sgd_analysis.__all__, "__version__"}
    in_order = sorted(sgd_analysis.__all__)
    for name, expected in zip(sgd_analysis.__all__, in_order, strict=True):
        assert name == expected, f"{INIT}: `__all__` is sorted: {expected} belongs before {name}"


@pytest.mark.parametrize("module", [measures, stopping], ids=lambda module: module.__name__)
def test_a_measure_and_a_rule_are_public_as_soon_as_they_are_written(module):
    for name, found in inspect.getmembers(module, inspect.isfunction):
        own = found.__module__ == module.__name__ and not name.startswith("_")
        if own and name != "epochs_reached":  # which `train(max_epochs=...)` stands for
            listed = name in sgd_analysis.__all__
            assert listed, f"{INIT}: import {name} and list it in `__all__`, or call it _{name}"


def test_the_packages_docstring_says_which_question_each_name_answers():
    words = re.findall(r"\w+", sgd_analysis.__doc__)
    missing = [name for name in sgd_analysis.__all__ if name not in words]
    assert not missing, f"{INIT}, its docstring: which question does {missing[0]} answer?"


def test_the_signature_of_train_names_its_types_and_does_not_expand_them():
    signature = str(inspect.signature(sgd_analysis.train))
    assert "order: 'str | Order'" in signature
    assert len(signature) < 450  # of 905 with every alias spelled out
