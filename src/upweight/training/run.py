"""Run: one training on one set of examples, step by step, the same for every set of weights."""

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
from upweight.gradients.batches import collate, mapped, placed
from upweight.gradients.network import Network, require_one_each, unwrapped
from upweight.training.optimiser_step import OptimiserState, initial_state, update
from upweight.training.recipe import Training

Array = NDArray[np.float64]
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Run:
    """The steps of a training.

    Attributes:
        training: the recipe.
        network: a net of our own in train mode, at the parameters where training begins.
        train: the training set.
        positions: which examples every step takes.
        rates: η_t, (steps,).
        noise: the seed of every step's random numbers.
        whole: all examples collated, None where the user's own `collate` has to make every batch.
    """

    training: Training
    network: Network
    train: Examples
    positions: tuple[NDArray[np.intp], ...]
    rates: Array
    noise: list[int]
    whole: Any

    @classmethod
    def of(
        cls, training: Training, network: Network, train: Examples, weights: Array, seed: int, whole: Any = None
    ) -> Run:
        """The run of this seed. `weights` (n,) say who is left where the training re-batches, and nothing else."""
        kept = np.flatnonzero(weights) if training.denominator == "rebatched" else np.arange(len(train))
        positions = training.drawn(kept, seed)
        last = max(int(p.max()) for p in positions)
        if last >= len(train):
            raise ValueError(f"batches= names position {last}, the training set has {len(train)} examples")
        own = prepare_network(training, network, seed)
        if whole is None and own.collate is collate:
            whole = placed(collate(train), CPU, own.dtype)
        steps = len(positions)
        return cls(training, own, train, positions, training.rates(steps), training.noise(steps, seed), whole)

    @property
    def steps(self) -> int:
        """How many."""
        return len(self.positions)

    @cached_property
    def is_random(self) -> bool:
        """Whether a step draws random numbers (dropout, augmentation); taken for granted off the CPU."""
        if self.training.augment is not None or self.network.device != CPU:
            return True
        with preserve_random_state(self.network.device), torch.no_grad():
            self.batch(0)
            before = torch.get_rng_state()
            self.network.loss(self.network.net, self.batch(0))
            return not torch.equal(torch.get_rng_state(), before)

    def batch(self, t: int) -> Any:
        """The batch of step t on the network's device, augmented; torch's random numbers are those of the step."""
        where = self.positions[t]
        if self.whole is None:
            batch = self.network.batch(self.train.take(where))
        else:
            index = torch.from_numpy(np.array(where))
            batch = placed(mapped(lambda tensor: tensor[index], self.whole), self.network.device, self.network.dtype)
        if self.training.augment is not None:
            batch = self.training.augment(batch, torch.Generator().manual_seed(self.noise[t]))
        seed_torch(self.network.device, self.noise[t])
        return batch

    def shares(self, t: int, weights: Array) -> Tensor:
        """wᵢ/d_t of the batch of step t for weights (…, n): (…, batch)."""
        chosen = weights[..., self.positions[t]]
        if self.training.denominator == "renormalised":
            total = chosen.sum(axis=-1, keepdims=True)
            shares = np.divide(chosen, total, out=np.zeros_like(chosen), where=total > 0)
        else:
            shares = chosen / chosen.shape[-1]
        return torch.from_numpy(shares).to(self.network.device, self.network.dtype)

    def losses(self, t: int) -> Tensor:
        """ℓᵢ of the batch of step t at the net's own parameters, (batch,), with their graph."""
        found = self.network.loss(self.network.net, self.batch(t))
        if t == 0:
            require_one_each("loss", found, self.train.ids[self.positions[0]])
        return found


class TrainingState(NamedTuple):
    """Where a run is before step t: parameters (p,) and state."""

    t: int
    theta: Tensor
    state: OptimiserState


def initial_training_state(run: Run) -> TrainingState:
    """Where a run that was not made yet begins."""
    theta = flatten(list(run.network.parameters().values()))
    return TrainingState(0, theta, initial_state(run.training, theta))


