"""The record of a trajectory's steps: learning rates, batches, shares, modes and random numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.training.checkpoint_file import BATCHES, GROUP_RATES, MODES, RANDOM, RATES, SHARES, require_rates
from upweight.training.module_modes import decode_modes
from upweight.training.optimiser_settings import OptimiserSettings
from upweight.training.recorded_batches import Batch, decode_batches, decode_shares
from upweight.training.recorded_rates import RecordedRates, join
from upweight.training.trajectory_manifest import Shard


class RecordedSequence(ABC):
    """The steps that a folder of checkpoints describes.

    Attributes:
        folder: the folder.
        shards: its checkpoints.
        steps: the settings of the optimiser; None before the first step.
    """

    folder: Path
    shards: Sequence[Shard]
    steps: OptimiserSettings | None

    @abstractmethod
    def _recorded(self) -> list[dict[str, Tensor]]:
        """The tensors that describe the steps before every checkpoint."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts about the training that a reader of the scores should know, as sentences."""
        if self.steps is None or self.steps.groups is None or self.recorded_rates().groups is None:
            return ()
        return (
            "Learning rates of the recorded training differ between parameter groups: TracIn, GAS and SOURCE by "
            "segments take their mean, SOURCE by steps follows each.",
        )

    def rates(self) -> NDArray[np.float64]:
        """The learning rate of every step up to the last checkpoint, (steps,); the mean if parameter groups differ."""
        return self.recorded_rates().mean

    def recorded_rates(self) -> RecordedRates:
        """Learning rates of every step up to the last checkpoint. Every file is read once, and checked."""
        recorded = self._recorded()
        stored = [tensors[RATES].numpy() for tensors in recorded]
        for shard, rates, previous in zip(self.shards, stored, [0, *(s.step for s in self.shards)], strict=False):
            require_rates(shard, rates, previous)
        return join(stored, [t[GROUP_RATES].numpy() if GROUP_RATES in t else None for t in recorded])

    def batches(self) -> list[Batch] | None:
        """The ids of the examples that every step took, or of all its batches; None if no step recorded them.

        Raises ValueError if only some of the steps recorded them.
        """
        stored = [(len(tensors[RATES]), tensors.get(BATCHES)) for tensors in self._recorded()]
        recorded = [batches for _, batches in stored if batches is not None]
        if not recorded:
            return None
        if len(recorded) < sum(steps > 0 for steps, _ in stored):
            raise ValueError(
                f"{self.folder} says which examples took part for some of its steps only; pass batch= to record in "
                "every step, or ask for segments=3, which does not need it"
            )
        return [ids for batches in recorded for ids in decode_batches(batches)]

    def shares(self) -> list[NDArray[np.float64]] | None:
        """The factors of the examples' losses in the objective of every step; None if they were not recorded."""
        recorded = [steps for steps in self._recorded() if len(steps[RATES])]
        if all(SHARES not in steps for steps in recorded):
            return None
        if any(SHARES not in steps or BATCHES not in steps for steps in recorded):
            raise ValueError(
                f"{self.folder} has the shares of its examples for some of its steps only; pass shares= to record in "
                "every step or in none"
            )
        return [shares for steps in recorded for shares in decode_shares(steps[SHARES], steps[BATCHES])]

    def modes(self) -> tuple[str, ...] | None:
        """The modules in training mode, as in `set_modes`; None if steps differ or an earlier version recorded them."""
        recorded = [steps.get(MODES) for steps in self._recorded() if len(steps[RATES])]
        modes = {None if stored is None else decode_modes(stored) for stored in recorded}
        return modes.pop() if len(modes) == 1 else None

    def random_states(self) -> list[Tensor] | None:
        """The state of torch's random numbers at the beginning of every step; None if not all steps recorded it."""
        recorded = [steps for steps in self._recorded() if len(steps[RATES])]
        if not all(RANDOM in steps for steps in recorded):
            return None
        return [state for steps in recorded for state in steps[RANDOM]]
