"""Stacked: many copies of a small net trained at once, each with its own example weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from upweight.core.model import Stack
from upweight.gradients.batches import mapped
from upweight.gradients.functional import Whole, leaves, plain_attention
from upweight.training.optimiser_step import CLIP_EPSILON, initial_state, update
from upweight.training.run import CPU, Run, preserve_random_state, require_finite, seed_torch
from upweight.training.stacked_operations import Batched
from upweight.training.traced_step import UntraceableError, trace

Array = NDArray[np.float64]
WORTH = 3e7  # flops of a step above which the arithmetic of one copy keeps a processor busy by itself
WORTH_GPU = 3e9
ROOM = 8 << 20  # bytes of the copies that are trained at once: larger stacks leave the caches
ROOM_GPU = 2 << 30
MOST = 128
TAPED = 500  # steps of one shape from which a tape pays: the first one loads torch's compiler, which takes seconds


def choose_stack(run: Run) -> Stack:
    """How many copies of this run to train at once. The answer depends on net and batch alone, never on the clock."""
    on_gpu = run.network.device.type == "cuda"
    with preserve_random_state(run.network.device):
        counter = FlopCounterMode(display=False)
        before = [b.clone() for b in run.network.net.buffers()]
        with counter:
            losses = run.losses(0)
            torch.autograd.grad(losses.sum(), list(run.network.parameters().values()), allow_unused=True)
        if any(not torch.equal(a, b) for a, b in zip(before, run.network.net.buffers(), strict=True)):
            return Stack(1, "training changes buffers of the net (batch statistics)")
        reason = _refusal(run, losses.detach())
    if reason:
        return Stack(1, f"copies of this net cannot be trained at once ({reason})")
    flops = counter.get_total_flops()
    if flops > (WORTH_GPU if on_gpu else WORTH):
        return Stack(1, f"a step of {flops:.1e} flops keeps a processor busy by itself")
    held = 4 * run.network.size + 4 * flops / max(run.network.size, 1)
    bytes_each = held * torch.finfo(run.network.dtype).bits / 8
    return Stack(int(np.clip((ROOM_GPU if on_gpu else ROOM) / bytes_each, 2, MOST)))


def _refusal(run: Run, losses: Tensor) -> str:
    """Why the stacked step is not the step, empty where it is."""
    copies = StackedRuns([run, run])
    try:
        theta = copies.initial_parameters()
        found = copies.losses(theta, copies.inputs(0))
        torch.autograd.grad(found.sum(), theta, allow_unused=True)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    close = torch.allclose(found.detach(), losses.expand(2, -1), rtol=1e-3, atol=1e-5)
    return "" if close else "its losses come out otherwise"


class StackedRuns:
    """The runs of many copies, step by step together; runs that are the same object share their batches.

    Parameters are held one by one, each (M, *shape), so that a step neither cuts nor joins anything.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.shared = all(run is runs[0] for run in runs)
        self._whole = Whole(runs[0].network, "loss")
        self._names = [f"net.{name}" for name in runs[0].network.names]
        self._batch: Any = None  # of the step, for what in it is no tensor

    def initial_parameters(self) -> list[Tensor]:
        """The parameters before the first step."""
        names, owned = self.runs[0].network.names, [run.network.parameters() for run in self.runs]
        return [torch.stack([own[name].detach() for own in owned]).requires_grad_() for name in names]

    def inputs(self, t: int) -> list[Tensor]:
        """The tensors of the batch of step t; where copies have batches of their own, of all of them, stacked."""
        batches = [run.batch(t) for run in (self.runs[:1] if self.shared else self.runs)]
        self._batch = batches[0]
        if not self.shared:
            return [torch.stack(same) for same in zip(*(leaves(b) for b in batches), strict=True)]
        try:
            return leaves(batches[0])
        except TypeError:  # a batch of unknown structure goes to the loss as it is
            return []

    def losses(self, theta: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Losses (M, batch) of the step whose `inputs` were made last."""

        def one(row: list[Tensor], mine: list[Tensor]) -> Tensor:
            waiting = iter(mine)
            batch = mapped(lambda _: next(waiting), self._batch) if mine else self._batch
            named = dict(zip(self._names, row, strict=True))
            with Batched():
                found: Tensor = torch.func.functional_call(self._whole, named, (batch,))
            return found

        if not self.shared:
            return torch.func.vmap(one)(list(theta), list(inputs))
        return torch.func.vmap(one, in_dims=(0, None), randomness="same")(list(theta), list(inputs))

    def gradient(self, theta: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        """∂J/∂θ, a tensor for every parameter; `inputs` end in the shares of the examples, (M, batch)."""
        objective = (self.losses(theta, inputs[:-1]) * inputs[-1]).sum()
        found = torch.autograd.grad(objective, theta, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, theta, strict=True)]

    def shares(self, t: int, weights: Array) -> Tensor:
        """wᵢ/d_t of the batch of step t for weights (M, n)."""
        if self.shared:
            return self.runs[0].shares(t, weights)
        return torch.stack([run.shares(t, row) for run, row in zip(self.runs, weights, strict=True)])


def train_stacked(runs: Sequence[Run], weights: Array) -> Tensor:
    """Train one copy for every run and row of weights (M, n); (M, p) parameters.

    Raises:
        ValueError: runs of different lengths or batches; training diverged.
    """
    sizes = {tuple(len(p) for p in run.positions) for run in runs}
    if len(sizes) > 1:
        raise ValueError("expected runs with equally many steps and equally large batches")
    copies, first = StackedRuns(runs), runs[0]
    # Batches that the user's own collate makes may differ in what is no tensor, which no tape sees.
    taping = first.network.device == CPU and first.whole is not None
    with preserve_random_state(first.network.device), plain_attention():
        try:
            parts = _trained(copies, weights, _Gradients(copies, taping))
        except UntraceableError:
            parts = _trained(copies, weights, _Gradients(copies, taping=False))
    theta = torch.cat([part.detach().flatten(1) for part in parts], dim=1)
    require_finite(theta, first.steps)
    return theta


def _trained(copies: StackedRuns, weights: Array, gradients: _Gradients) -> list[Tensor]:
    training, rates = copies.runs[0].training, copies.runs[0].rates
    theta, unclipped = copies.initial_parameters(), replace(training, clip=None)
    states = [initial_state(training, part.detach()) for part in theta]
    for t in range(copies.runs[0].steps):
        found = gradients(theta, t, [*copies.inputs(t), copies.shares(t, weights)])
        with torch.no_grad():
            if training.clip is not None:
                _clip(found, training.clip)
            for place, gradient in enumerate(found):
                old, rate = states[place], float(rates[t])
                _, states[place] = update(unclipped, theta[place], old, gradient, t, rate, in_place=True)
    return theta


def _clip(gradients: Sequence[Tensor], most: float) -> None:
    """Every copy's gradient, over all of its parameters, to this norm at most."""
    norms = torch.stack([torch.linalg.vector_norm(part.flatten(1), dim=1) for part in gradients])
    factor = (most / (torch.linalg.vector_norm(norms, dim=0) + CLIP_EPSILON)).clamp(max=1.0)
    for part in gradients:
        part.mul_(factor.view(-1, *[1] * (part.ndim - 1)))


class _Gradients:
    """The gradient of every step, in memory of its own: by Python, or by a tape where many steps are alike.

    A tape is held against Python at the second and at the last step of its shape.

    Raises:
        UntraceableError: they differ, or no tape can be made.
    """

    def __init__(self, copies: StackedRuns, taping: bool) -> None:
        lengths = [len(p) for p in copies.runs[0].positions]
        self._copies = copies
        self._often = {length for length, times in Counter(lengths).items() if taping and times >= TAPED}
        self._last = {length: t for t, length in enumerate(lengths)}
        self._tapes: dict[Any, Callable[..., Sequence[Tensor]]] = {}
        self._held: set[Any] = set()

    def __call__(self, theta: Sequence[Tensor], t: int, inputs: list[Tensor]) -> list[Tensor]:
        """∂J/∂θ of step t for inputs that were just made."""
        shape, run = tuple(part.shape for part in inputs), self._copies.runs[0]
        length = len(run.positions[t])
        if length not in self._often or len(inputs) == 1:
            return _own(self._copies.gradient(theta, inputs), (*theta, *inputs, *run.network.net.buffers()))
        if shape in self._held and t < self._last[length]:
            with torch.no_grad():
                return _own(self._tapes[shape](*inputs), ())
        found = self._copies.gradient(theta, inputs)
        if shape in self._tapes:
            seed_torch(run.network.device, run.noise[t])
            with torch.no_grad():
                played = self._tapes[shape](*inputs)
            if not all(torch.equal(a, b) for a, b in zip(found, played, strict=True)):
                raise UntraceableError("the steps are not alike")
            self._held.add(shape)
        else:
            seed_torch(run.network.device, run.noise[t])
            self._tapes[shape] = trace(self._copies.gradient, theta, inputs)
        return _own(found, (*theta, *inputs, *run.network.net.buffers()))


def _own(gradients: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The gradients, none of which shares its memory with another or with these: they are written over."""
    taken, found = {tensor.untyped_storage().data_ptr() for tensor in others}, []
    for gradient in gradients:
        place = gradient.untyped_storage().data_ptr()
        own = gradient.is_contiguous() and place not in taken
        found.append(gradient if own else gradient.clone(memory_format=torch.contiguous_format))
        taken.add(place)
    return found
