"""The recorder in two processes that train together, and that one process does without all that.

Two processes take a while to start: they make all the runs below one after the other, and leave
what they saw in files.
"""

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import History, noise_of_ranks, record, repeated_samples
from sgd_analysis.recording.hooks import Guard
from sgd_analysis.recording.processes import LocalGradients

N_RANKS = 2
KEPT = [
    "plain",
    "accumulated",
    "averaged after each part",
    "averaged after each part, and zeroed",
    "bucket views",
    "bucket views, accumulated and zeroed",
    "bucket views, averaged after each part",
]

WORKER = """
import contextlib
import datetime
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sgd_analysis import record
from sgd_analysis.recording import processes

N_STEPS, STEPS_PER_EPOCH = 6, 3
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group(
    "gloo",
    init_method=f"file://{folder}/rendezvous",
    rank=rank,
    world_size=2,
    timeout=datetime.timedelta(minutes=10),
)

batch_size = [6, 3][rank]  # a global mean of the losses has to weight them
generator = torch.Generator().manual_seed(rank)
inputs = torch.randn(N_STEPS, batch_size, 3, generator=generator, dtype=torch.float64)
targets = torch.randn(N_STEPS, batch_size, 2, generator=generator, dtype=torch.float64)
results = {"inputs": inputs, "targets": targets}


def new_model():
    torch.manual_seed(0)
    layers = torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    return torch.nn.Sequential(*layers).double()


def train(
    model,
    settings,
    n_parts=1,
    averages_each=False,
    set_to_none=True,
    n_steps=N_STEPS,
    steps_per_epoch=STEPS_PER_EPOCH,
    reduction="mean",
):
    criterion = torch.nn.MSELoss(reduction=reduction)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    recorder = None
    if settings is not None:
        recorder = record(optimizer, criterion, steps_per_epoch=steps_per_epoch, **settings)
    seen = {"losses": [], "weights": [], "gradients": [], "versions": []}
    for x, y in zip(inputs[:n_steps], targets[:n_steps], strict=True):
        optimizer.zero_grad(set_to_none=set_to_none)
        printed = 0.0
        for i, (some_x, some_y) in enumerate(zip(x.chunk(n_parts), y.chunk(n_parts), strict=True)):
            waits = i + 1 < n_parts and not averages_each
            with model.no_sync() if waits else contextlib.nullcontext():
                loss = criterion(model(some_x), some_y)
                (loss / n_parts).backward()
            printed += loss.item() / n_parts
        optimizer.step()
        seen["losses"].append(printed)
        seen["weights"].append([p.detach().clone() for p in model.parameters()])
        seen["gradients"].append([p.grad.clone() for p in model.parameters()])
        seen["versions"].append([p.grad._version for p in model.parameters()])
    return seen, recorder


def compare(name, settings, bucket_views=False, **loop):
    def wrapped():
        return DistributedDataParallel(new_model(), gradient_as_bucket_view=bucket_views)

    unrecorded, _ = train(wrapped(), None, **loop)
    model = wrapped()
    recorded, recorder = train(model, settings, **loop)
    recorder.evaluate(test=rank + 1.0)
    gathered_while_recording = recorder.gather()
    recorder.close()
    results[name] = {
        "unrecorded": unrecorded,
        "recorded": recorded,
        "history": recorder.history,
        "gathered while recording": gathered_while_recording,
        "gathered": recorder.gather(),
        "hooks": sum(
            len(hooks or ())
            for p in model.parameters()
            for hooks in (p._post_accumulate_grad_hooks, p._backward_hooks)
        ),
    }


compare("plain", {"weights": True})
compare("norms", {"gradients": "norms", "weights": True})
compare("accumulated", {"weights": True}, n_parts=3)
compare("averaged after each part", {"weights": True}, n_parts=3, averages_each=True)
compare(
    "averaged after each part, and zeroed",
    {"weights": True},
    n_parts=3,
    averages_each=True,
    set_to_none=False,
)
compare("bucket views", {"weights": True}, bucket_views=True)
compare(
    "bucket views, averaged after each part",
    {"weights": True},
    bucket_views=True,
    n_parts=3,
    averages_each=True,
)
compare(
    "bucket views, accumulated and zeroed",
    {"weights": True},
    bucket_views=True,
    n_parts=3,
    set_to_none=False,
)
compare("none", {"gradients": "none"})



def fully_sharded(model):
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model)


def tensor_parallel(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return parallelize_module(model, init_device_mesh("cpu", (2,)), plan)


ALSO = ("unclipped_norm", "update_norm", "norms_by_parameter")


def batches_of(parallelize):
    if parallelize is not tensor_parallel:
        return zip(inputs, targets, strict=True)
    generator = torch.Generator().manual_seed(2)  # the same batches on all ranks
    one, other = (
        torch.randn(N_STEPS, 5, n, generator=generator, dtype=torch.float64) for n in (3, 2)
    )
    return zip(one, other, strict=True)


# Which operations have reached the other processes while it ran, and how often.
def communications(step):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    return {one.key: one.count for one in profile.key_averages() if one.key.startswith("c10d")}


def whole(parameter):
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


# A model whose parameters are sharded, and the same model whole.
def sharded(parallelize, gradients, **settings):
    torch.manual_seed(0)
    n = 6 if parallelize is tensor_parallel else 5  # which takes even numbers only
    model = torch.nn.Sequential(torch.nn.Linear(3, n), torch.nn.Tanh(), torch.nn.Linear(n, 2))
    model = parallelize(model.double())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    criterion = torch.nn.MSELoss()
    seen = {"losses": [], "gradients": [], "weights": [], "communications": []}
    recorder = None
    if gradients:
        recorder = record(optimizer, criterion, steps_per_epoch=3, gradients=gradients, **settings)
    for x, y in batches_of(parallelize):

        def step(x=x, y=y):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            seen["losses"].append(loss.item())
            seen["gradients"].append([p.grad.detach().clone() for p in model.parameters()])
            optimizer.step()

        seen["weights"].append([whole(p).detach().clone() for p in model.parameters()])
        seen["communications"].append(communications(step))
        seen["gradients"][-1] = [whole(gradient).clone() for gradient in seen["gradients"][-1]]
    seen["end"] = [whole(p).detach() for p in model.parameters()]
    if recorder is not None:
        recorder.close()
        seen["history"], seen["gathered"] = recorder.history, recorder.gather()
    return seen


for parallelize in (fully_sharded, tensor_parallel, DistributedDataParallel):
    results[parallelize.__name__] = {
        "unrecorded": sharded(parallelize, None),
        "auto": sharded(parallelize, "auto", weights=True),
        "norms": sharded(parallelize, "norms", also=ALSO),
    }

# The same data on all ranks, dealt out and not.
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

same = TensorDataset(torch.arange(12.0, dtype=torch.float64)[:, None].expand(12, 3))
samplers = {"dealt out": DistributedSampler(same), "not dealt out": None}
for name, sampler in samplers.items():
    model = DistributedDataParallel(new_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with record(optimizer, also=["fingerprints"]) as recorder:
        for epoch in range(2):
            for (x,) in DataLoader(same, 3, sampler=sampler):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
    results[name] = recorder.gather()

# Without averaging, so that the ranks need not make as many steps.
_, recorder = train(new_model(), {}, reduction="sum")
results["sums"] = {"history": recorder.history, "gathered": recorder.gather()}
recorder.close()

for name, n_steps, steps_per_epoch in [("steps", 4 + rank, 3), ("epochs", 4, 3 - rank)]:
    _, recorder = train(new_model(), {}, n_steps=n_steps, steps_per_epoch=steps_per_epoch)
    try:
        recorder.gather()
    except RuntimeError as error:
        results[f"different {name}"] = str(error)
    recorder.close()


def failing(self, parameter):
    raise RuntimeError("made to fail")


processes.LocalGradients._copy = failing
results["failing"] = {}
try:
    results["failing"]["seen"], recorder = train(DistributedDataParallel(new_model()), {})
    results["failing"]["history"] = recorder.history
    recorder.close()
except Exception as error:  # a warning of close() is one, too
    results["failing"]["error"] = repr(error)

torch.save(results, f"{folder}/rank_{rank}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the two processes has seen."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch cannot train in several processes")
    folder = tmp_path_factory.mktemp("ranks")
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WORKER, str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(N_RANKS)
    ]
    try:
        outputs = [worker.communicate(timeout=600)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * N_RANKS, "\n".join(outputs)
    # What these processes have just written may be unpickled.
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(N_RANKS)]


def oracle(rank, step, weights):
    """The loss of a rank's whole batch at given weights, and its gradient, without any of DDP."""
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    ).double()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(weights.copy()), model.parameters())
    residuals = model(rank["inputs"][step]) - rank["targets"][step]
    loss = residuals.square().mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), torch.cat([g.ravel() for g in gradients]).numpy()


