"""RecordedSteps: a training gone back through step by step, on the way that its checkpoints mark."""

from __future__ import annotations

from functools import lru_cache
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.checkpoints import Checkpoint, Stepwise
from upweight.core.examples import Examples
from upweight.core.rows import Rows
from upweight.core.weights import example_counts
from upweight.gradients.batches import collate, placed
from upweight.gradients.network import Network
from upweight.training.adjoint import TrainingStep, pull_back
from upweight.training.optimiser_step import OptimiserState, initial_state
from upweight.training.run import CPU, Run
from upweight.training.second_order import SecondOrderProducts
from upweight.training.training_replay import ROOM
from upweight.training.trajectory import STATE, Trajectory

Array = NDArray[np.float64]
LONGER = 1.2  # times as long as at the end: from there on a cotangent is not followed


@final
class RecordedSteps(Stepwise):
    """Adjoints of the steps as they were recorded: batch, learning rate, momentum, weight decay, Adam's moments.

    Where a step was taken is not known but at checkpoints; between two of them parameters and moments are put on the
    straight line (buffers are the later one's). With a checkpoint at every step this is the derivative through the
    training itself (in eval mode, without clipping). Else the way back ends for a query where its cotangent is longer
    than at the end: a straight line cuts the corners of a training at the edge of stability, and adjoints grow on it as
    they do not in training.

    Args:
        trajectory: with `batches()`, and a checkpoint before the first step.
        network: the trained net.
        train: the training set, in any order.
        own: the examples' own weights (n,), by which their losses were multiplied before the batch's mean.
        checkpoints: for their names.
        fixed: whether that mean was over all rows of a batch, whatever they weigh, and not over those that count.

    Raises:
        ValueError: ids that the training set does not have; SGD with dampening.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        network: Network,
        train: Examples,
        own: Array,
        checkpoints: tuple[Checkpoint, ...],
        fixed: bool = False,
    ) -> None:
        taken = trajectory.batches()
        assert taken is not None and trajectory.steps is not None
        try:
            positions = [train.positions(ids) for ids in taken]
        except KeyError as error:
            raise ValueError(
                f"recorded steps took examples that the training set does not have ({error.args[0]}); `record` takes "
                "the ids of `Examples`, which are positions where none are given"
            ) from error
        training = trajectory.steps.training(trajectory.rates(), positions)
        there = network.elsewhere()
        there.net.eval()
        whole = placed(collate(train), CPU, there.dtype) if there.collate is collate else None
        self.steps, self.checkpoints = len(taken), checkpoints
        self.unseen = len(np.setdiff1d(np.flatnonzero(own), np.concatenate(positions)))
        self._run = Run(training, there, train, tuple(positions), training.rates(self.steps), [0] * self.steps, whole)
        self._products, self._own, self._trajectory = SecondOrderProducts(self._run), own, trajectory
        self._counts = (
            np.ones(len(own)) if fixed else example_counts(own)
        )  # how many examples each row is in its batch's mean
        self._marks = np.array([shard.step for shard in trajectory.shards])
        self._read = lru_cache(maxsize=2)(self._moment)
        self._apart = int(np.diff(self._marks).max())
        self.lost: dict[int, int] = {}

    def gradients(self, rows: Rows) -> Array:
        """∂m_q/∂wᵢ from the measurements' gradients (m, p) at the trained parameters: (m, n)."""
        network, states = self._run.network, 3 if self._run.training.optimiser != "sgd" else 2
        together = max(1, ROOM // (torch.finfo(network.dtype).bits // 8 * states * network.size))
        scores, self.lost = np.zeros((len(rows), len(self._own))), {}
        for first in range(0, len(rows), together):
            where = np.arange(first, min(first + together, len(rows)))
            after = torch.from_numpy(rows.take(where).dense()).to(network.device, network.dtype)
            scores[where] = self._backward(after)
        return scores * self._own

    def _backward(self, after: Tensor) -> Array:
        """∂⟨c, θ_T⟩/∂(own wᵢ) for cotangents c (m, p): (m, n)."""
        run = self._run
        held, scores = initial_state(run.training, after), np.zeros((len(after), len(self._own)))
        longest = LONGER * torch.linalg.vector_norm(after, dim=1)
        for t in reversed(range(self.steps)):
            step = self._step(t)
            before, held, u = pull_back(step, after, held)
            bent, along = self._products(step.theta, t, self._weights(t), u)
            after = bent.add_(before)
            np.add.at(scores.T, run.positions[t], along.double().cpu().numpy().T / self._over(t))
            grown = ~(torch.linalg.vector_norm(after, dim=1) <= longest)  # which no NaN is
            if self._apart > 1 and bool(grown.any()):
                self.lost[t] = self.lost.get(t, 0) + int(grown.sum())
                for carried in (after, held.first, held.second):
                    if carried is not None:
                        carried[grown] = 0.0
        return scores

    def _step(self, t: int) -> TrainingStep:
        """Step t where it lies between the checkpoints around it."""
        place = int(np.searchsorted(self._marks, t, side="right"))  # the first checkpoint after step t was taken
        theta, state, buffers = self._read(place)
        for name, buffer in self._run.network.net.named_buffers():
            buffer.copy_(buffers.get(name, buffer))
        left = float(self._marks[place] - t) / float(self._marks[place] - self._marks[place - 1])
        theta, state = _between((theta, state), self._read(place - 1)[:2], left)
        run = self._run
        gradient = theta
        if state.first is not None:
            gradient = self._products.weighted(theta, t, run.shares(t, self._weights(t))[None])[0]
        return TrainingStep(run.training, theta, state, gradient, t, float(run.rates[t]))

    def _over(self, t: int) -> float:
        """Over how many examples the mean of step t was taken; a batch that weighs nothing has no gradient."""
        return float(self._counts[self._run.positions[t]].sum()) or 1.0

    def _weights(self, t: int) -> Array:
        """Own weights (n,) such that the sum over step t by its number of rows is the mean over those that count."""
        return self._own * (len(self._run.positions[t]) / self._over(t))

    def _moment(self, place: int) -> tuple[Tensor, OptimiserState, dict[str, Tensor]]:
        """Parameters (p,), Adam's moments and buffers of a checkpoint; SGD's adjoint does not ask for its momentum."""
        network, tensors = self._run.network, self._trajectory.read(place)
        buffers = {name: tensors[name] for name, _ in network.net.named_buffers() if name in tensors}
        theta = torch.cat([tensors[name].reshape(-1) for name in network.names]).to(network.device)
        if self._run.training.optimiser == "sgd":
            return theta, OptimiserState(None, None), buffers
        found = []
        for kind in ("exp_avg", "exp_avg_sq"):
            parts = [tensors.get(f"{STATE}{kind}.{name}", torch.zeros_like(tensors[name])) for name in network.names]
            found.append(torch.cat([part.reshape(-1) for part in parts]).to(theta))
        return theta, OptimiserState(*found), buffers


def _between(
    after: tuple[Tensor, OptimiserState], before: tuple[Tensor, OptimiserState], left: float
) -> tuple[Tensor, OptimiserState]:
    """`left` of the way back from `after` to `before`."""
    (theta, state), (first, held) = after, before
    pairs = zip(state, held, strict=True)
    moved = [None if one is None or other is None else one.lerp(other, left) for one, other in pairs]
    return theta.lerp(first, left), OptimiserState(*moved)
