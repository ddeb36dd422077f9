"""Train many copies of a small net at once, each with its own example weights."""

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

from upweight.core.forecast import counted
from upweight.core.stackable import Stack
from upweight.gradients.batches import map_tensors
from upweight.gradients.functional import LossModule, batch_tensors, call_with, plain_attention
from upweight.gradients.matrices import flatten_each
from upweight.training.initial_network import preserve_random_state, seed_torch
from upweight.training.optimiser_step import CLIP_EPSILON, StepFactors, initial_state, trained_parameters, update
from upweight.training.run import CPU, Run, require_finite
from upweight.training.stacked_operations import StackedOperations
from upweight.training.traced_step import UntraceableError, trace
from upweight.training.update_rule import UpdateRule

Array = NDArray[np.float64]
MAX_STEP_FLOPS = 3e7  # flops of a step from which a single copy keeps a processor busy
MAX_STEP_FLOPS_GPU = 3e9
STACK_BYTES = 8 << 20  # memory of a stack: larger ones do not fit in the caches
STACK_BYTES_GPU = 2 << 30
MAX_COPIES = 128
MIN_TRACED_STEPS = 500  # steps of one shape from which tracing pays: loading torch's compiler takes seconds


def choose_copies(run: Run) -> Stack:
    """How many copies of this run to train at once. The answer depends on net and batch only, never on timings."""
    if run.training.recorded is not None:
        return Stack(1, "a recorded run is repeated by one net at a time")
    on_gpu = run.network.device.type == "cuda"
    with preserve_random_state(run.network.device):
        counter = FlopCounterMode(display=False)
        before = [b.clone() for b in run.network.net.buffers()]
        try:
            with counter:
                losses = run.losses(0)
                torch.autograd.grad(losses.sum(), list(run.network.parameters().values()), allow_unused=True)
        except RuntimeError as error:  # torch counts no modules that are called inside of others' parameters
            return Stack(1, f"torch cannot count what a step of this net takes ({str(error).splitlines()[0]})")
        if any(not torch.equal(a, b) for a, b in zip(before, run.network.net.buffers(), strict=True)):
            return Stack(1, "training changes buffers of the net (batch statistics)")
        reason = _why_not_stackable(run, losses.detach())
    if reason:
        return Stack(1, f"copies of this net cannot be trained at once ({reason})")
    flops = counter.get_total_flops()
    if flops > (MAX_STEP_FLOPS_GPU if on_gpu else MAX_STEP_FLOPS):
        return Stack(1, f"a step of {flops:.1e} flops keeps a processor busy by itself")
    numbers_per_copy = 4 * run.network.size + 4 * flops / max(run.network.size, 1)
    bytes_per_copy = numbers_per_copy * torch.finfo(run.network.dtype).bits / 8
    return Stack(int(np.clip((STACK_BYTES_GPU if on_gpu else STACK_BYTES) / bytes_per_copy, 2, MAX_COPIES)))


def _why_not_stackable(run: Run, losses: Tensor) -> str:
    """Why a stacked step fails or gives other losses; empty if it works."""
    if isinstance(run.training.optimiser, UpdateRule):
        return "an update rule of your own takes one net at a time"
    if any(len(run.passes(t)) > 1 for t in range(run.steps)):
        return "a step accumulates the gradients of several batches"
    copies = StackedRuns([run, run])
    try:
        theta = copies.initial_parameters()
        stacked_losses = copies.losses(theta, copies.inputs(0))
        torch.autograd.grad(stacked_losses.sum(), theta, allow_unused=True)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    close = torch.allclose(stacked_losses.detach(), losses.expand(2, -1), rtol=1e-3, atol=1e-5)
    return "" if close else "the losses of a stacked step differ"


class StackedRuns:
    """The runs of many copies, made together step by step. If all runs are the same object, they share their batches.

    Every parameter is one tensor (M, *shape), so that a step neither splits nor joins tensors.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.shared = all(run is runs[0] for run in runs)
        self._whole = LossModule(runs[0].network, "loss")
        self._names = [f"net.{name}" for name in runs[0].network.names]
        self._batch: Any = None  # the batch of the step, for its values that are not tensors

    def initial_parameters(self) -> list[Tensor]:
        """The parameters before the first step."""
        names, parameters = self.runs[0].network.names, [run.network.parameters() for run in self.runs]
        return [torch.stack([of_run[name].detach() for of_run in parameters]).requires_grad_() for name in names]

    def inputs(self, t: int) -> list[Tensor]:
        """The tensors of the batch of step t; if every copy has its own batches, those of all copies, stacked."""
        batches = [run.batch(t) for run in (self.runs[:1] if self.shared else self.runs)]
        self._batch = batches[0]
        if not self.shared:
            return [torch.stack(same) for same in zip(*(batch_tensors(b) for b in batches), strict=True)]
        try:
            return batch_tensors(batches[0])
        except TypeError:  # a batch of unknown structure is passed to the loss unchanged
            return []

    def losses(self, theta: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Losses (M, batch) of the step of the latest `inputs`."""

        def copy_losses(parameters: list[Tensor], tensors: list[Tensor]) -> Tensor:
            following = iter(tensors)
            batch = map_tensors(lambda _: next(following), self._batch) if tensors else self._batch
            named = dict(zip(self._names, parameters, strict=True))
            with StackedOperations():
                losses: Tensor = call_with(self._whole, named, batch)
            return losses

        if not self.shared:
            return torch.func.vmap(copy_losses)(list(theta), list(inputs))
        return torch.func.vmap(copy_losses, in_dims=(0, None), randomness="same")(list(theta), list(inputs))

    def gradient(self, theta: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        """∂J/∂θ, one tensor per parameter; the last of `inputs` are the shares of the examples, (M, batch)."""
        objective = (self.losses(theta, inputs[:-1]) * inputs[-1]).sum()
        gradients = torch.autograd.grad(objective, theta, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, theta, strict=True)]

    def shares(self, t: int, weights: Array) -> Tensor:
        """wᵢ/d_t of the batch of step t for weights (M, n)."""
        if self.shared:
            return self.runs[0].shares(t, weights)
        return torch.stack([run.shares(t, row) for run, row in zip(self.runs, weights, strict=True)])


