"""A finite sum read from a DataLoader."""

import random

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from sgd_analysis import FiniteSum, LeastSquares, train

INPUTS = torch.arange(22.0).reshape(11, 2)
TARGETS = torch.arange(11.0).reshape(11, 1) / 10
DATA = TensorDataset(INPUTS, TARGETS)


def problem_of(loader):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
    return FiniteSum.from_loader(model, torch.nn.MSELoss(), loader)


def assert_holds_all(problem):
    assert torch.equal(problem.inputs, INPUTS)
    assert torch.equal(problem.targets, TARGETS)


class Draws(Dataset):
    """Draws from every random state there is, as an augmenting dataset would."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        noise = torch.rand(1) + float(np.random.rand()) + random.random()
        return torch.full((2,), float(index)), noise


class Stream(IterableDataset):
    def __iter__(self):
        return iter(list(zip(INPUTS, TARGETS, strict=True)))


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(DATA, batch_size=4),
        DataLoader(DATA, batch_size=4, shuffle=True),
        DataLoader(DATA, batch_size=4, shuffle=True, drop_last=True),
        DataLoader(DATA, batch_size=4, sampler=RandomSampler(DATA, replacement=True)),
        DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 3, drop_last=False)),
        DataLoader(list(zip(INPUTS, TARGETS, strict=True)), batch_size=4, shuffle=True),
        DataLoader(Stream(), batch_size=4),
        DataLoader(list(zip(INPUTS.split(4), TARGETS.split(4), strict=True)), batch_size=None),
        list(zip(INPUTS.split(4), TARGETS.split(4), strict=True)),
        zip(INPUTS.split(4), TARGETS.split(4), strict=True),
    ],
    ids=lambda loader: type(loader).__name__,
)
def test_all_samples_are_read_once_in_the_datasets_own_order(loader):
    assert_holds_all(problem_of(loader))


def test_training_on_it_takes_the_steps_of_the_shuffling_loader_itself():
    loader = DataLoader(DATA, batch_size=4, shuffle=True)
    problem = problem_of(loader)
    run = train(problem, step_size=1e-3, batch_size=4, max_epochs=3, seed=7)
    model = problem.model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for _ in range(3):
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = problem.criterion(model(inputs), targets)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    assert_array_equal(run.history.loss, losses)


def test_samples_are_put_together_by_the_loaders_own_function():
    def padded(samples):
        inputs, targets = zip(*samples, strict=True)
        return torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True), torch.stack(targets)

    data = [(torch.ones(n), torch.ones(1)) for n in (1, 3, 2)]
    problem = problem_of(DataLoader(data, batch_size=1, collate_fn=padded))
    assert problem.inputs.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]


def test_reading_leaves_every_random_state_as_it_was():
    generator = torch.Generator().manual_seed(1)

    def states():
        return (
            torch.random.get_rng_state().tolist(),
            generator.get_state().tolist(),
            np.random.get_state()[1].tolist(),
            np.random.get_state()[2],
            random.getstate(),
        )

    before = states()
    for data in (Draws(), Stream()):
        options = {} if isinstance(data, Stream) else {"shuffle": True}
        problem_of(DataLoader(data, batch_size=2, generator=generator, **options))
    assert states() == before


def test_on_least_squares_it_gives_a_finite_sum_all_the_same():
    problem = LeastSquares.from_loader(
        torch.nn.Linear(2, 1), torch.nn.MSELoss(), DataLoader(DATA, batch_size=4)
    )
    assert type(problem) is FiniteSum


class PicksAFew(Sampler):
    def __init__(self):
        pass

    def __iter__(self):
        return iter([[1, 2], [3]])


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (
            DataLoader(DATA, sampler=SubsetRandomSampler([1, 2])),
            r"got a torch\.utils\.data\.sampler\.SubsetRandomSampler",
        ),
        (
            DataLoader(DATA, sampler=WeightedRandomSampler([1] * 11, 3)),
            r"a torch\.utils\.data\.sampler\.WeightedRandomSampler",
        ),
        (DataLoader(DATA, batch_sampler=PicksAFew()), "got a .*PicksAFew: .*Subset"),
        ([], "at least one batch, got none"),
        (DataLoader(Subset(DATA, [])), "at least one batch, got none"),
        ([(torch.ones(2, 1), torch.ones(2)), (torch.ones(2, 3), torch.ones(2))], "of one shape"),
        ([(torch.ones(3, 2), torch.ones(4, 1))], "the same number of samples, got 3 and 4"),
    ],
)
def test_a_loader_that_does_not_hold_whole_data_is_refused(loader, message):
    with pytest.raises(ValueError, match=message):
        problem_of(loader)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (3, "must be a DataLoader, or an iterable of batches .* got int"),
        (DataLoader(INPUTS, batch_size=4), r"targets\) does, got torch.Tensor of shape \(11, 2\)"),
        (DataLoader(TensorDataset(INPUTS), batch_size=4), r"got torch.Tensor of shape \(11, 2\)"),
        (
            [(INPUTS, TARGETS, TARGETS)],
            "got torch.Tensor of .*, torch.Tensor of .*, torch.Tensor of",
        ),
        ([{"inputs": INPUTS, "targets": TARGETS}], "got dict"),
        (
            [(torch.tensor(1.0), torch.tensor(2.0))],
            r"a row a sample, .* got torch.Tensor of shape \(\), torch",
        ),
        ([(INPUTS.numpy(), TARGETS.numpy())], "got numpy.ndarray, numpy.ndarray"),
    ],
)
def test_batches_that_are_no_pairs_of_tensors_are_refused(loader, message):
    with pytest.raises(TypeError, match=message):
        problem_of(loader)