def oracles(rank, history):
    rows = [oracle(rank, k, weights) for k, weights in enumerate(history.weights)]
    losses, gradients = zip(*rows, strict=True)
    return np.array(losses), np.array(gradients)


@pytest.mark.parametrize("run", [*KEPT, "norms", "none"])
def test_recording_changes_nothing_about_a_distributed_run(ranks, run):
    for rank in ranks:
        unrecorded, recorded = rank[run]["unrecorded"], rank[run]["recorded"]
        assert recorded["losses"] == unrecorded["losses"]
        assert recorded["versions"] == unrecorded["versions"]
        for what in ("weights", "gradients"):
            for one, other in zip(recorded[what], unrecorded[what], strict=True):
                assert all(map(torch.equal, one, other)), what
        assert rank[run]["hooks"] == 0


@pytest.mark.parametrize("run", [*KEPT, "norms"])
def test_each_rank_records_the_losses_of_its_own_batches(ranks, run):
    for rank, batch_size in zip(ranks, [6, 3], strict=True):
        history = rank[run]["history"]
        assert_allclose(history.loss, oracles(rank, history)[0], rtol=1e-10)
        assert_allclose(history.loss, rank[run]["recorded"]["losses"], rtol=1e-14)
        assert_array_equal(history.n_samples, [batch_size] * 6)
        assert_array_equal(history.denominator, [2 * batch_size] * 6)  # elements: two outputs
        assert (history.n_steps, history.n_epochs) == (6, 2)
    assert not np.any(ranks[0][run]["history"].loss == ranks[1][run]["history"].loss)


