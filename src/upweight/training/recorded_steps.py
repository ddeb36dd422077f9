"""A recorded training, differentiated step by step along the path that its checkpoints mark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.blocks import blocks
from upweight.core.checkpoints import Checkpoint, Stepwise
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.rows import DenseRows, Rows
from upweight.core.weights import example_counts
from upweight.gradients.batches import collate, to_device
from upweight.gradients.network import BATCH_NORMS, Network
from upweight.training.adjoint import TrainingStep, pull_back
from upweight.training.batch_statistics import statistic_gradients
from upweight.training.checkpoint_file import STATE
from upweight.training.initial_network import trainable_copy
from upweight.training.module_modes import set_modes
from upweight.training.optimiser_step import OptimiserState, initial_state, state_names
from upweight.training.recorded_batches import Batch, positions_of
from upweight.training.run import CPU, Run, take_steps
from upweight.training.second_order import SecondOrderProducts
from upweight.training.step_check import StepCheck
from upweight.training.step_mismatches import explain
from upweight.training.training_replay import COTANGENT_BYTES
from upweight.training.trajectory import NO_RANDOM_STATES, Trajectory

Array = NDArray[np.float64]
ADJOINT_STATES = {  # torch's name of each state that the adjoint of a rule needs
    "adam": {"first": "exp_avg", "second": "exp_avg_sq"},
    "adamw": {"first": "exp_avg", "second": "exp_avg_sq"},
    "rmsprop": {"second": "square_avg", "mean": "grad_avg"},
}
MAX_GROWTH = 1.2  # the backward pass of a query ends where its cotangent is longer than this times its first length


@final
class RecordedSteps(Stepwise):
    """Adjoints of the steps as they were recorded: batch, learning rate, momentum, weight decay, Adam's moments.

    Parameters and moments are known at checkpoints only. Between two checkpoints they are interpolated linearly;
    buffers are those of the later checkpoint. Batch norms are in the mode of the training, and all other modules too if
    the random numbers of every step were recorded. With a checkpoint at every step this is the derivative through the
    training itself. Otherwise the backward pass of a query ends early if its cotangent
    becomes longer than at the end of training: a straight line cuts the corners of a training at the edge of stability,
    and adjoints grow on it as they do not grow in training.

    Args:
        trajectory: with a checkpoint before the first step.
        batches: its `batches()`.
        network: the trained net.
        train: the training set, in any order.
        sample_weights: the examples' own weights (n,), which multiplied their losses before the batch's mean.
        checkpoints: the checkpoints of the trajectory, for their names.
        fixed: whether that mean was over all rows of a batch, rather than over the examples that the rows count for.

    `training_modules`: batch norms and dropouts that are in training mode, as they were in the training.

    `max_growth`: the backward pass of a query ends where its cotangent is longer than this times its first length.

    Raises:
        ValueError: ids that the training set does not have; SGD with dampening.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        batches: list[Batch],
        network: Network,
        train: Examples,
        sample_weights: Array,
        checkpoints: tuple[Checkpoint, ...],
        fixed: bool = False,
    ) -> None:
        assert trajectory.steps is not None
        steps = [positions_of(train, ids) for ids in batches]
        training = trajectory.steps.training(trajectory.recorded_rates(), steps, network.names)
        positions = training.drawn(np.arange(len(train)), 0)
        training = replace(training, augment=trajectory.augment)
        copy = trainable_copy(network)
        random_states = self._set_mode(copy.net, trajectory)
        kinds: dict[str, Any] = {"batch norm": BATCH_NORMS, "dropout": nn.modules.dropout._DropoutNd}
        modules = [(name, module) for name, module in copy.net.named_modules() if module.training]
        self.training_modules = [
            f"{k} {name!r}" for k, kind in kinds.items() for name, m in modules if isinstance(m, kind)
        ]
        collated = to_device(collate(train), CPU, copy.dtype) if copy.collate is collate else None
        self.steps, self.checkpoints = len(batches), checkpoints
        self.unseen = len(np.setdiff1d(np.flatnonzero(sample_weights), np.concatenate(positions)))
        self._run = Run(training, copy, train, positions, [0] * self.steps, collated, random_states)
        _load_buffers(copy.net, trajectory.read(0))
        self._products = SecondOrderProducts(self._run)
        self._sample_weights, self._trajectory = sample_weights, trajectory
        # How many examples each row counts for in its batch's mean.
        self._recorded_shares = trajectory.shares()
        self._counts = np.ones(len(sample_weights)) if fixed else example_counts(sample_weights)
        self._checkpoint_steps = np.array([shard.step for shard in trajectory.shards])
        self._read = lru_cache(maxsize=2)(self._read_checkpoint)
        self._largest_gap = int(np.diff(self._checkpoint_steps).max())
        self._tensors: Callable[[int], dict[str, Tensor]] = lru_cache(maxsize=2)(trajectory.read)
        self._check = StepCheck(self._run, trajectory, self._tensors, trajectory.steps, self._point, self._shares)
        mismatches = self._check.compare()
        self.checked, self.contradictions = mismatches.checked, explain(self._check, mismatches)
        self._tensors = trajectory.read
        self.max_growth = MAX_GROWTH
        self.lost: dict[int, int] = {}

    @staticmethod
    def _set_mode(net: nn.Module, trajectory: Trajectory) -> list[Tensor] | None:
        """Put the net in the mode of the training; returns the random states of the steps if they were recorded.

        Without them only batch norms are in training mode, because the random numbers of other modules are not known.
        """
        modes, states = trajectory.modes(), trajectory.random_states()
        net.eval()
        if trajectory.augment is not None and states is None:
            raise ValueError(NO_RANDOM_STATES)
        if modes is not None:
            set_modes(net, modes, norms_alone=states is None)
        return states

    def outcome_rows(self, model: Any, queries: Examples) -> Rows:
        """Gradients of the measurement in parameters and running statistics of batch norms."""
        rows: Rows = model.measure_rows(queries)
        if self._products.statistics is None:
            return rows
        of_statistics = statistic_gradients(model.network, queries, self._products.statistics.names)
        return DenseRows(np.concatenate([rows.dense(), of_statistics], axis=1))

    def retrained(self, model: Any, weights: Array) -> list[Any]:
        """The models that the steps train with these example weights (k, n); none for a training that they are not."""
        initial = self._trajectory.read(0)
        begins_later = any(name.startswith(STATE) and bool(tensor.any()) for name, tensor in initial.items())
        if self.contradictions or not self.checked or begins_later:
            return []
        tensors = (self._retrained_tensors(row) for row in weights)
        return [model.with_tensors(trained) for trained in counted(tensors, len(weights))]

    def _retrained_tensors(self, weights: Array) -> dict[str, Tensor]:
        """Parameters and buffers after all steps with these example weights (n,)."""
        run, shares = self._run, self._all_shares
        theta, _, buffers = self._read(0)
        _load_buffers(run.network.net, buffers)
        theta = take_steps(
            run, theta.clone(), lambda t: shares[t] * torch.from_numpy(weights[run.positions[t]]).to(theta)
        )
        trained = dict(zip(run.network.names, run.split(theta), strict=True))
        return trained | {name: buffer.clone() for name, buffer in run.network.net.named_buffers()}

    def gradients(self, rows: Rows) -> Array:
        """∂m_q/∂wᵢ from the measurements' gradients (m, p) at the trained parameters: (m, n)."""
        network, vectors_per_query = self._run.network, 2 + len(state_names(self._run.training))
        bytes_per_query = torch.finfo(network.dtype).bits // 8 * vectors_per_query * network.size
        scores, self.lost = np.zeros((len(rows), len(self._sample_weights))), {}
        for part in blocks(len(rows), max(1, COTANGENT_BYTES // bytes_per_query)):
            positions = np.arange(part.start, part.stop)
            cotangents = torch.from_numpy(rows.take(positions).dense()).to(network.device, network.dtype)
            scores[positions] = self._backward(cotangents)
        return scores * self._sample_weights

    def _backward(self, cotangents: Tensor) -> Array:
        """∂⟨c, θ_T⟩/∂(sample weight · wᵢ) for cotangents c (m, p): (m, n)."""
        run, size = self._run, self._run.network.size
        cotangents, statistics = cotangents[:, :size], cotangents[:, size:]
        state_cotangents = initial_state(run.training, cotangents)
        scores = np.zeros((len(cotangents), len(self._sample_weights)))
        longest = self.max_growth * torch.linalg.vector_norm(cotangents, dim=1)
        for t in counted(reversed(range(self.steps)), self.steps):
            step = self._step(t)
            before, state_cotangents, u = pull_back(step, cotangents, state_cotangents)
            products = self._products(step.theta, t, self._shares(run, t), u, statistics)
            statistics = products.cotangents
            cotangents = products.parameters.add_(before)
            slopes = products.examples.double().cpu().numpy() * self._factors(run, t)
            np.add.at(scores.T, run.positions[t], slopes.T)
            too_long = ~(torch.linalg.vector_norm(cotangents, dim=1) <= longest)  # also true for NaN
            if self._largest_gap > 1 and bool(too_long.any()):
                self.lost[t] = self.lost.get(t, 0) + int(too_long.sum())
                for vectors in (cotangents, statistics, *state_cotangents.values()):
                    vectors[too_long] = 0.0
        return scores

    def _step(self, t: int) -> TrainingStep:
        """Step t, at parameters and moments interpolated between the checkpoints before and after it."""
        theta, state = self._point(t)
        run = self._run
        gradient = theta
        if state or run.training.clip is not None:
            gradient = self._products.sum_gradients(theta, t, self._shares(run, t)[None])[0]
        return TrainingStep(run.training, theta, state, gradient, run.factors(t))

    def _point(self, t: int) -> tuple[Tensor, OptimiserState]:
        """Parameters and Adam's moments before step t, on the straight line; loads the buffers into the net."""
        steps = self._checkpoint_steps
        position = int(np.searchsorted(steps, t, side="right"))  # the first checkpoint after step t was taken
        theta, state, buffers = self._read(position)
        _load_buffers(self._run.network.net, buffers)
        share = float(steps[position] - t) / float(steps[position] - steps[position - 1])
        return _interpolate((theta, state), self._read(position - 1)[:2], share)

    def _factors(self, run: Run, t: int) -> Array:
        """The factor of every example's weighted loss in the objective of step t, (batch,): as recorded, or of a mean.

        The mean is that over its batch, divided by the number of batches. If all weights of a batch are 0, its gradient
        is 0, and so is every score.
        """
        if self._recorded_shares is not None:
            return self._recorded_shares[t]
        counts, passes = self._counts[run.positions[t]], run.passes(t)
        factors = [1.0 / ((float(counts[part].sum()) or 1.0) * len(passes)) for part in passes]
        return np.repeat(factors, [part.stop - part.start for part in passes])

    def _shares(self, run: Run, t: int) -> Tensor:
        """The factor of each loss in the objective of step t, (batch,)."""
        shares = self._sample_weights[run.positions[t]] * self._factors(run, t)
        return torch.from_numpy(shares).to(run.network.device, run.network.dtype)

    @cached_property
    def _all_shares(self) -> list[Tensor]:
        """Those of every step, for trainings that are repeated."""
        return [self._shares(self._run, t) for t in range(self.steps)]

    def _read_checkpoint(self, position: int) -> tuple[Tensor, OptimiserState, dict[str, Tensor]]:
        """Parameters (p,), second moments and buffers of a checkpoint, and Adam's first; adjoints need no momentum."""
        network, tensors = self._run.network, self._tensors(position)
        buffers = {name: tensors[name] for name, _ in network.net.named_buffers() if name in tensors}
        theta = torch.cat([tensors[name].reshape(-1) for name in network.names]).to(network.device)
        state = {}
        for name, kind in ADJOINT_STATES.get(str(self._run.training.optimiser), {}).items():
            if name in state_names(self._run.training):
                parts = [tensors.get(f"{STATE}{kind}.{n}", torch.zeros_like(tensors[n])) for n in network.names]
                state[name] = torch.cat([part.reshape(-1) for part in parts]).to(theta)
        return theta, state, buffers


def _load_buffers(net: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            buffer.copy_(values.get(name, buffer))


def _interpolate(
    after: tuple[Tensor, OptimiserState], before: tuple[Tensor, OptimiserState], share: float
) -> tuple[Tensor, OptimiserState]:
    """Parameters and moments on the straight line from `after` (share 0) to `before` (share 1)."""
    (theta_after, state_after), (theta_before, state_before) = after, before
    state = {name: moment.lerp(state_before[name], share) for name, moment in state_after.items()}
    return theta_after.lerp(theta_before, share), state
