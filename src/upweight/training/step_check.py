"""Recorded steps compared with the steps that SOURCE replays, to find trainings that the replay does not follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from upweight.training.checkpoint_file import STATE
from upweight.training.initial_network import preserve_random_state
from upweight.training.optimiser_settings import OptimiserSettings
from upweight.training.optimiser_step import OptimiserState, clip_factor, state_names
from upweight.training.run import Run, set_parameter_views, weighted_gradient
from upweight.training.step_evidence import MOMENTS, SKETCH_WIDTH, Sketches, moment_sketches, read_evidence, sketch
from upweight.training.trajectory import Trajectory

MAX_CHECKED_STEPS = 64
SCALE_EVERY = 8  # checked steps between those in which the length of the examples' gradients is measured
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2}  # of the gradient, relative to its length
LOW_PRECISION_TOLERANCE = 0.1  # of the gradient in other types
ADAM_TOLERANCES = {torch.float64: 1e-4, torch.float32: 5e-2}  # of Adam's typical update
ADAM_LARGEST_DIFFERENCE = 0.3  # Adam moves numbers whose gradient is 0 but for rounding as far as all others
ROUNDING = 1e3  # errors of a gradient in units of the precision times the length of the examples' gradients
STATE_ROUNDING = 10.0  # errors of a recorded vector in units of the precision times the vectors it is computed from


class Difference(NamedTuple):
    """A recorded vector of a step and the replayed one, as sketches.

    Attributes:
        t: the step, from 0.
        recorded, replayed: both of the same length.
        allowed: length of a difference that rounding explains.
    """

    t: int
    recorded: Tensor
    replayed: Tensor
    allowed: float

    @property
    def length(self) -> float:
        """The length of the longer vector."""
        return max(_norm(self.recorded), _norm(self.replayed))

    @property
    def size(self) -> float:
        """The length of the difference, relative to the longer vector."""
        return _norm(self.recorded - self.replayed) / (self.length or 1.0)

    @property
    def typical_size(self) -> float:
        """As `size`, with medians over the numbers, which a few numbers do not change."""
        typical = float(self.replayed.abs().median())
        return float((self.recorded - self.replayed).abs().median()) / typical if typical else self.size

    @property
    def ratio(self) -> float:
        """The length of the recorded vector, relative to the replayed one."""
        return _norm(self.recorded) / (_norm(self.replayed) or np.inf)

    def exceeds(self, tolerance: float) -> bool:
        """Whether the vectors differ by more than rounding and this share of their length; true for NaN."""
        return not _norm(self.recorded - self.replayed) <= tolerance * self.length + self.allowed

    def is_parallel(self, tolerance: float) -> bool:
        """Whether the vectors have the same direction."""
        lengths = _norm(self.recorded), _norm(self.replayed)
        if not all(lengths):
            return False
        return _norm(self.recorded / lengths[0] - self.replayed / lengths[1]) <= 2 * tolerance


class Mismatches(NamedTuple):
    """The steps that differ, by what differs first.

    Attributes:
        checked: how many steps were compared.
        gradients: steps whose gradient is not the replayed one.
        updates: steps whose gradient is the replayed one, but not their change of the parameters.
        tolerance: how much of the length of a gradient rounding may explain.
    """

    checked: int
    gradients: list[Difference]
    updates: list[Difference]
    tolerance: float


@dataclass(frozen=True)
class StepCheck:
    """Compares gradient and update of the step after each checkpoint with those of the replay.

    Args:
        run: the steps; its net, in eval mode, is overwritten.
        trajectory: the recorded training.
        read: `trajectory.read`, or one that remembers the last two checkpoints.
        settings: those of its optimiser.
        point: t → parameters (p,) and Adam's moments before step t; it also loads the buffers into the net.
        shares: (run, t) → the factor of each loss in the objective of step t, (batch,).
    """

    run: Run
    trajectory: Trajectory
    read: Callable[[int], dict[str, Tensor]]
    settings: OptimiserSettings
    point: Callable[[int], tuple[Tensor, OptimiserState]]
    shares: Callable[[Run, int], Tensor]

    def compare(self) -> Mismatches:
        """Every step that follows a checkpoint, or an even selection of them."""
        gradients: list[Difference] = []
        updates: list[Difference] = []
        largest = 0.0
        for place in self._places():
            before, after = self.trajectory.shards[place : place + 2]
            tensors = self.read(place)
            evidence = read_evidence(self.read(place + 1), is_next_step=after.step == before.step + 1)
            if evidence is None:
                continue
            theta, state = self.point(before.step)
            if len(gradients) % SCALE_EVERY == 0:
                largest = max(largest, self._example_scale(before.step, theta))
            gradient = self.gradient(before.step, theta)
            clip = self.settings.clip
            clipped = gradient if clip is None else gradient * clip_factor(gradient, clip)
            largest = max(largest, _norm(clipped))
            gradients.append(self._gradient_difference(before.step, tensors, evidence, clipped))
            updates.append(self._update_difference(before.step, tensors, evidence, theta, state, gradient))
        rounding = ROUNDING * self.precision * largest
        tolerance = TOLERANCES.get(self.run.network.dtype, LOW_PRECISION_TOLERANCE)
        other_gradients, other_updates = [], []
        for of_gradient, of_update in zip(gradients, updates, strict=True):
            allowed = of_gradient.allowed + rounding
            if of_gradient._replace(allowed=allowed).exceeds(tolerance):
                other_gradients.append(of_gradient)
            elif self._is_other_update(of_update, allowed, tolerance):
                other_updates.append(of_update)
        return Mismatches(len(gradients), other_gradients, other_updates, tolerance)

    @property
    def precision(self) -> float:
        """The relative precision of the parameters."""
        return torch.finfo(self.run.network.dtype).eps

    def gradient(self, t: int, theta: Tensor, run: Run | None = None) -> Tensor:
        """Gradient (p,) of the batch of step t at θ, in the net's mode and before clipping."""
        run = self.run if run is None else run
        with preserve_random_state(run.network.device):
            return self.weighted_gradient(t, theta, run, self.shares(run, t))

    def _example_scale(self, t: int, theta: Tensor) -> float:
        """About the mean length of the gradients of the examples in step t, which rounding errors are relative to."""
        shares = self.shares(self.run, t)
        # With random signs, the squared length of the sum is on average the sum of the squared lengths.
        signs = torch.randint(0, 2, shares.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with preserve_random_state(self.run.network.device):
            gradient = self.weighted_gradient(t, theta, self.run, shares * signs.to(shares))
        return _norm(gradient) * float(np.sqrt(len(shares)))

    def weighted_gradient(self, t: int, theta: Tensor, run: Run, coefficients: Tensor) -> Tensor:
        """∇ Σ cᵢ ℓᵢ of step t at θ, (p,); it may draw random numbers."""
        parameters = list(run.network.parameters().values())
        set_parameter_views(parameters, theta)
        return weighted_gradient(run, t, coefficients, parameters)

    def sketch(self, vector: Tensor) -> Tensor:
        """The sketches of all parameters of a vector (p,), one after the other."""
        return torch.cat([sketch(part) for part in torch.split(vector.detach(), self._sizes)])

    def _places(self) -> list[int]:
        count = len(self.trajectory.shards) - 1
        places: list[int] = np.unique(np.linspace(0, count - 1, min(count, MAX_CHECKED_STEPS)).astype(int)).tolist()
        return places

    @property
    def _names(self) -> tuple[str, ...]:
        return self.run.network.names

    @cached_property
    def _sizes(self) -> list[int]:
        return [p.numel() for p in self.run.network.parameters().values()]

    def _join(self, sketches: Sketches) -> Tensor:
        """Sketches of parameters one after the other; 0 for parameters without one."""
        parts = zip(self._names, self._widths, strict=True)
        return torch.cat([sketches.get(name, torch.zeros(width, dtype=torch.float64)) for name, width in parts])

    @cached_property
    def _widths(self) -> list[int]:
        return [min(size, SKETCH_WIDTH) for size in self._sizes]

    def _gradient_difference(
        self, t: int, tensors: dict[str, Tensor], evidence: dict[str, Sketches], gradient: Tensor
    ) -> Difference:
        """The recorded gradient from the optimiser's moments; for plain SGD from `.grad` or else from the update."""
        settings, rate = self.settings, self._sketched_rates(t)
        theta = torch.cat([tensors[name].reshape(-1) for name in self._names])
        moments = moment_sketches(tensors), evidence["moments"]
        before, after = (self._join(sketches) for sketches in moments)
        sources = _norm(before) + _norm(after)
        # Torch leaves out parameters that no loss has used so far, and so does their weight decay.
        decay = self._decay_sketch(theta, {name for name in self._names if name in moments[1]})
        if settings.kind in ("Adam", "AdamW"):
            share = 1.0 - settings.momentum
            recorded, sources = (after - settings.momentum * before) / share - decay, sources / share
        elif settings.momentum and settings.kind == "SGD":
            recorded = after - settings.momentum * before - decay
        elif any(bool(gradient.any()) for gradient in evidence["gradients"].values()):
            recorded, sources = self._join(evidence["gradients"]), 0.0
        elif settings.kind == "SGD" and bool((rate > 0).all()):  # the loop has already reset the gradients
            start, end = self.sketch(theta), self._join(evidence["parameters"])
            moved = zip(self._names, torch.split(end != start, self._widths), strict=True)
            decay = self._decay_sketch(theta, {name for name, part in moved if bool(part.any())})
            recorded, sources = (start - end) / rate - decay, _norm(start / rate)
        else:
            recorded = self.sketch(gradient)
        allowed = STATE_ROUNDING * self.precision * (sources + _norm(decay))
        return Difference(t, recorded, self.sketch(gradient), allowed)

    def _sketched_rates(self, t: int) -> Tensor:
        """The learning rate of every number in the sketches of step t."""
        rates = torch.tensor([self.run.settings.rate_of(place, t) for place in range(len(self._names))])
        return torch.repeat_interleave(rates.double(), torch.tensor(self._widths))

    def _decay_sketch(self, theta: Tensor, names: set[str]) -> Tensor:
        """Sketch of the weight decay's share in the recorded gradients of these parameters; 0 if it is decoupled."""
        decay = self.run.settings.decay
        if self.settings.decoupled or not (isinstance(decay, Tensor) or decay):
            return torch.zeros(sum(self._widths), dtype=torch.float64)
        decays = torch.split(theta * (decay.to(theta) if isinstance(decay, Tensor) else decay), self._sizes)
        parts = zip(self._names, decays, strict=True)
        return torch.cat([sketch(part) * float(name in names) for name, part in parts])

    def _update_difference(
        self,
        t: int,
        tensors: dict[str, Tensor],
        evidence: dict[str, Sketches],
        theta: Tensor,
        state: OptimiserState,
        gradient: Tensor,
    ) -> Difference:
        """The recorded change of the parameters, and the one that the replayed gradient makes."""
        start = self.sketch(theta)
        for name in set(state_names(self.run.training)) - set(state):
            moments = [tensors.get(f"{STATE}{MOMENTS[0]}.{n}", torch.zeros_like(tensors[n])) for n in self._names]
            state = {**state, name: torch.cat([moment.reshape(-1) for moment in moments]).to(theta)}
        replayed = self.sketch(self.run.take_step(theta, state, gradient, t)[0]) - start
        recorded = self._join(evidence["parameters"]) - start
        # Torch leaves out a parameter that a batch does not use; the replay may let its weight decay act.
        recorded_parts, replayed_parts = (torch.split(v, self._widths) for v in (recorded, replayed))
        parts = zip(recorded_parts, replayed_parts, torch.split(gradient, self._sizes), strict=True)
        pairs = [(a, b) for a, b, g in parts if bool(a.any()) or bool(g.any())]
        if not pairs:
            return Difference(t, recorded[:0], replayed[:0], 0.0)
        recorded, replayed = (torch.cat(vectors) for vectors in zip(*pairs, strict=True))
        return Difference(t, recorded, replayed, STATE_ROUNDING * self.precision * _norm(start))

    def _is_other_update(self, difference: Difference, gradient_rounding: float, tolerance: float) -> bool:
        if not len(difference.recorded):
            return False
        if self.settings.kind == "SGD":
            rate = float(self._sketched_rates(difference.t).max()) * (1.0 + self.settings.momentum)
            return difference._replace(allowed=difference.allowed + rate * gradient_rounding).exceeds(tolerance)
        typical = ADAM_TOLERANCES.get(self.run.network.dtype, LOW_PRECISION_TOLERANCE)
        is_typical = difference.typical_size > typical and difference.exceeds(typical)
        return is_typical or difference.exceeds(ADAM_LARGEST_DIFFERENCE)


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
