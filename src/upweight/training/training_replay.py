"""A training run that can be replayed: backward for many queries, or forward for many groups."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.blocks import blocks
from upweight.core.forecast import counted
from upweight.core.identity import digest
from upweight.core.replay import Replay
from upweight.core.rows import Rows
from upweight.training.adjoint import TrainingStep, limit_growth, pull_back, push_forward
from upweight.training.optimiser_step import AVERAGE, initial_state, state_names, trained_parameters
from upweight.training.replay_checkpoint import BackwardState, ReplayCheckpoint
from upweight.training.run import Run, TrainingState, initial_training_state, iterate_steps, require_finite
from upweight.training.second_order import VECTOR_BYTES, SecondOrderProducts
from upweight.training.update_rule import UpdateRule

Array = NDArray[np.float64]
STATISTICS = "statistics"  # the name of the running statistics among the states of a backward pass
COTANGENT_BYTES = 1 << 30  # memory for the cotangents of one backward pass


class TrainingReplay(Replay):
    """A run with these example weights, whose derivatives in the weights are exact.

    Args:
        run: the steps.
        weights: (n,), multiplied by the examples' own.
        sample_weights: the examples' own weights (n,).
        cotangent_bytes: memory for the cotangents of one backward pass; more queries are split.
        vector_bytes: memory for the vectors of one pass of second-order products.

    Parameters and optimiser state before every √T-th step are stored, and the steps in between are made again when
    they are needed (Griewank & Walther 2000). This takes memory for 2√T steps, and the time of one more training.

    Raises:
        ValueError: batches that depend on the weights, so that there is no derivative; statistics that a module of the
            net updates itself; a step whose gradient changes when it is made again; training that diverged.
    """

    def __init__(
        self,
        run: Run,
        weights: Array,
        sample_weights: Array,
        cotangent_bytes: int = COTANGENT_BYTES,
        vector_bytes: int = VECTOR_BYTES,
    ) -> None:
        if run.training.denominator == "rebatched":
            raise ValueError(
                'denominator="rebatched" draws other batches when an example is left out, which has no derivative; '
                'train with denominator="fixed" or "renormalised"'
            )
        if run.training.recorded is not None:
            run.training.recorded.require_derivatives()
        self._run, self._sample_weights, self._weights = run, sample_weights, weights * sample_weights
        self._cotangent_bytes = cotangent_bytes
        self._products = SecondOrderProducts(run, vector_bytes)
        initial_buffers = {name: buffer.clone() for name, buffer in run.network.net.named_buffers()}
        _require_repeatable(run, self._weights)
        _write_buffers(run.network.net, initial_buffers)
        self._interval = max(1, isqrt(run.steps))
        self._stored: list[TrainingState] = []
        states = iterate_steps(run, self._weights, initial_training_state(run), run.steps)
        for state, _ in counted(states, run.steps):
            if state.t % self._interval == 0 and state.t < run.steps:
                self._stored.append(state)
        self._theta = trained_parameters(run.training, state.theta, state.state)
        require_finite(self._theta, run.steps)
        self._buffers = {name: buffer.clone() for name, buffer in run.network.net.named_buffers()}

    @property
    def beginning(self) -> Array:
        """The parameters before the first step, (p,)."""
        return np.asarray(self._stored[0].theta.double().cpu().numpy())

    @property
    def parameters(self) -> Array:
        """The trained parameters, (p,)."""
        return np.asarray(self._theta.double().cpu().numpy())

    @property
    def statistic_names(self) -> tuple[str, ...]:
        """The batch norms whose running statistics the training changed."""
        return () if self._products.statistics is None else self._products.statistics.names

    def write_buffers(self, net: nn.Module) -> None:
        """Give a net with the same modules the buffers at the end of the training."""
        _write_buffers(net, self._buffers)

    @property
    def statistics(self) -> Array:
        """The running statistics of batch norms at the end of the training, (b,)."""
        return self.read_statistics(self._buffers)

    def read_statistics(self, buffers: Mapping[str, Tensor]) -> Array:
        """The running statistics among these buffers, (b,)."""
        followed = () if self._products.statistics is None else self._products.statistics.buffers
        parts = [buffers[name].detach().double().cpu().numpy() for name in followed]
        return np.concatenate(parts) if parts else np.empty(0)

    def gradients(self, rows: Rows, folder: str | Path | None = None, clip: float | None = None) -> Array:
        """∂m_q/∂wᵢ from the measurements' gradients (m, p) or (m, p + b) at the end of the training: (m, n).

        With `folder` the backward pass is saved there every √T steps, and an interrupted pass resumes to the same
        bits. With `clip` no backward step lets a query's cotangent grow by more than this factor; `clipped` is the
        share of steps and queries in which one would have.
        """
        if clip is not None and self._run.training.ema is not None:
            raise ValueError(
                "clip= compares the cotangents of the parameters in consecutive steps; in a training with ema= those "
                "of the last step are 0, because the trained net is the average. Leave clip out, or pass jitter="
            )
        vectors_per_query = 2 + len(state_names(self._run.training))
        block = max(1, self._cotangent_bytes // (self._theta.element_size() * vectors_per_query * len(self._theta)))
        scores, clipped = np.zeros((len(rows), len(self._weights))), 0
        for part in blocks(len(rows), block):
            positions = np.arange(part.start, part.stop)
            cotangents = torch.from_numpy(rows.take(positions).dense()).to(self._theta)
            checkpoint = None if folder is None else ReplayCheckpoint(folder, self._identity(cotangents, clip))
            finished = self._backward(cotangents, checkpoint, clip)
            scores[positions], clipped = finished.scores, clipped + finished.clipped
        self.clipped = clipped / (self._run.steps * max(1, len(rows)))
        return scores * self._sample_weights

    def shifts(self, directions: Array) -> Array:
        """How parameters and running statistics move along directions (r, n) in the weights: (r, p + b)."""
        run, tangents = self._run, self._theta.new_zeros(len(directions), len(self._theta))
        state_tangents = initial_state(run.training, tangents)
        statistics = tangents.new_zeros(len(directions), self._products.size)
        for step in counted((step for stored in self._stored for step in self._steps(stored)), self._run.steps):
            weighted = run.shares(step.t, self._weights)
            products = self._products(step.theta, step.t, weighted, tangents, tangents=statistics)
            gradient_tangents, statistics = products.parameters, products.tangents
            shares = self._share_tangents(step.t, directions * self._sample_weights)
            coefficients = torch.from_numpy(shares).to(tangents)
            gradient_tangents += self._products.sum_gradients(step.theta, step.t, coefficients)
            tangents, state_tangents = push_forward(step, tangents, state_tangents, gradient_tangents)
        tangents = torch.cat([trained_parameters(run.training, tangents, state_tangents), statistics], dim=1)
        return np.asarray(tangents.double().cpu().numpy())

    def _backward(self, cotangents: Tensor, checkpoint: ReplayCheckpoint | None, clip: float | None) -> BackwardState:
        """Backpropagate cotangents c (m, p + b) of parameters and statistics through all steps.

        Scores (m, n) are the derivatives in sample weight · wᵢ.
        """
        cotangents, statistics = cotangents[:, : len(self._theta)], cotangents[:, len(self._theta) :]
        states = initial_state(self._run.training, cotangents)
        if self._run.training.ema is not None:  # the trained net is the average
            cotangents, states[AVERAGE] = states[AVERAGE], cotangents
        if statistics.shape[1]:
            states[STATISTICS] = statistics
        progress = BackwardState(self._run.steps, cotangents, states, np.zeros((len(cotangents), len(self._weights))))
        progress = progress if checkpoint is None else checkpoint.read(progress)
        remaining = [stored for stored in reversed(self._stored) if stored.t < progress.t]
        for stored in counted(remaining, len(remaining)):
            _, after, state_cotangents, scores, clipped = progress
            for step in reversed(self._steps(stored)):
                of_statistics = state_cotangents.get(STATISTICS)
                before, state_cotangents, u = pull_back(step, after, state_cotangents)
                shares = self._run.shares(step.t, self._weights)
                products = self._products(step.theta, step.t, shares, u, of_statistics)
                before = products.parameters.add_(before)
                if of_statistics is not None:
                    state_cotangents[STATISTICS] = products.cotangents
                if clip is not None:
                    before, state_cotangents, too_large = limit_growth(after, before, state_cotangents, clip)
                    clipped += int(too_large.sum())
                after = before
                slopes = self._weight_slopes(step.t, products.examples.double().cpu().numpy())
                np.add.at(scores.T, self._run.positions[step.t], slopes.T)  # a batch may contain an example twice
            progress = BackwardState(stored.t, after, state_cotangents, scores, clipped)
            if checkpoint is not None:
                checkpoint.write(progress)
        return progress

    def _steps(self, stored: TrainingState) -> list[TrainingStep]:
        """The steps from a stored state to the next one, made again."""
        run, last = self._run, min(stored.t + self._interval, self._run.steps)
        return [
            TrainingStep(run.training, theta, state, gradient, run.factors(t))
            for (t, theta, state), gradient in iterate_steps(run, self._weights, stored, last)
            if gradient is not None
        ]

    def _identity(self, cotangents: Tensor, clip: float | None) -> str:
        """A digest of everything that a backward pass depends on: the run, its weights, the cotangents and `clip`."""
        run, network = self._run, self._run.network
        data = run.positions, run.train.digest(), network.loss, network.collate
        steps = run.training, run.step_seeds, run.settings.rates, *data
        return digest(steps, self._weights, self._stored[0].theta, self._theta, cotangents, clip)

    def _weight_slopes(self, t: int, products: Array) -> Array:
        """∂⟨u, ∇J_t⟩/∂wᵢ of the batch from the products ⟨u, ∇ℓᵢ⟩, both (m, batch)."""
        return np.asarray((products - self._centred(t, products)) / self._run.denominators(t, self._weights))

    def _share_tangents(self, t: int, directions: Array) -> Array:
        """The derivative of the batch's shares along directions (r, n): (r, batch)."""
        chosen, weights = directions[:, self._run.positions[t]], self._weights[self._run.positions[t]]
        denominators = self._run.denominators(t, self._weights)
        if self._run.training.denominator == "renormalised":
            counts = self._run.counts(t)
            for part in self._run.means(t):
                change = (chosen[:, part] * counts[part]).sum(axis=1, keepdims=True)
                total = denominators[part] * self._run.mean_share(t)
                chosen[:, part] -= weights[part] * change / total
        return np.asarray(chosen / denominators)

    def _centred(self, t: int, products: Array) -> Array:
        """cᵢ times the weighted mean of the products (m, batch), which a change of the denominator takes away."""
        run, weights = self._run, self._weights[self._run.positions[t]]
        means = np.zeros_like(products)
        if run.training.denominator == "renormalised":
            denominators = run.denominators(t, self._weights) * run.mean_share(t)
            for part in run.means(t):
                mean = products[:, part] @ (weights[part] / denominators[part])
                means[:, part] = np.outer(mean, run.counts(t)[part])
        return means


def _write_buffers(net: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            buffer.copy_(values[name])


def _require_repeatable(run: Run, weights: Array) -> None:
    """Raise ValueError if the first step has another gradient when it is made again, or its rule no derivative."""
    first, second = (_first_gradient(run, weights) for _ in range(2))
    if not torch.equal(first, second):
        distance = float(torch.linalg.vector_norm(first - second) / torch.linalg.vector_norm(first))
        raise ValueError(
            f"the first step gives another gradient when it is made again (relative difference {distance:.1g}): this "
            "training is not deterministic, and its replay would be another run. Draw the random numbers of net, loss "
            "and augment from torch alone, which is seeded in every step; on a GPU call "
            "torch.use_deterministic_algorithms(True)"
        )
    if isinstance(run.training.optimiser, UpdateRule):
        largest = max(run.split(first), key=Tensor.numel)
        run.training.optimiser.require_derivative(largest, float(run.settings.rates.max()))


def _first_gradient(run: Run, weights: Array) -> Tensor:
    ((_, gradient),) = islice(iterate_steps(run, weights, initial_training_state(run), 1), 1)
    assert gradient is not None
    return gradient