@pytest.mark.parametrize("run", KEPT)
def test_local_gradients_are_those_of_a_ranks_own_batches(ranks, run):
    for rank in ranks:
        history = rank[run]["history"]
        gradients = oracles(rank, history)[1]
        assert_allclose(history.local_gradient, gradients, rtol=1e-10, atol=1e-14)
        norms = np.linalg.norm(gradients, axis=1)
        assert_allclose(history.local_gradient_norm, norms, rtol=1e-10)


@pytest.mark.parametrize("run", KEPT)
def test_the_gradient_is_the_mean_of_the_local_ones(ranks, run):
    histories = [rank[run]["history"] for rank in ranks]
    mean = np.mean([history.local_gradient for history in histories], axis=0)
    for history in histories:
        assert_allclose(history.gradient, mean, rtol=1e-10, atol=1e-14)
    norms = np.mean([history.local_gradient_norm for history in histories], axis=0)
    assert (histories[0].gradient_norm <= norms).all()
    assert_array_equal(*[history.weights for history in histories])


def test_norms_alone_are_those_of_the_vectors(ranks):
    for rank in ranks:
        norms, whole = rank["norms"]["history"], rank["plain"]["history"]
        assert_allclose(norms.gradient_norm, whole.gradient_norm, rtol=1e-10)
        assert_allclose(norms.local_gradient_norm, whole.local_gradient_norm, rtol=1e-10)
        assert_allclose(norms.path_gradient_norm, whole.path_gradient_norm, rtol=1e-10)
        assert len(norms.local_gradients.kept) == 0


def test_no_gradients_are_recorded_where_none_are_wanted(ranks):
    for rank in ranks:
        history = rank["none"]["history"]
        assert history.gradients is None and history.local_gradients is None
        assert_array_equal(history.loss, rank["plain"]["history"].loss)


def test_a_hook_that_fails_in_the_backward_pass_does_not_end_the_run(ranks):
    for rank in ranks:
        failing = rank["failing"]
        assert failing["error"].startswith("UserWarning"), failing["error"]
        assert "recording stopped" in failing["error"] and "made to fail" in failing["error"]
        assert failing["seen"]["losses"] == rank["plain"]["unrecorded"]["losses"]
        assert failing["history"].n_steps == 0


