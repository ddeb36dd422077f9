"""Moments: the checkpoints of a trajectory as models, with the part of the training that each stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.checkpoints import Checkpoint
from upweight.training.optimiser_settings import OptimiserSettings
from upweight.training.trajectory import STATE, Trajectory

NO_CHECKPOINTS = (
    "this model has no checkpoints: record them in the training loop (upweight.Trajectory) and pass them as "
    "TorchModel(…, trajectory=trajectory)"
)


@dataclass(frozen=True, eq=False)
class CheckpointModel(Checkpoint):
    """A checkpoint with what the optimiser had in mind.

    Attributes:
        steps: the optimiser.
        state: reads the optimiser's tensors, `<kind of state>.<parameter>` → tensor.
    """

    steps: OptimiserSettings
    state: Callable[[], dict[str, Tensor]]

    def metric(self, names: tuple[str, ...]) -> dict[str, Tensor] | None:
        """P by which Adam multiplies a gradient, 1/(√v̂ + ε) by parameter; None for SGD, which takes it as it is.

        Parameters without second moments yet (before the first step) are left out.
        """
        if self.steps.kind == "SGD":
            return None
        state = self.state()
        found = {}
        for name in names:
            if f"exp_avg_sq.{name}" in state:
                grown = 1.0 - self.steps.beta ** float(state[f"step.{name}"])
                found[name] = 1.0 / ((state[f"exp_avg_sq.{name}"] / grown).sqrt() + self.steps.eps)
        return found


def read_checkpoints(
    trajectory: Trajectory | None, at: Callable[[dict[str, Tensor]], Any]
) -> tuple[CheckpointModel, ...]:
    """Every checkpoint; `at` makes a model of its tensors. Reads all files once, so that none fails later."""
    if trajectory is None:
        raise ValueError(NO_CHECKPOINTS)
    shares = _shares(trajectory.rates(), np.array([shard.step for shard in trajectory.shards]))
    assert trajectory.steps is not None
    return tuple(
        CheckpointModel(
            shard.step,
            trajectory.steps.gain * share,
            f"{shard.crc32:08x}",
            lambda place=place: at(trajectory.read(place)),  # type: ignore[misc]
            trajectory.steps,
            lambda place=place: _state(trajectory.read(place)),  # type: ignore[misc]
        )
        for place, (shard, share) in enumerate(zip(trajectory.shards, shares.tolist(), strict=True))
    )


def _state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(STATE): t for name, t in tensors.items() if name.startswith(STATE)}


def _shares(rates: NDArray[np.float64], steps: NDArray[np.intp]) -> NDArray[np.float64]:
    """Σ rates of the steps nearest to each checkpoint; step t leads from t − 1 to t and starts at t − 1."""
    if len(rates) == 0:
        raise ValueError("the trajectory has one checkpoint and no step: record the loop's steps")
    middles = (steps[1:] + steps[:-1]) / 2  # nearer to the one before, or to the one after
    nearest = np.searchsorted(middles, np.arange(len(rates)) + 0.5)
    return np.bincount(nearest, rates, minlength=len(steps)).astype(np.float64)
