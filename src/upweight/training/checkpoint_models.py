"""The checkpoints of a trajectory as models, each with the part of the training that it represents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.checkpoints import Checkpoint
from upweight.training.checkpoint_file import optimiser_tensors
from upweight.training.optimiser_settings import OptimiserSettings
from upweight.training.optimiser_updates import optimiser_updates
from upweight.training.trajectory import Trajectory

Array = NDArray[np.float64]
NO_CHECKPOINTS = (
    "this model has no checkpoints: record them in the training loop (upweight.Trajectory) and pass them as "
    "TorchModel(…, trajectory=trajectory)"
)


@dataclass(frozen=True, eq=False)
class CheckpointModel(Checkpoint):
    """A checkpoint with the settings and the state of the optimiser.

    Attributes:
        optimiser: the settings.
        state: reads the optimiser's tensors, `<kind of state>.<parameter>` → tensor.
        scale: what the sum of the losses of a step was multiplied by, times the examples of the step: 1 for a mean over
            examples, one over the tokens of an example for a mean over tokens.
    """

    optimiser: OptimiserSettings
    state: Callable[[], dict[str, Tensor]]
    scale: float = 1.0

    def updates(self, model: Any, gradients: Array, *, momentum: bool = True) -> Array:
        """The updates of the optimiser, by its moments, if its next step had one of these gradients (k, p) alone.

        Weight decay, the same for all, is left out. Raises ValueError for a model with other parameters.
        """
        return optimiser_updates(self.optimiser, self.state(), model.network, gradients * self.scale, momentum)

    def inverse_roots(self, model: Any) -> Array:
        """1/(√v̂ + ε) of Adam and RMSprop of every parameter, (p,).

        Raises ValueError for SGD, and for parameters without second moments.
        """
        sizes = {name: parameter.numel() for name, parameter in model.network.parameters().items()}
        metric = self.metric(tuple(sizes)) or {}
        if any(name not in metric or metric[name].numel() != size for name, size in sizes.items()):
            raise ValueError(
                f"expected second moments of all parameters, which {self.optimiser.kind} has not recorded at step "
                f'{self.step}; pass second_moments="gradients"'
            )
        return np.concatenate([metric[name].double().cpu().numpy().reshape(-1) for name in sizes])

    def metric(self, names: tuple[str, ...]) -> dict[str, Tensor] | None:
        """The factors P = 1/(√v̂ + ε) of Adam and RMSprop on a gradient, by parameter; None for SGD, which has none.

        Parameters that have no second moments yet (before the first step) are left out.
        """
        if self.optimiser.kind == "SGD":
            return None
        state, beta = self.state(), self.optimiser.beta
        metric = {}
        for name in names:
            if f"exp_avg_sq.{name}" in state:
                second = state[f"exp_avg_sq.{name}"] / (1.0 - beta ** float(state[f"step.{name}"]))
            elif f"square_avg.{name}" in state:
                second = state[f"square_avg.{name}"]
                if self.optimiser.centred:
                    second = second - state[f"grad_avg.{name}"].square()
            else:
                continue
            metric[name] = 1.0 / (second.sqrt() + self.optimiser.eps)
        return metric


def read_checkpoints(
    trajectory: Trajectory | None, make_model: Callable[[dict[str, Tensor]], Any]
) -> tuple[CheckpointModel, ...]:
    """All checkpoints of the trajectory; `make_model` makes a model of the tensors of one.

    Reads all files once, so that a damaged one is noticed now.
    """
    if trajectory is None:
        raise ValueError(NO_CHECKPOINTS)
    rates = _sum_nearest_rates(trajectory.rates(), np.array([shard.step for shard in trajectory.shards]))
    assert trajectory.steps is not None
    shares = trajectory.shares()
    scale = 1.0 if shares is None else float(np.mean([step.sum() for step in shares]))
    return tuple(
        CheckpointModel(
            shard.step,
            trajectory.steps.gain * rate,
            f"{shard.crc32:08x}",
            lambda position=position: make_model(trajectory.read(position)),  # type: ignore[misc]
            trajectory.steps,
            lambda position=position: optimiser_tensors(trajectory.read(position)),  # type: ignore[misc]
            scale,
        )
        for position, (shard, rate) in enumerate(zip(trajectory.shards, rates.tolist(), strict=True))
    )


def _sum_nearest_rates(rates: NDArray[np.float64], steps: NDArray[np.intp]) -> NDArray[np.float64]:
    """For each checkpoint, the sum of the rates of the steps nearest to it.

    Step t leads from t − 1 to t; its position is the middle of the two.
    """
    if len(rates) == 0:
        raise ValueError("the trajectory has one checkpoint and no step: record the loop's steps")
    middles = (steps[1:] + steps[:-1]) / 2  # a step before a middle is nearer to the checkpoint before it
    nearest = np.searchsorted(middles, np.arange(len(rates)) + 0.5)
    return np.bincount(nearest, rates, minlength=len(steps)).astype(np.float64)