SHARDED = ["fully_sharded", "tensor_parallel"]


class TestShardedParameters:
    """Each rank records its own shards, and `gather` puts them together."""

    @pytest.mark.parametrize("run", [*SHARDED, "DistributedDataParallel"])
    @pytest.mark.parametrize("how", ["auto", "norms"])
    def test_recording_changes_nothing_and_says_nothing_to_other_processes(self, ranks, run, how):
        for rank in ranks:
            unrecorded, recorded = rank[run]["unrecorded"], rank[run][how]
            for what in ("losses", "end"):
                pairs = zip(unrecorded[what], recorded[what], strict=True)
                assert all(torch.equal(*map(torch.as_tensor, pair)) for pair in pairs)
            assert recorded["communications"] == unrecorded["communications"]
            assert all(recorded["communications"])  # those of the training are seen

    @pytest.mark.parametrize("run", SHARDED)
    @pytest.mark.parametrize("how", ["auto", "norms"])
    def test_every_step_is_recorded_with_the_norm_of_the_whole_gradient(self, ranks, run, how):
        seen = ranks[0][run][how]
        gathered, whole = seen["gathered"], flat(seen["gradients"])
        assert gathered.n_steps == len(whole)
        assert_array_equal(seen["history"].loss, seen["losses"])
        assert_allclose(gathered.gradient_norm, np.linalg.norm(whole, axis=1), rtol=1e-12)
        paths = whole.reshape(2, 3, -1).mean(axis=1)
        assert_allclose(gathered.path_gradient_norm, np.linalg.norm(paths, axis=1), rtol=1e-12)
        assert_allclose(gathered[-1].path_gradient[0], paths[-1], rtol=1e-10, atol=1e-15)

    @pytest.mark.parametrize("run", SHARDED)
    def test_whole_gradients_and_weights_are_put_together(self, ranks, run):
        seen = ranks[0][run]["auto"]
        assert_array_equal(seen["gathered"].gradient, flat(seen["gradients"]))
        assert_array_equal(seen["gathered"].weights, flat(seen["weights"]))
        width = seen["gathered"].gradient.shape[1]
        assert seen["history"].gradient.shape[1] < width  # a rank has its shards only
        widths = [rank[run]["auto"]["history"].gradient.shape[1] for rank in ranks]
        assert sum(widths) == width + 2 * (run == "tensor_parallel")  # a bias that both have

    @pytest.mark.parametrize("run", [*SHARDED, "DistributedDataParallel"])
    def test_what_else_is_asked_for_is_that_of_whole_parameters(self, ranks, run):
        seen = ranks[0][run]["norms"]
        gathered = seen["gathered"]
        norms = [[gradient.norm() for gradient in step] for step in seen["gradients"]]
        assert_allclose(gathered.norms_by_parameter, norms, rtol=1e-10)
        assert_allclose(gathered.unclipped_norm, np.linalg.norm(norms, axis=1), rtol=1e-10)
        weights = np.array([np.concatenate([p.ravel() for p in w]) for w in seen["weights"]])
        weights = np.vstack([weights, np.concatenate([p.ravel() for p in seen["end"]])])
        moves = np.linalg.norm(np.diff(weights, axis=0), axis=1)
        assert_allclose(gathered.update_norm, moves, rtol=1e-10)
        sizes = [where.stop - where.start for where in gathered.parameter_names.values()]
        assert sizes == [p.numel() for p in seen["end"]]

    def test_ranks_with_batches_of_their_own_are_added_up(self, ranks):
        gathered = ranks[0]["fully_sharded"]["auto"]["gathered"]
        assert_array_equal(gathered.n_samples, [6 + 3] * 6)
        losses = [rank["fully_sharded"]["auto"]["losses"] for rank in ranks]
        assert_allclose(gathered.loss, np.average(losses, axis=0, weights=[6, 3]), rtol=1e-12)

    def test_ranks_that_have_seen_the_same_batches_count_once(self, ranks):
        """In tensor parallel, each batch was counted by each rank."""
        for how in ("auto", "norms"):
            seen = ranks[0]["tensor_parallel"][how]
            gathered = seen["gathered"]
            assert_array_equal(gathered.n_samples, [5] * 6)
            assert_array_equal(gathered.denominator, [5 * 2] * 6)
            assert_allclose(gathered.loss, seen["losses"], rtol=1e-14)
            means = np.reshape(seen["losses"], (2, 3)).mean(axis=1)
            assert_allclose(gathered.running_loss, means, rtol=1e-12)
            assert len(gathered.ranks) == N_RANKS


