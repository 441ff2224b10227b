"""What a step of an optimizer works on: its parameters, their gradients, its step sizes."""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sgd_analysis._arrays import Value
from sgd_analysis.recording import shards
from sgd_analysis.recording.gradients import on_this_process, unscaled
from sgd_analysis.recording.values import number


class Parameters:
    """The parameters of an optimizer, in the order in which they were seen first.

    One that is taken out of it keeps its place, without a gradient from there on.

    Args:
        optimizer: whose.
        names: of some or all of them; the others have that which the optimizer knows, or the
            number of their place.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str] | None = None
    ) -> None:
        self._optimizer: Callable[[], Any] = weakref.ref(optimizer)  # who makes steps is alive
        self._names = names or {}
        self.is_sharded = shards.is_sharded(optimizer.param_groups)
        self.seen: list[Tensor] = []
        self.shards: list[shards.Shard] = []  # of those seen, where they are sharded
        self.sizes: dict[str, int] = {}  # by name, of those seen: the entries this process has
        self._present: list[Tensor] = []  # those it has, as they were found last
        self._removed: set[Tensor] = set()
        self._kind: tuple[torch.dtype, bool] | None = None
        self.follow()
        self._versions = self._present_versions()

    def have_changed(self) -> bool:
        """Return whether some were added, taken out or converted since they were followed last."""
        groups = self._optimizer().param_groups
        found, known = groups[0]["params"], self._present
        if len(groups) > 1:
            found = [parameter for group in groups for parameter in group["params"]]
        if len(found) != len(known) or not all(map(operator.is_, found, known)):
            return True
        # By model.double(), or model.to(device):
        return bool(found) and (found[0].dtype, found[0].is_cpu) != self._kind

    def follow(self) -> None:
        """Take the parameters as they are now."""
        groups = self._optimizer().param_groups
        self._present = [parameter for group in groups for parameter in group["params"]]
        self._removed = set(self.seen) - set(self._present)
        self.seen = list(dict.fromkeys([*self.seen, *self._present]))
        first = self._present[0] if self._present else None
        self._kind = None if first is None else (first.dtype, first.is_cpu)
        if self.is_sharded:
            self.shards = shards.shards_of(self.seen)
        self.sizes = self._sizes()

    def have_moved(self) -> bool:
        """Return whether they were written to since the recording began."""
        return self._present_versions() != self._versions

    def weights(self) -> list[Tensor]:
        """Return this process's parts of them, where it is the one that answers for these."""
        weights = [on_this_process(parameter.detach()) for parameter in self.seen]
        if self.is_sharded:
            weights = [w for w, s in zip(weights, self.shards, strict=True) if s["answers"]]
        return weights

    def held(self) -> list[Tensor | None]:
        """Return the gradients that there are now, as they are."""
        gradients = [parameter.grad for parameter in self.seen]
        if self._removed:
            pairs = zip(gradients, self.seen, strict=True)
            gradients = [None if p in self._removed else gradient for gradient, p in pairs]
        return shards.own_shards(gradients, self.shards) if self.is_sharded else gradients

    def gradients(self) -> tuple[list[Tensor | None], Value]:
        """Return the gradients that a step uses now, and whether it is skipped: they overflow."""
        gradients, optimizer = self.held(), self._optimizer()
        overflow = getattr(optimizer, "found_inf", None)  # set by a GradScaler
        if not isinstance(overflow, Tensor):
            return gradients, False
        scale = getattr(optimizer, "grad_scale", None)
        gradients = unscaled(gradients, 1.0 if scale is None else scale, overflow)
        return gradients, bool(overflow) if overflow.is_cpu else overflow > 0

    def step_sizes(self) -> list[Value]:
        """Return the step size of each group; nan where an optimizer has none."""
        return [
            lr if type(lr := group.get("lr", math.nan)) is float else number(lr)
            for group in self._optimizer().param_groups
        ]

    def _sizes(self) -> dict[str, int]:
        known: dict[Tensor, str] = {}
        for group in self._optimizer().param_groups:
            known |= dict(zip(group["params"], group.get("param_names", ()), strict=False))
        known |= self._names
        sizes: dict[str, int] = {}
        for place, parameter in enumerate(self.seen):
            name = known.get(parameter, str(place))
            while name in sizes:  # of one added without a name
                name += "'"
            sizes[name] = on_this_process(parameter).numel()
        return sizes

    def _present_versions(self) -> list[int]:
        return [parameter._version for parameter in self._present]
