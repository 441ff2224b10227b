"""A finite sum of losses: what a training loop minimises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._criteria import Criterion, mean_criterion
from sgd_analysis._validation import kind_of, samples
from sgd_analysis._weights import flat_weights, trainable
from sgd_analysis.problems.loaders import all_samples


@dataclass(frozen=True, eq=False)
class FiniteSum:
    r"""The mean over samples of `criterion(model(x), y)`: what a training loop minimises.

    .. math:: F(w) = \frac1N \sum_{i=1}^{N} \ell\bigl(\text{model}_w(x_i), y_i\bigr)

    The model's present parameters are the starting point. Nothing here changes them: whoever
    trains works on a copy.

    Args:
        model: any module with at least one trainable parameter.
        criterion: a callable (predictions, targets) -> scalar tensor, the **mean** over the
            samples it is given, for instance `torch.nn.MSELoss()`.
        inputs: (n_samples, ...) tensor or array.
        targets: (n_samples, ...) tensor or array.

    Raises:
        TypeError: if model is not a module, criterion is not callable, or inputs or targets are
            not dense and real.
        ValueError: if there is no sample, if inputs and targets differ in length, if one of them
            holds a value that is not finite or is masked, if the criterion does not take the
            plain mean, or if the model has nothing to train.

    Example:
        >>> import torch
        >>> from sgd_analysis import FiniteSum
        >>> model = torch.nn.Linear(4, 1)
        >>> FiniteSum(model, torch.nn.MSELoss(), torch.ones(7, 4), torch.ones(7, 1)).n_samples
        7
    """

    model: nn.Module
    criterion: Criterion
    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {kind_of(self.model)}")
        mean_criterion(self.criterion)
        # A frozen dataclass converts its fields through object.__setattr__.
        object.__setattr__(self, "inputs", samples("inputs", self.inputs))
        object.__setattr__(self, "targets", samples("targets", self.targets))
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                "inputs and targets must hold the same number of samples, got "
                f"{len(self.inputs)} and {len(self.targets)}"
            )
        if self.n_parameters == 0:
            raise ValueError(
                "model has no parameter with requires_grad=True: there is nothing to train"
            )

    @staticmethod
    def from_loader(
        model: nn.Module, criterion: Criterion, loader: Iterable[tuple[Tensor, Tensor]]
    ) -> FiniteSum:
        """Make a finite sum of all samples of a DataLoader's dataset.

        They are read once, in the dataset's own order, and kept as two tensors; how the loader
        batches, shuffles and drops the last batch is for `train` to say. With the same seed and
        batch size, `train` then visits the batches that a shuffling loader would.
        No random state is changed by reading; where a dataset draws random numbers (to augment
        images, say), the sum is over the samples of that one reading.

        Args:
            model: as for `FiniteSum`.
            criterion: as for `FiniteSum`.
            loader: a `torch.utils.data.DataLoader`, or any iterable of batches, each of them a
                pair of tensors (inputs, targets).

        Returns:
            The problem.

        Raises:
            TypeError: as `FiniteSum`, and if a batch is not a pair of tensors.
            ValueError: as `FiniteSum`, and if there is no batch, samples differ in shape, or the
                loader's sampler picks some of the samples.

        Example:
            >>> import torch
            >>> from torch.utils.data import DataLoader, TensorDataset
            >>> from sgd_analysis import FiniteSum
            >>> data = TensorDataset(torch.ones(7, 4), torch.ones(7, 1))
            >>> loader = DataLoader(data, batch_size=2, shuffle=True)
            >>> FiniteSum.from_loader(torch.nn.Linear(4, 1), torch.nn.MSELoss(), loader).n_samples
            7
        """
        inputs, targets = all_samples(loader)
        return FiniteSum(model, criterion, inputs, targets)

    @property
    def n_samples(self) -> int:
        """The number of samples N."""
        return len(self.inputs)

    @property
    def n_parameters(self) -> int:
        """The number P of trainable weights, all parameter tensors together."""
        return sum(parameter.numel() for parameter in trainable(self.model))

    @property
    def start(self) -> NDArray[np.floating]:
        """(n_parameters,) the model's present trainable weights, as one vector."""
        return flat_weights(trainable(self.model))