def flat(steps):
    return np.array([torch.cat([part.flatten() for part in parts]).numpy() for parts in steps])


class TestGathering:
    def test_only_the_first_rank_gets_a_history(self, ranks):
        for run in (*KEPT, "norms", "none"):
            for when in ("gathered", "gathered while recording"):
                assert isinstance(ranks[0][run][when], History)
                assert ranks[1][run][when] is None

    def test_losses_are_weighted_by_the_sizes_of_the_ranks_batches(self, ranks):
        gathered, histories = self.of(ranks, "plain")
        assert_array_equal(gathered.denominator, [12 + 6] * 6)
        assert_array_equal(gathered.n_samples, [6 + 3] * 6)
        # The loss of both batches as one, at the weights both ranks have.
        for k, weights in enumerate(histories[0].weights):
            both = {
                name: [torch.cat([rank[name][k] for rank in ranks])]
                for name in ("inputs", "targets")
            }
            assert_allclose(gathered.loss[k], oracle(both, 0, weights)[0], rtol=1e-10)
        assert_allclose(gathered.running_loss, gathered.loss.reshape(2, 3).mean(1), rtol=1e-10)

    def test_the_objective_is_the_mean_over_the_ranks_whatever_their_sizes(self, ranks):
        """Its gradient is the averaged one: one rank, one vote."""
        gathered, (one, other) = self.of(ranks, "plain")
        assert_allclose(gathered.objective, (one.loss + other.loss) / 2, rtol=1e-12)
        assert_array_equal(gathered.size_weighted_loss, gathered.loss)
        assert (abs(gathered.objective / gathered.loss - 1) > 1e-3).all()

    def test_the_gradient_is_the_averaged_one_and_the_ranks_keep_their_own(self, ranks):
        gathered, histories = self.of(ranks, "plain")
        assert gathered.evaluated.keys() == {"test"}
        assert_array_equal(gathered.evaluated["test"], [np.nan, 1.0])  # rank 0's own
        for found, test in zip(gathered.ranks, (1.0, 2.0), strict=True):
            assert_array_equal(found.evaluated["test"], [np.nan, test])
        assert_array_equal(gathered.gradient, histories[0].gradient)
        assert gathered.local_gradients is None
        assert len(gathered.ranks) == N_RANKS
        for found, history in zip(gathered.ranks, histories, strict=True):
            assert_array_equal(found.local_gradient, history.local_gradient)
            assert_array_equal(found.local_gradient_norm, history.local_gradient_norm)
            assert_array_equal(found.loss, history.loss)
        norms = np.mean([found.local_gradient_norm for found in gathered.ranks], axis=0)
        assert (gathered.gradient_norm <= norms).all()

    def test_an_epoch_of_it_has_that_epoch_of_every_rank(self, ranks):
        gathered, histories = self.of(ranks, "plain")
        for found, history in zip(gathered[1].ranks, histories, strict=True):
            assert_array_equal(found.loss, history.loss[3:])
            assert_array_equal(found.local_gradient, history.local_gradient[3:])

    def test_norms_alone_are_gathered_too(self, ranks):
        gathered, histories = self.of(ranks, "norms")
        assert_array_equal(gathered.gradient_norm, histories[0].gradient_norm)
        for found, history in zip(gathered.ranks, histories, strict=True):
            assert_array_equal(found.local_gradient_norm, history.local_gradient_norm)

    def test_of_sums_the_mean_over_the_ranks_is_that_whose_gradient_is_averaged(self, ranks):
        gathered, histories = self.of(ranks, "sums")
        total = histories[0].loss + histories[1].loss
        assert_allclose(gathered.loss, total / 2, rtol=1e-14)
        assert_array_equal(gathered.denominator, [12 + 6] * 6)
        means = (total / 18).reshape(2, 3).mean(1)
        assert_allclose(gathered.running_loss, means, rtol=1e-10)

    @pytest.mark.parametrize(
        ("what", "counts"), [("steps", [(4, 1), (5, 1)]), ("epochs", [(4, 1), (4, 2)])]
    )
    def test_ranks_that_do_not_fit_together_are_refused_on_each_of_them(self, ranks, what, counts):
        for rank in ranks:
            message = rank[f"different {what}"]
            assert message.startswith("the ranks must have recorded the same steps and epochs")
            assert message.endswith(f"got (n_steps, n_epochs) {counts}")

    @pytest.mark.parametrize("run", ["plain", "norms", "none", "sums"])
    def test_it_is_the_same_after_saving_and_loading(self, ranks, run, tmp_path):
        gathered, _ = self.of(ranks, run)
        gathered.save(tmp_path / "gathered.npz")
        loaded = History.load(tmp_path / "gathered.npz")
        assert len(loaded.ranks) == N_RANKS
        pairs = [(loaded, gathered), *zip(loaded.ranks, gathered.ranks, strict=True)]
        for found, expected in pairs:
            for name in ("loss", "denominator", "epoch", "step_size", "skipped", "running_loss"):
                assert_array_equal(getattr(found, name), getattr(expected, name))
            for name in ("gradients", "local_gradients"):
                one, other = getattr(found, name), getattr(expected, name)
                assert (one is None) == (other is None)
                if one is not None:
                    assert dict(one.arrays()).keys() == dict(other.arrays()).keys()
                    for key, array in one.arrays():
                        assert_array_equal(array, getattr(other, key))
            assert (found.n_epochs, found.metadata) == (expected.n_epochs, dict(expected.metadata))

    @staticmethod
    def of(ranks, run):
        return ranks[0][run]["gathered"], [rank[run]["history"] for rank in ranks]


