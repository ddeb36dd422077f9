"""One training run on one training set, made step by step. The steps are the same for all example weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.gradients.batches import collate, map_tensors, to_device
from upweight.gradients.failed_calls import raise_failed_augment
from upweight.gradients.network import Network, require_one_per_example
from upweight.gradients.preserve_model import without_graph
from upweight.training.initial_network import (
    prepare_network,
    preserve_buffers,
    preserve_random_state,
    seed_torch,
    set_random_state,
)
from upweight.training.optimiser_step import OptimiserState, StepFactors, initial_state, trained_parameters, update
from upweight.training.parameter_groups import StepSettings
from upweight.training.recipe import Training

Array = NDArray[np.float64]
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Run:
    """The steps of a training.

    Attributes:
        training: the recipe.
        network: a private copy of the net in train mode, with the parameters at which training begins.
        train: the training set.
        positions: the positions in the training set that each step takes.
        step_seeds: the seed of the random numbers of each step.
        random_states: the state of torch's random numbers at the beginning of each step, in place of a seed.
        collated: all examples as one batch, on the CPU and in the network's precision; None if the user's own `collate`
            has to make every batch.
    """

    training: Training
    network: Network
    train: Examples
    positions: tuple[NDArray[np.intp], ...]
    step_seeds: list[int]
    collated: Any
    random_states: Sequence[Tensor] | None = None

    @classmethod
    def of(
        cls, training: Training, network: Network, train: Examples, weights: Array, seed: int, collated: Any = None
    ) -> Run:
        """The run of this seed. The weights (n,) only say which examples remain if the training draws new batches."""
        remaining = np.flatnonzero(weights) if training.denominator == "rebatched" else np.arange(len(train))
        positions = training.drawn(remaining, seed)
        last = max(int(p.max()) for p in positions)
        if last >= len(train):
            raise ValueError(f"batches= names position {last}, but the training set has {len(train)} examples")
        if training.counts is not None and len(training.counts) != len(train):
            raise ValueError(f"expected one of counts= for each of {len(train)} examples, got {len(training.counts)}")
        initial = prepare_network(training, network, seed)
        if collated is None and initial.collate is collate:
            collated = to_device(collate(train), CPU, initial.dtype)
        if training.recorded is not None and len(training.recorded.places) != len(positions):
            raise ValueError(f"expected {len(positions)} recorded steps, got {len(training.recorded.places)}")
        seeds, states = training.noise(len(positions), seed), training.random_states
        run = cls(training, initial, train, positions, seeds, collated, states if seed == training.seed else None)
        _ = run.settings  # raises for learning rates and groups that do not fit
        return run

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.positions)

    @cached_property
    def settings(self) -> StepSettings:
        """Learning rates and weight decays of the steps."""
        return StepSettings.of(self.training, self.steps, self.network.parameters())

    def passes(self, t: int) -> list[slice]:
        """The batches of step t as parts of its positions; their gradients are summed."""
        return self.training.passes(t, len(self.positions[t]))

    @cached_property
    def is_random(self) -> bool:
        """Whether a step draws random numbers (dropout, augmentation); assumed on any device but the CPU."""
        if self.training.augment is not None or self.network.device != CPU:
            return True
        with preserve_random_state(self.network.device), preserve_buffers(self.network.net):
            self.batch(0)
            before = torch.get_rng_state()
            without_graph(lambda: self.network.call("loss", self.batch(0)))
            return not torch.equal(torch.get_rng_state(), before)

    def batch(self, t: int, number: int = 0) -> Any:
        """The augmented batch of step t with this number, on the network's device. Seeds torch's random numbers."""
        batch, augment = self._read_batch(self.positions[t][self.passes(t)[number]]), self.training.augment
        if self.random_states is not None:
            set_random_state(self.network.device, self.random_states[t])
            for earlier in range(number):  # whose random numbers come before those of this batch
                self._draw(t, earlier)
            return batch if augment is None else self._augmented(batch, torch.default_generator)
        seed = self.step_seeds[t] + number
        if augment is not None:
            batch = self._augmented(batch, torch.Generator().manual_seed(seed))
        if self.training.recorded is None:
            seed_torch(self.network.device, seed)
        else:
            self.training.recorded.restore(t, number, self.network.device)
        return batch

    def _read_batch(self, positions: NDArray[np.intp]) -> Any:
        """The batch of these examples, on the network's device."""
        if self.collated is None:
            return self.network.batch(self.train.take(positions))
        index = torch.from_numpy(np.array(positions))
        chosen = map_tensors(lambda tensor: tensor[index], self.collated)
        return chosen if self.network.device == CPU else to_device(chosen, self.network.device, self.network.dtype)

    def _augmented(self, batch: Any, generator: torch.Generator) -> Any:
        assert self.training.augment is not None
        try:
            return self.training.augment(batch, generator)
        except Exception as error:
            raise_failed_augment(error, batch)

    def _draw(self, t: int, number: int) -> None:
        """Draw the random numbers of one batch of step t; the net's buffers stay as they are."""
        batch = self._read_batch(self.positions[t][self.passes(t)[number]])
        if self.training.augment is not None:
            batch = self._augmented(batch, torch.default_generator)
        with preserve_buffers(self.network.net):
            without_graph(lambda: self.network.call("loss", batch))

    def means(self, t: int) -> list[slice]:
        """The parts of the positions of step t over each of which a mean is taken."""
        return [slice(0, len(self.positions[t]))] if self.training.mean_over == "step" else self.passes(t)

    def mean_share(self, t: int) -> float:
        """The factor of each of these means in the objective of step t."""
        return 1.0 if self.training.mean_over == "sum" else 1.0 / len(self.means(t))

    def counts(self, t: int) -> Array:
        """How much each example of step t counts in its denominator, (batch,)."""
        positions, counts = self.positions[t], self.training.counts
        return np.ones(len(positions)) if counts is None else np.asarray(counts, dtype=np.float64)[positions]

    def denominators(self, t: int, weights: Array) -> Array:
        """The divisor of the loss of every example in step t, for weights (…, n): (…, batch); ∞ if all are 0."""
        positions, means = self.positions[t], self.means(t)
        counts = self.counts(t)
        parts = weights[..., positions] * counts if self.training.denominator == "renormalised" else counts
        totals = [parts[..., part].sum(axis=-1, keepdims=True) / self.mean_share(t) for part in means]
        totals = [np.where(total > 0, total, np.inf) for total in totals]
        lengths = [part.stop - part.start for part in means]
        return np.concatenate([np.repeat(total, k, axis=-1) for total, k in zip(totals, lengths, strict=True)], axis=-1)

    def shares(self, t: int, weights: Array) -> Tensor:
        """The factor of each loss in the objective of step t, for weights (…, n): (…, batch)."""
        shares = weights[..., self.positions[t]] / self.denominators(t, weights)
        return torch.from_numpy(shares).to(self.network.device, self.network.dtype)

    def losses(self, t: int, number: int = 0) -> Tensor:
        """ℓᵢ of one batch of step t at the net's current parameters, (batch,), with their autograd graph."""
        losses = self.network.call("loss", self.batch(t, number))
        if t == 0:
            require_one_per_example("loss", losses, self.train.ids[self.positions[0][self.passes(0)[number]]])
        return losses

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector (p,) as tensors of the shapes of the parameters."""
        shapes = [self.network.shapes[name] for name in self.network.names]
        parts = torch.split(vector, self.settings.sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def factors(self, t: int) -> StepFactors:
        """Learning rate and weight decay of step t."""
        return StepFactors(t, self.settings.rate(t), self.settings.decay, self.split)

    def take_step(
        self, theta: Tensor, state: OptimiserState, gradient: Tensor, t: int, *, in_place: bool = False
    ) -> tuple[Tensor, OptimiserState]:
        """Parameters and state after step t."""
        return update(self.training, theta, state, gradient, self.factors(t), in_place=in_place)


class TrainingState(NamedTuple):
    """A run before step t: parameters (p,) and optimiser state."""

    t: int
    theta: Tensor
    state: OptimiserState


def initial_training_state(run: Run) -> TrainingState:
    """The state of a run before its first step."""
    theta = flatten(list(run.network.parameters().values()))
    return TrainingState(0, theta, initial_state(run.training, theta))


def iterate_steps(
    run: Run, weights: Array, start: TrainingState, last: int
) -> Iterator[tuple[TrainingState, Tensor | None]]:
    """Make the steps of the run with these weights (n,), from the state `start` to step `last`.

    Yields the state before every step with ∇J_t there, and the state before step `last` with None. The run's own net
    holds the parameters of the state; they must not be overwritten.
    """
    parameters = list(run.network.parameters().values())
    t, theta, state = start
    while True:
        set_parameter_views(parameters, theta)
        if t == last:
            yield TrainingState(t, theta, state), None
            return
        with preserve_random_state(run.network.device):
            gradient = weighted_gradient(run, t, run.shares(t, weights), parameters)
        yield TrainingState(t, theta, state), gradient
        theta, state = run.take_step(theta, state, gradient, t)
        t += 1


def replay(run: Run, weights: Array, watch: Callable[[int, Tensor], None] | None = None) -> nn.Module:
    """Train the run's own net with these weights (n,), and return it.

    `watch(t, theta)` is called with the parameters before every step t, and once more at the end. It must not
    overwrite them.

    Raises:
        ValueError: training diverged.
    """
    parameters = list(run.network.parameters().values())
    theta = take_steps(run, flatten(parameters), lambda t: run.shares(t, weights), watch)
    if watch is not None:
        watch(run.steps, theta)
    require_finite(theta, run.steps)
    return run.network.net


def take_steps(
    run: Run, theta: Tensor, shares: Callable[[int], Tensor], watch: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """The parameters after all steps from θ, which is overwritten; the run's own net then holds them.

    Args:
        run: the steps.
        theta: the parameters at which training begins, (p,).
        shares: t → the factor of each loss in the objective of step t, (batch,).
        watch: is called with t and the parameters before every step; it must not overwrite them.
    """
    network = run.network
    parameters = list(network.parameters().values())
    set_parameter_views(parameters, theta)
    state, gradient = initial_state(run.training, theta), torch.empty_like(theta)
    with preserve_random_state(network.device):
        for t in counted(range(run.steps), run.steps):
            if watch is not None:
                watch(t, theta)
            weighted_gradient(run, t, shares(t), parameters, out=gradient)
            after, state = run.take_step(theta, state, gradient, t, in_place=True)
            if after is not theta:  # a rule of the user's returns new tensors
                set_parameter_views(parameters, after)
            theta = after
    theta = trained_parameters(run.training, theta, state)
    set_parameter_views(parameters, theta)
    return theta


def weighted_gradient(run: Run, t: int, shares: Tensor, parameters: list[Tensor], out: Tensor | None = None) -> Tensor:
    """∇ Σ sharesᵢ ℓᵢ of step t at the current parameters of the run's net, (p,); it may draw random numbers."""
    for number, part in enumerate(run.passes(t)):
        losses = run.losses(t, number)
        grads = torch.autograd.grad(losses, parameters, shares[part].to(losses), allow_unused=True)
        parts = [p.new_zeros(p.numel()) if g is None else g.reshape(-1) for p, g in zip(parameters, grads, strict=True)]
        if number == 0:
            gradient = torch.cat(parts, out=out)
        else:
            gradient += torch.cat(parts)
    return gradient


def require_finite(theta: Tensor, steps: int) -> None:
    """Raise ValueError if the parameters are not finite."""
    if not bool(torch.isfinite(theta).all()):
        raise ValueError(
            f"training diverged: parameters are not finite after {steps} steps; use a smaller lr, a warmup or clip="
        )


def flatten(parameters: list[nn.Parameter] | list[Tensor]) -> Tensor:
    """The parameters in their order, copied into one vector (p,)."""
    if len({(p.dtype, p.device) for p in parameters}) > 1:
        raise TypeError(
            "expected all trainable parameters to have one precision and one device; for any other net pass your own "
            "training=train_fn with train_fn(weights, seed) -> net"
        )
    return torch.cat([p.detach().reshape(-1) for p in parameters])


def set_parameter_views(parameters: list[Any], theta: Tensor) -> None:
    """Replace the data of every parameter by a view of its part of θ."""
    for p, part in zip(parameters, torch.split(theta, [p.numel() for p in parameters]), strict=True):
        p.data = part.view(p.shape)
