"""One training run on one training set, made step by step. The steps are the same for all example weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.batches import collate, map_tensors, to_device
from upweight.gradients.network import Network, require_one_per_example, unwrap
from upweight.training.optimiser_step import OptimiserState, initial_state, update
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
        rates: η_t, (steps,).
        step_seeds: the seed of the random numbers of each step.
        collated: all examples as one batch; None if the user's own `collate` has to make every batch.
    """

    training: Training
    network: Network
    train: Examples
    positions: tuple[NDArray[np.intp], ...]
    rates: Array
    step_seeds: list[int]
    collated: Any

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
        initial = prepare_network(training, network, seed)
        if collated is None and initial.collate is collate:
            collated = to_device(collate(train), CPU, initial.dtype)
        steps = len(positions)
        rates, step_seeds = training.rates(steps), training.noise(steps, seed)
        return cls(training, initial, train, positions, rates, step_seeds, collated)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.positions)

    @cached_property
    def is_random(self) -> bool:
        """Whether a step draws random numbers (dropout, augmentation); assumed on any device but the CPU."""
        if self.training.augment is not None or self.network.device != CPU:
            return True
        with preserve_random_state(self.network.device), torch.no_grad():
            self.batch(0)
            before = torch.get_rng_state()
            self.network.loss(self.network.net, self.batch(0))
            return not torch.equal(torch.get_rng_state(), before)

    def batch(self, t: int) -> Any:
        """The augmented batch of step t on the network's device. Seeds torch's random numbers for the step."""
        positions = self.positions[t]
        if self.collated is None:
            batch = self.network.batch(self.train.take(positions))
        else:
            index = torch.from_numpy(np.array(positions))
            batch = to_device(
                map_tensors(lambda tensor: tensor[index], self.collated), self.network.device, self.network.dtype
            )
        if self.training.augment is not None:
            batch = self.training.augment(batch, torch.Generator().manual_seed(self.step_seeds[t]))
        seed_torch(self.network.device, self.step_seeds[t])
        return batch

    def shares(self, t: int, weights: Array) -> Tensor:
        """wᵢ/d_t of the examples in the batch of step t, for weights (…, n): (…, batch)."""
        chosen = weights[..., self.positions[t]]
        if self.training.denominator == "renormalised":
            total = chosen.sum(axis=-1, keepdims=True)
            shares = np.divide(chosen, total, out=np.zeros_like(chosen), where=total > 0)
        else:
            shares = chosen / chosen.shape[-1]
        return torch.from_numpy(shares).to(self.network.device, self.network.dtype)

    def losses(self, t: int) -> Tensor:
        """ℓᵢ of the batch of step t at the net's current parameters, (batch,), with their autograd graph."""
        losses = self.network.loss(self.network.net, self.batch(t))
        if t == 0:
            require_one_per_example("loss", losses, self.train.ids[self.positions[0]])
        return losses


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
            gradient = _gradient(run, t, weights, parameters)
        yield TrainingState(t, theta, state), gradient
        theta, state = update(run.training, theta, state, gradient, t, float(run.rates[t]))
        t += 1


def replay(run: Run, weights: Array, watch: Callable[[int, Tensor], None] | None = None) -> nn.Module:
    """Train the run's own net with these weights (n,), and return it.

    `watch(t, theta)` is called with the parameters before every step t, and once more at the end. It must not
    overwrite them.

    Raises:
        ValueError: training diverged.
    """
    network, training = run.network, run.training
    parameters = list(network.parameters().values())
    theta = flatten(parameters)
    set_parameter_views(parameters, theta)
    state, gradient = initial_state(training, theta), torch.empty_like(theta)
    with preserve_random_state(network.device):
        for t in range(run.steps):
            if watch is not None:
                watch(t, theta)
            _gradient(run, t, weights, parameters, out=gradient)
            theta, state = update(training, theta, state, gradient, t, float(run.rates[t]), in_place=True)
    if watch is not None:
        watch(run.steps, theta)
    require_finite(theta, run.steps)
    return network.net


def _gradient(run: Run, t: int, weights: Array, parameters: list[Tensor], out: Tensor | None = None) -> Tensor:
    """∇J_t at the current parameters of the run's net, (p,)."""
    objective = (run.losses(t) * run.shares(t, weights)).sum()
    grads = torch.autograd.grad(objective, parameters, allow_unused=True)
    parts = [p.new_zeros(p.numel()) if g is None else g.reshape(-1) for p, g in zip(parameters, grads, strict=True)]
    return torch.cat(parts, out=out)


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


@contextmanager
def preserve_random_state(device: torch.device) -> Iterator[None]:
    """Restore the state of torch's random numbers on exit, so that they can be seeded inside; enables gradients."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        yield


def seed_torch(device: torch.device, seed: int) -> None:
    """Seed torch's random numbers on the CPU and this device; torch.manual_seed is ten times as slow."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def prepare_network(training: Training, network: Network, seed: int) -> Network:
    """A copy of the network in train mode, with the trainable parameters and buffers of `training.initial`."""
    if training.initial is None:
        raise ValueError(
            "the training does not say where it begins: pass Training(initial=…), a function seed -> net that makes "
            "the untrained net, or the state dict of the net before it was trained"
        )
    copy = network.writable_copy()
    initial = read_initial(training, copy, seed)
    buffers = dict(copy.net.named_buffers())
    with torch.no_grad():
        for name, tensor in [*copy.parameters().items(), *((n, b) for n, b in buffers.items() if n in initial)]:
            if name not in initial or initial[name].shape != tensor.shape:
                got = f"shape {tuple(initial[name].shape)}" if name in initial else "none"
                raise ValueError(f"expected initial {name!r} of shape {tuple(tensor.shape)}, got {got}")
            tensor.copy_(initial[name])
    copy.net.train()
    return copy


def read_initial(training: Training, network: Network, seed: int) -> Mapping[str, Tensor]:
    """Initial parameters and buffers by name; `initial` may be a function, a net or a state dict."""
    initial = training.initial
    if callable(initial) and not isinstance(initial, nn.Module):
        with preserve_random_state(network.device):
            seed_torch(network.device, seed)
            initial = initial(seed)
    if isinstance(initial, nn.Module):
        return dict(unwrap(initial).state_dict())
    if isinstance(initial, Mapping):
        return initial
    raise TypeError(f"expected initial as a function seed -> net, a net or a state dict, got {type(initial).__name__}")