class TestOwnGradients:
    """What of a process's gradients is its own, `.grad` being averaged after each pass."""

    @pytest.fixture
    def watched(self):
        parameter = torch.nn.Parameter(torch.zeros(2))
        local = LocalGradients(Guard(lambda error: pytest.fail(f"{error!r}")))
        local.watch([parameter])
        yield parameter, local
        local.close()
        assert not parameter._backward_hooks and not parameter._post_accumulate_grad_hooks

    @staticmethod
    def backward(parameter, *gradient):
        (parameter * torch.tensor(gradient)).sum().backward()
        parameter.grad.mul_(-7)  # averaged with that of other processes, say

    def test_those_of_several_passes_are_added_up(self, watched):
        parameter, local = watched
        self.backward(parameter, 1.0, 2.0)
        self.backward(parameter, 10.0, 20.0)
        assert local.take([parameter])[0].tolist() == [11.0, 22.0]
        self.backward(parameter, 3.0, 4.0)  # to gradients that the loop has not cleared
        assert local.take([parameter])[0].tolist() == [3.0, 4.0]

    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_those_that_were_cleared_are_not(self, watched, set_to_none):
        parameter, local = watched
        self.backward(parameter, math.inf, math.nan)
        torch.optim.SGD([parameter], lr=1).zero_grad(set_to_none=set_to_none)
        self.backward(parameter, 10.0, 20.0)
        assert local.take([parameter])[0].tolist() == [10.0, 20.0]

    def test_what_autograd_only_returns_is_none_of_them(self, watched):
        parameter, local = watched
        self.backward(parameter, 1.0, 2.0)
        torch.autograd.grad(parameter.square().sum() + parameter.sum(), parameter)
        self.backward(parameter, 10.0, 20.0)
        torch.autograd.grad(parameter.sum(), parameter)
        assert local.take([parameter])[0].tolist() == [11.0, 22.0]

    def test_sparse_ones_are_added_up_too(self):
        table = torch.nn.Embedding(3, 1, sparse=True)
        local = LocalGradients(Guard(lambda error: pytest.fail(f"{error!r}")))
        local.watch([table.weight])
        for row in (0, 2, 2):
            table(torch.tensor([row])).sum().backward()
        assert local.take([table.weight])[0].to_dense().tolist() == [[1.0], [0.0], [2.0]]
        local.close()

    def test_a_parameter_is_copied_and_pickled_without_a_warning(self, watched):
        parameter, _ = watched
        tensor = torch.zeros(2, requires_grad=True)
        local = LocalGradients(Guard(lambda error: None))
        local.watch([tensor])
        for one in (parameter, tensor):
            for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
                assert not copied._backward_hooks and not copied._post_accumulate_grad_hooks
        local.close()


