"""The training loop, step by step, with a recorder attached as to anyone's loop."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgd_analysis._criteria import batch_size_of, denominator_of, mean_loss, require_gradient
from sgd_analysis._weights import flat_weights, load_weights, trainable
from sgd_analysis.history.history import History
from sgd_analysis.problems.least_squares import LeastSquares
from sgd_analysis.recording.metadata import metadata_of
from sgd_analysis.recording.path_sum import PathSum
from sgd_analysis.recording.recorder import record
from sgd_analysis.stopping import StoppingRule, diverged
from sgd_analysis.surveying.survey import Survey
from sgd_analysis.surveying.surveyor import survey
from sgd_analysis.training.plan import Plan
from sgd_analysis.training.watch import Watch


@dataclass
class _Epoch:
    """What the steps of an epoch leave for the stopping rule."""

    losses: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    path: PathSum | None = None  # where the rule looks at it

    @property
    def path_gradient_norm(self) -> float:
        return math.nan if self.path is None else self.path.norm() / sum(self.sizes)


class TrainingLoop:
    """A run whose every update is made by an optimizer.

    Args:
        plan: the settings of the run.
        watch: says when to stop.
        model: what is trained.
        optimizer: of the model's trainable parameters.
    """

    def __init__(
        self, plan: Plan, watch: Watch, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        problem = plan.problem
        self.ended_by = diverged()  # unless a rule ends it
        self._plan, self._watch, self._model, self._optimizer = plan, watch, model, optimizer
        self._n_steps = 0
        self._parameters = trainable(model)
        self._criterion = problem.criterion
        self._data = problem.inputs, problem.targets
        self._gradient: Callable[[Tensor, Tensor], tuple[float, float, float]] = self._by_autograd
        self._denominator = denominator_of(problem.criterion)
        self._n_samples = batch_size_of(problem.criterion)
        if plan.in_closed_form and isinstance(problem, LeastSquares):
            dtype = self._parameters[0].dtype
            features = torch.from_numpy(problem.features.copy())
            self._data = features.to(dtype), problem.targets.to(dtype)
            self._gradient = self._by_formula
        for group in optimizer.param_groups:
            # On a CPU this is torch's choice anyway, made anew, and dearly, at every step.
            if group.get("foreach", False) is None and all(p.is_cpu for p in group["params"]):
                group["foreach"] = False
        self._recorder = record(optimizer)

    @property
    def history(self) -> History:
        """What was recorded so far."""
        metadata = metadata_of(self._optimizer, (self._criterion,))
        return replace(self._recorder.history, metadata=metadata)

    def epochs(self) -> Generator[NDArray[np.floating], None, None]:
        """Yield the weights (1, n_parameters) after each epoch; `ended_by` says why it ends."""
        with self._recorder as recorder:
            for batches in self._batches():
                epoch = self._descend(batches)
                if epoch is None:
                    return
                weights = flat_weights(self._parameters)[None]
                rule = self._verdict(epoch, weights)
                recorder.end_epoch()
                yield weights
                if rule is not None:
                    self.ended_by = rule
                    return

    def _descend(self, batches: Iterable[tuple[Tensor, Tensor]]) -> _Epoch | None:
        """Make a step for each batch of an epoch.

        Returns:
            What is known of the epoch, None if a loss is not finite.
        """
        parameters, gradient, step = self._parameters, self._gradient, self._optimizer.step
        observe, schedules = self._recorder.observe, callable(self._plan.step_size)
        epoch = _Epoch()
        if "path_gradient_norm" in self._watch.quantities:
            epoch.path = PathSum([p.detach().double() for p in parameters])
        for inputs, targets in batches:
            if schedules:
                self._set_step_size(self._plan.step_size_at(self._n_steps))
            loss, size, n_samples = gradient(inputs, targets)
            observe(loss, n_samples, size)
            if not math.isfinite(loss):
                self._step_without_update()
                return None
            if epoch.path is not None:
                epoch.path.add([p.grad for p in parameters], parameters, size)
            step()
            self._n_steps += 1
            epoch.losses.append(loss)
            epoch.sizes.append(size)
        return epoch

    def _batches(self) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
        inputs, targets = self._data
        size = self._plan.batch_size
        if size is None:
            yield from itertools.repeat([(inputs, targets)])
        else:
            for indices in self._plan.visits(size):
                # Gathering once and splitting costs far less than indexing batch by batch.
                yield zip(inputs[indices].split(size), targets[indices].split(size), strict=True)

    def _by_autograd(self, inputs: Tensor, targets: Tensor) -> tuple[float, float, float]:
        predictions = self._model(inputs)
        loss = mean_loss(self._criterion, predictions, targets)
        require_gradient(loss)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        sizes = self._denominator(predictions, targets), self._n_samples(predictions, targets)
        return loss.item(), float(sizes[0]), float(sizes[1])

    def _by_formula(self, features: Tensor, targets: Tensor) -> tuple[float, float, float]:
        (parameter,) = self._parameters
        residual = features @ parameter.detach().flatten() - targets
        gradient = residual @ features * (2 / residual.shape[0])
        parameter.grad = gradient.view_as(parameter)
        n_samples = float(residual.shape[0])
        return (residual @ residual / n_samples).item(), n_samples, n_samples

    def _set_step_size(self, eta: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = eta

    def _step_without_update(self) -> None:
        """Have a step recorded, but take its update back."""
        weights = flat_weights(self._parameters)
        self._optimizer.step()
        load_weights(self._parameters, weights)

    def _verdict(self, epoch: _Epoch, weights: NDArray[np.floating]) -> StoppingRule | None:
        @functools.cache
        def at_end() -> Survey:
            return survey(self._model, self._criterion, [self._data], memory=0)

        others = {
            "empirical_risk": lambda: np.array([at_end().empirical_risk]),
            "full_gradient_norm": lambda: np.array([at_end().full_gradient_norm]),
            "path_gradient_norm": lambda: np.array([epoch.path_gradient_norm]),
        }
        losses, sizes = np.array([epoch.losses]), np.array(epoch.sizes)
        return self._watch.after(losses, sizes, weights, **others)