def iterate_steps(
    run: Run, weights: Array, moment: TrainingState, last: int
) -> Iterator[tuple[TrainingState, Tensor | None]]:
    """Every moment of the run with these weights (n,) from this one to `last`, with ∇J_t there (none for the last).

    The run's own net holds the parameters of the moment; they must not be written to.
    """
    parameters = list(run.network.parameters().values())
    t, theta, state = moment
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
    """Make the run with these weights (n,) in the run's own net, which is the trained one afterwards.

    `watch(t, theta)` sees the parameters before step t, and once more at the end; it must not write to them.

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
    """∇J_t at the parameters that the run's net holds, (p,)."""
    objective = (run.losses(t) * run.shares(t, weights)).sum()
    found = torch.autograd.grad(objective, parameters, allow_unused=True)
    parts = [p.new_zeros(p.numel()) if g is None else g.reshape(-1) for p, g in zip(parameters, found, strict=True)]
    return torch.cat(parts, out=out)


def require_finite(theta: Tensor, steps: int) -> None:
    """Raise ValueError where training went to infinity."""
    if not bool(torch.isfinite(theta).all()):
        raise ValueError(
            f"training diverged: parameters are not finite after {steps} steps; use a smaller lr, a warmup or clip="
        )


def flatten(parameters: list[nn.Parameter] | list[Tensor]) -> Tensor:
    """All parameters as one new vector (p,), in their order."""
    if len({(p.dtype, p.device) for p in parameters}) > 1:
        raise TypeError(
            "expected trainable parameters of one precision on one device; for a net in parts pass your own "
            "training=train_fn with train_fn(weights, seed) -> net"
        )
    return torch.cat([p.detach().reshape(-1) for p in parameters])


def set_parameter_views(parameters: list[Any], theta: Tensor) -> None:
    """Make every parameter a view of its part of θ."""
    for p, part in zip(parameters, torch.split(theta, [p.numel() for p in parameters]), strict=True):
        p.data = part.view(p.shape)


@contextmanager
def preserve_random_state(device: torch.device) -> Iterator[None]:
    """Room for torch's random numbers to be seeded: they are as before on the way out."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        yield


def seed_torch(device: torch.device, seed: int) -> None:
    """Begin torch's random numbers anew on the CPU and this device; torch.manual_seed is ten times as slow."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def prepare_network(training: Training, network: Network, seed: int) -> Network:
    """A copy of the network where training begins: trainable parameters and buffers of `initial`, in train mode."""
    if training.initial is None:
        raise ValueError(
            "training begins nowhere: pass Training(initial=…), a function seed -> net that makes the net afresh, or "
            "the state dict of the net before it was trained"
        )
    own = network.elsewhere()
    first = read_initial(training, own, seed)
    buffers = dict(own.net.named_buffers())
    with torch.no_grad():
        for name, tensor in [*own.parameters().items(), *((n, b) for n, b in buffers.items() if n in first)]:
            if name not in first or first[name].shape != tensor.shape:
                got = f"shape {tuple(first[name].shape)}" if name in first else "none"
                raise ValueError(f"expected initial {name!r} of shape {tuple(tensor.shape)}, got {got}")
            tensor.copy_(first[name])
    own.net.train()
    return own


def read_initial(training: Training, network: Network, seed: int) -> Mapping[str, Tensor]:
    """Parameters and buffers by name, from whichever form `initial` has."""
    initial = training.initial
    if callable(initial) and not isinstance(initial, nn.Module):
        with preserve_random_state(network.device):
            seed_torch(network.device, seed)
            initial = initial(seed)
    if isinstance(initial, nn.Module):
        return dict(unwrapped(initial).state_dict())
    if isinstance(initial, Mapping):
        return initial
    raise TypeError(f"expected initial as a function seed -> net, a net or a state dict, got {type(initial).__name__}")