class TestNoise:
    """The noise scale of an epoch, from what two ranks with batches of 6 and 3 have recorded."""

    @pytest.mark.parametrize("run", ["plain", "norms", "averaged after each part"])
    def test_its_terms_are_those_of_the_local_gradients(self, ranks, run):
        histories = [rank[run]["history"] for rank in ranks]
        gradients = [oracles(rank, h)[1] for rank, h in zip(ranks, histories, strict=True)]
        small = np.mean([np.sum(own**2, axis=1) for own in gradients], axis=0)
        large = np.sum(np.mean(gradients, axis=0) ** 2, axis=1)
        h = (1 / 6 + 1 / 3) / 2
        variance = (small - large) / (h - h / 2)  # in the mean of many steps
        found = noise_of_ranks(ranks[0][run]["gathered"], n_samples=np.inf)
        means = variance.reshape(2, 3).mean(axis=1)
        assert_allclose(found.gradient_variance, means, rtol=1e-10)
        squares = (2 * large - small).reshape(2, 3).mean(axis=1)
        assert_allclose(found.full_gradient_norm_squared, squares, rtol=1e-10, atol=1e-14)
        assert found.unknown == ("3 steps are too few for an estimate: it takes 10",) * 2

    def test_of_sharded_parameters_there_is_none(self, ranks):
        with pytest.raises(ValueError, match="with sharded parameters no rank has one"):
            noise_of_ranks(ranks[0]["fully_sharded"]["norms"]["gathered"])


class TestOneProcess:
    def test_nothing_of_torch_distributed_is_imported_or_needed(self):
        code = """
import sys

import torch.optim, torch.utils.data


def step():
    optimizer.zero_grad()
    criterion(model(torch.ones(5, 2)), torch.zeros(5, 1)).backward()
    optimizer.step()


def imported():
    return {name for name in sys.modules if name.startswith("torch.distributed")}


model, criterion = torch.nn.Linear(2, 1), torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
step()
before = imported()  # torch imports some of it on its own
sys.modules["torch.distributed"] = None  # from here on, importing it fails
import sgd_analysis

with sgd_analysis.record(optimizer, criterion, steps_per_epoch=2) as recorder:
    for _ in range(3):
        step()
    assert recorder.gather().n_steps == 3
assert recorder.history.n_epochs == 1
print(sorted(imported() - before))
"""
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
        )
        assert found.stdout == "[]\n"

    def test_its_history_is_the_gathered_one_and_has_no_local_gradients(self):
        model = torch.nn.Linear(2, 1)
        optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.MSELoss()
        with record(optimizer, criterion, steps_per_epoch=1) as recorder:
            criterion(model(torch.ones(5, 2)), torch.zeros(5, 1)).backward()
            optimizer.step()
        assert_array_equal(recorder.gather().loss, recorder.history.loss)
        assert recorder.gather().ranks == ()
        with pytest.raises(ValueError, match="local_gradients were not recorded"):
            _ = recorder.history.local_gradient_norm


def test_whether_ranks_have_seen_the_same_samples(ranks):
    dealt_out, not_dealt_out = (ranks[0][name] for name in ("dealt out", "not dealt out"))
    assert [rank["dealt out"] for rank in ranks[1:]] == [None]
    assert_array_equal(repeated_samples(not_dealt_out).between_ranks, [1, 1])
    assert_array_equal(repeated_samples(dealt_out).between_ranks, [0, 0])
    assert_array_equal(repeated_samples(dealt_out).again, [np.nan, 1])
    assert len(dealt_out.fingerprints.values) == 2 * 12
    each = [rank.fingerprints.values[:3] for rank in dealt_out.ranks]
    assert_array_equal(dealt_out[0].fingerprints.values[:6], np.concatenate(each))
