"""Stacked: many copies of a small net trained at once, each with its own example weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from upweight.core.model import Stack
from upweight.gradients.batches import mapped
from upweight.gradients.functional import Whole, leaves, plain_attention
from upweight.training.batched import Batched
from upweight.training.rule import begin, update
from upweight.training.run import Run, flat, require_finite, seeded

Array = NDArray[np.float64]
WORTH = 3e7  # flops of a step above which the arithmetic of one copy keeps a processor busy by itself
WORTH_GPU = 3e9
ROOM = 32 << 20  # bytes of the copies that are trained at once: larger stacks gain nothing any more
ROOM_GPU = 2 << 30
MOST = 128


def stack(run: Run) -> Stack:
    """How many copies of this run to train at once. The answer depends on net and batch alone, never on the clock."""
    on_gpu = run.network.device.type == "cuda"
    with seeded(run.network.device):
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
    theta = flat(list(run.network.parameters().values())).expand(2, -1).clone().requires_grad_()
    try:
        found = Copies([run, run]).losses(theta, 0)
        torch.autograd.grad(found.sum(), theta)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    close = torch.allclose(found.detach(), losses.expand(2, -1), rtol=1e-3, atol=1e-5)
    return "" if close else "its losses come out otherwise"


class Copies:
    """The runs of many copies, step by step together; runs that are the same object share their batches."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.shared = all(run is runs[0] for run in runs)
        network = runs[0].network
        self._whole = Whole(network, "loss")
        self._shapes = [network.shapes[name] for name in network.names]
        self._sizes = [p.numel() for p in network.parameters().values()]
        self._names = [f"net.{name}" for name in network.names]

    def losses(self, theta: Tensor, t: int) -> Tensor:
        """Losses (M, batch) of step t at parameters (M, p)."""
        if self.shared:
            batch = self.runs[0].batch(t)
            return torch.func.vmap(lambda row: self._losses(row, batch), randomness="same")(theta)
        batches = [run.batch(t) for run in self.runs]
        tensors = [torch.stack(same) for same in zip(*(leaves(b) for b in batches), strict=True)]

        def one(row: Tensor, mine: list[Tensor]) -> Tensor:
            waiting = iter(mine)
            return self._losses(row, mapped(lambda _: next(waiting), batches[0]))

        return torch.func.vmap(one)(theta, tensors)

    def _losses(self, row: Tensor, batch: Any) -> Tensor:
        parts = zip(self._names, torch.split(row, self._sizes), self._shapes, strict=True)
        with Batched():
            found: Tensor = torch.func.functional_call(self._whole, {n: v.view(s) for n, v, s in parts}, (batch,))
        return found


def stacked(runs: Sequence[Run], weights: Array) -> Tensor:
    """Train one copy for every run and row of weights (M, n); (M, p) parameters.

    Raises:
        ValueError: runs of different lengths or batches; training diverged.
    """
    sizes = {tuple(len(p) for p in run.positions) for run in runs}
    if len(sizes) > 1:
        raise ValueError("expected runs with equally many steps and equally large batches")
    copies, first = Copies(runs), runs[0]
    theta = torch.stack([flat(list(run.network.parameters().values())) for run in runs])
    state = begin(first.training, theta)
    theta.requires_grad_()
    with seeded(first.network.device), plain_attention():
        for t in range(first.steps):
            objective = (copies.losses(theta, t) * _shares(copies, weights, t)).sum()
            (gradient,) = torch.autograd.grad(objective, theta)
            with torch.no_grad():
                theta, state = update(first.training, theta, state, gradient, t, float(first.rates[t]), over=True)
    require_finite(theta, first.steps)
    return theta.detach()


def _shares(copies: Copies, weights: Array, t: int) -> Tensor:
    if copies.shared:
        return copies.runs[0].shares(t, weights)
    return torch.stack([run.shares(t, row) for run, row in zip(copies.runs, weights, strict=True)])
