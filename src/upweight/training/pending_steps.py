"""The steps that a trajectory recorded since its last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from upweight.training.checkpoint_file import BATCHES, GROUP_RATES, MODES, RANDOM, RATES, SHARES
from upweight.training.module_modes import read_modes
from upweight.training.recorded_batches import Batch, encode_batches, ids_of_step, shares_of_step
from upweight.training.recorded_rates import mean_rate


class PendingSteps:
    """Learning rates, batches and shares of consecutive steps, until they are written to a checkpoint."""

    def __init__(self) -> None:
        self._means: list[float] = []
        self._rates: list[Sequence[float]] = []
        self._batches: list[Batch] = []
        self._shares: list[list[float]] = []
        self._random: list[Tensor] = []
        self._modes: dict[bytes, Tensor] = {}

    @property
    def rate_sum(self) -> float:
        """The sum of the learning rates."""
        return float(sum(self._means))

    def add(self, step: int, rates: Sequence[float], sizes: Sequence[int], batch: Any, shares: Any) -> None:
        """Add the step with this number, its learning rates and sizes by parameter group, its batch and shares.

        Raises ValueError for a batch or shares of another form, or that earlier steps had and this one lacks.
        """
        for name, given, recorded in (("batch", batch, self._batches), ("shares", shares, self._shares)):
            if self._means and (given is not None) != (len(recorded) == len(self._means)):
                raise ValueError(f"expected {name}= in every step or in none, step {step + 1} differs from the others")
        if shares is not None:
            self._shares.append(shares_of_step(step, shares, batch))
        if batch is not None:
            self._batches.append(ids_of_step(step, batch))
        self._means.append(mean_rate(rates, sizes))
        self._rates.append(rates)

    def add_modes(self, net: nn.Module, random_state: Tensor | None) -> None:
        """Add what the latest step needs to be made again: modes of the modules, and the random numbers at its start.

        Raises ValueError if earlier steps had random numbers and this one has none, or the other way round.
        """
        if random_state is not None:
            self._random.append(random_state)
        if len(self._random) not in (0, len(self._means)):
            raise ValueError("expected trajectory.start_step() in every step or in none, but some steps lack it")
        modes = read_modes(net)
        self._modes[bytes(modes.numpy())] = modes

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint that describe the steps."""
        tensors = {RATES: torch.tensor(self._means, dtype=torch.float64)}
        if any(len(set(rates)) > 1 for rates in self._rates):
            count = max(len(rates) for rates in self._rates)
            padded = [[*rates, *[0.0] * (count - len(rates))] for rates in self._rates]
            tensors[GROUP_RATES] = torch.tensor(padded, dtype=torch.float64)
        if self._batches:
            tensors[BATCHES] = encode_batches(self._batches)
        if self._shares:
            tensors[SHARES] = torch.tensor([share for step in self._shares for share in step], dtype=torch.float64)
        if self._random:
            tensors[RANDOM] = torch.stack(self._random)
        if len(self._modes) == 1:  # else modules changed their mode between checkpoints
            tensors[MODES] = next(iter(self._modes.values()))
        return tensors
