"""Parameter groups: parameters with a learning rate or weight decay of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.modules import chosen_parameters

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters with a learning rate or weight decay of their own, as a parameter group of `torch.optim`.

    Args:
        parameters: patterns of names (`"*.bias"`, `["head", "*.norm*"]`), of parameters or of modules that hold them.
        lr: the learning rate, or one for every step; it follows the training's schedule and warm-up. None: that of the
            training.
        weight_decay: λ. None: that of the training.

    Raises:
        ValueError: a negative weight decay.
    """

    parameters: str | Sequence[str]
    lr: float | Sequence[float] | NDArray[np.float64] | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and np.ndim(self.lr):
            object.__setattr__(self, "lr", tuple(np.asarray(self.lr, dtype=np.float64).tolist()))
        if not isinstance(self.parameters, str):
            object.__setattr__(self, "parameters", tuple(self.parameters))
        if self.weight_decay is not None and not 0 <= self.weight_decay < np.inf:
            raise ValueError(f"expected weight_decay to be a number ≥ 0, got {self.weight_decay}")


@dataclass(frozen=True, eq=False)
class StepSettings:
    """The learning rate and the weight decay of every parameter in every step.

    Attributes:
        rates: η_t, (steps,), or one row per parameter (names, steps) if they differ.
        decays: λ, or one for every parameter (names,) if they differ.
        sizes: how many numbers each parameter has, (names,).
        like: a tensor of the precision and device of the parameters.
    """

    rates: Array
    decays: float | Array
    sizes: list[int]
    like: Tensor

    @classmethod
    def of(cls, training: Any, steps: int, parameters: Mapping[str, Tensor]) -> StepSettings:
        """The groups of a training of this many steps for these parameters.

        Raises ValueError for a pattern that matches nothing, and for a parameter in two groups.
        """
        rates, names = training.rates(steps), list(parameters)
        by_name: dict[str, ParameterGroup] = {}
        for group in training.groups:
            for name in chosen_parameters(group.parameters, names):
                if name in by_name:
                    raise ValueError(f"expected every parameter in one group at most, got {name!r} in two")
                by_name[name] = group
        groups = [by_name.get(name) for name in names]
        if any(g is not None and g.lr is not None for g in groups):
            rates = np.stack([rates if g is None or g.lr is None else training.rates(steps, g.lr) for g in groups])
        decays: Any = [training.weight_decay if g is None or g.weight_decay is None else g.weight_decay for g in groups]
        decays = decays[0] if len(set(decays)) == 1 else np.array(decays)
        like = parameters[names[0]].detach()
        return cls(rates, decays, [p.numel() for p in parameters.values()], like)

    def rate(self, t: int) -> float | Tensor:
        """η_t: a number, or (p,) if parameters differ."""
        return float(self.rates[t]) if self.rates.ndim == 1 else self._spread(self.rates[:, t])

    @cached_property
    def decay(self) -> float | Tensor:
        """λ: a number, or (p,) if parameters differ."""
        return self._spread(self.decays) if isinstance(self.decays, np.ndarray) else self.decays

    def rate_of(self, position: int, t: int) -> float:
        """η_t of the parameter at this position."""
        return float(self.rates[t] if self.rates.ndim == 1 else self.rates[position, t])

    def decay_of(self, position: int) -> float:
        """λ of the parameter at this position."""
        return float(self.decays[position]) if isinstance(self.decays, np.ndarray) else self.decays

    def _spread(self, values: Array) -> Tensor:
        return torch.repeat_interleave(torch.from_numpy(np.ascontiguousarray(values)), torch.tensor(self.sizes)).to(
            self.like
        )
