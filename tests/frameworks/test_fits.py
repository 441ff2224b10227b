"""What the callbacks share, in a loop of no framework; and what they say where one is missing."""

import importlib
import subprocess
import sys

import pytest
import torch
from numpy.testing import assert_array_equal

from sgd_analysis.frameworks.fits import RecordsFits
from tests.frameworks.outcomes import network


def optimizers(n):
    return [torch.optim.SGD(network().parameters(), lr=0.1) for _ in range(n)]


def named(optimizers):
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return [(f"weight {i}", p) for i, p in enumerate(p for g in groups for p in g["params"])]


def step(optimizer):
    optimizer.zero_grad()
    sum(p.square().sum() for group in optimizer.param_groups for p in group["params"]).backward()
    optimizer.step()


def test_the_losses_and_norms_of_an_epoch_are_handed_on_once():
    fits, (optimizer,) = RecordsFits(n_samples=6), optimizers(1)
    fits._begin([optimizer], named([optimizer]))
    rows = []
    for n_steps in (3, 0, 1):
        for _ in range(n_steps):
            step(optimizer)
        rows.append(fits._end_epoch())
    fits._end()
    assert not rows.pop(1)
    table = fits.history.epochs()
    assert table["n_steps"].tolist() == [3, 1]
    names = [name for name in table if name not in {"epoch", "n_steps", "n_samples"}]
    assert [*rows[0]] == [f"sgd_analysis/{name}" for name in names]
    for name in names:
        assert_array_equal([row[f"sgd_analysis/{name}"] for row in rows], table[name])


def test_a_history_has_the_parameters_by_their_names():
    fits, both = RecordsFits(n_samples=1, also=["norms_by_parameter"]), optimizers(2)
    fits._begin(both, named(both))
    for optimizer in both:
        step(optimizer)
    fits._end_epoch()
    fits._end()
    for i, history in enumerate(fits.histories):
        assert [*history.parameter_names] == [f"weight {4 * i + k}" for k in range(4)]


def test_what_is_not_known_is_left_out():
    fits, (optimizer,) = RecordsFits(gradients="none"), optimizers(1)
    fits._begin([optimizer], named([optimizer]))
    step(optimizer)
    with pytest.warns(UserWarning, match="number of samples of 1 steps is not known"):
        assert [*fits._end_epoch()] == ["sgd_analysis/mean_batch_loss"]
    fits._end()


def test_several_optimizers_have_numbered_names_and_no_common_history():
    fits, both = RecordsFits(n_samples=1, gradients="none"), optimizers(2)
    fits._begin(both, named(both))
    for optimizer in both:
        step(optimizer)
    names = [
        f"sgd_analysis/{i}/{name}" for i in (0, 1) for name in ("running_loss", "mean_batch_loss")
    ]
    assert [*fits._end_epoch()] == names
    step(both[1])
    assert [*fits._end_epoch()] == names[2:]
    fits._end()
    assert [history.n_epochs for history in fits.histories] == [1, 2]
    with pytest.raises(ValueError, match="here are 2: histories has one for each"):
        _ = fits.history


def test_before_the_first_fit_there_is_no_history():
    assert RecordsFits().histories == []
    with pytest.raises(ValueError, match="here are 0: histories has one for each, once"):
        _ = RecordsFits().history


def test_an_optimizer_that_is_refused_leaves_no_hooks_on_the_others():
    fits, (optimizer,) = RecordsFits(), optimizers(1)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        fits._begin([optimizer, None], named([optimizer]))
    assert not optimizer._optimizer_step_pre_hooks


def test_an_optimizer_that_cannot_be_recorded_is_followed_by_none():
    class Descent:
        def step(self):
            pass

    groups = [{"params": [torch.ones(1, requires_grad=True)], "lr": 0.1}]
    optimizer, fits = Descent(), RecordsFits(gradients="all")
    with pytest.raises(ValueError, match='gradients must be "auto"'):
        fits._begin_to_follow(
            optimizer, "step", lambda: groups, [("weight", groups[0]["params"][0])]
        )
    assert not vars(optimizer)


def test_after_an_error_its_note_says_what_the_recorder_has_to_say():
    fits, (optimizer,) = RecordsFits(), optimizers(1)
    fits._begin([optimizer], named([optimizer]))
    step(optimizer)
    error = RuntimeError("broken")
    fits._end(error)
    assert any("number of samples" in note for note in error.__notes__)
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("framework", ["fastai", "keras", "lightning", "transformers"])
def test_a_missing_framework_is_named_with_the_way_to_install_it(framework, monkeypatch):
    modules = [name for name in sys.modules if name.split(".")[0] == framework]
    for missing in (framework, *modules, "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, missing, None)
    name = f"sgd_analysis.frameworks.{framework}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=rf"{name} needs .*: pip install {framework}"):
        importlib.import_module(name)


def test_the_library_imports_no_framework():
    code = "import sgd_analysis, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in found.stdout.split()}
    assert "sgd_analysis" in loaded and "sgd_analysis.frameworks" not in found.stdout
    assert not loaded & {"fastai", "keras", "lightning", "pytorch_lightning", "transformers"}