def train_stacked(runs: Sequence[Run], weights: Array, min_traced_steps: int = MIN_TRACED_STEPS) -> Tensor:
    """Train one copy for every run and row of weights (M, n); (M, p) parameters.

    Steps of one shape are traced if there are at least `min_traced_steps` of them.

    Raises:
        ValueError: runs with different numbers of steps or sizes of batches; training that diverged.
    """
    sizes = {tuple(len(p) for p in run.positions) for run in runs}
    if len(sizes) > 1:
        raise ValueError("expected runs with equally many steps and equally large batches")
    copies, first = StackedRuns(runs), runs[0]
    # Batches from the user's own collate may differ in values that are not tensors, which a trace does not see.
    traceable = first.network.device == CPU and first.collated is not None
    with preserve_random_state(first.network.device), plain_attention():
        try:
            parts = _train(copies, weights, _StepGradients(copies, min_traced_steps if traceable else None))
        except UntraceableError:
            parts = _train(copies, weights, _StepGradients(copies, None))
    theta = torch.cat([flatten_each(part.detach()) for part in parts], dim=1)
    require_finite(theta, first.steps)
    return theta


def _train(copies: StackedRuns, weights: Array, step_gradients: _StepGradients) -> list[Tensor]:
    training, settings = copies.runs[0].training, copies.runs[0].settings
    theta, unclipped = copies.initial_parameters(), replace(training, clip=None)
    states = [initial_state(training, part.detach()) for part in theta]
    for t in counted(range(copies.runs[0].steps), copies.runs[0].steps):
        gradients = step_gradients(theta, t, [*copies.inputs(t), copies.shares(t, weights)])
        with torch.no_grad():
            if training.clip is not None:
                _clip(gradients, training.clip)
            for position, gradient in enumerate(gradients):
                part, state = theta[position], states[position]
                factors = StepFactors(t, settings.rate_of(position, t), settings.decay_of(position))
                states[position] = update(unclipped, part, state, gradient, factors, in_place=True)[1]
    return [trained_parameters(training, *pair) for pair in zip(theta, states, strict=True)]


def _clip(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Clip the gradient of every copy to this norm over all of its parameters, in place."""
    norms = torch.stack([torch.linalg.vector_norm(flatten_each(part), dim=1) for part in gradients])
    factor = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + CLIP_EPSILON)).clamp(max=1.0)
    for part in gradients:
        part.mul_(factor.view(-1, *[1] * (part.ndim - 1)))


class _StepGradients:
    """The gradient of every step, in separate memory: by Python, or by a trace if many steps have the same shape.

    A trace is compared with Python at the second and at the last step of its shape.

    Args:
        copies: the runs.
        min_traced_steps: how many steps of one shape it takes to trace them; None never traces.

    Raises:
        UntraceableError: trace and Python differ, or the step cannot be traced.
    """

    def __init__(self, copies: StackedRuns, min_traced_steps: int | None) -> None:
        sizes = [len(p) for p in copies.runs[0].positions]
        self._copies = copies
        self._traced_sizes = {
            size for size, steps in Counter(sizes).items() if min_traced_steps is not None and steps >= min_traced_steps
        }
        self._last_step = {size: t for t, size in enumerate(sizes)}
        self._traces: dict[Any, Callable[..., Sequence[Tensor]]] = {}
        self._checked: set[Any] = set()

    def __call__(self, theta: Sequence[Tensor], t: int, inputs: list[Tensor]) -> list[Tensor]:
        """∂J/∂θ of step t for the latest inputs."""
        shape, run = tuple(part.shape for part in inputs), self._copies.runs[0]
        size = len(run.positions[t])
        if size not in self._traced_sizes or len(inputs) == 1:
            return _unshare(self._copies.gradient(theta, inputs), (*theta, *inputs, *run.network.net.buffers()))
        if shape in self._checked and t < self._last_step[size]:
            with torch.no_grad():
                return _unshare(self._traces[shape](*inputs), ())
        gradients = self._copies.gradient(theta, inputs)
        seed_torch(run.network.device, run.step_seeds[t])
        if shape in self._traces:
            with torch.no_grad():
                traced = self._traces[shape](*inputs)
            if not all(torch.equal(a, b) for a, b in zip(gradients, traced, strict=True)):
                raise UntraceableError("a later step is not a repetition of the traced one")
            self._checked.add(shape)
        else:
            self._traces[shape] = trace(self._copies.gradient, theta, inputs)
        return _unshare(gradients, (*theta, *inputs, *run.network.net.buffers()))


def _unshare(gradients: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The gradients, copied if they share memory with each other or with `others`, because they are overwritten."""
    taken, separate = {tensor.untyped_storage().data_ptr() for tensor in others}, []
    for gradient in gradients:
        pointer = gradient.untyped_storage().data_ptr()
        is_separate = gradient.is_contiguous() and pointer not in taken
        separate.append(gradient if is_separate else gradient.clone(memory_format=torch.contiguous_format))
        taken.add(pointer)
    return separate
