"""Outputs: the net's own output inside a loss function, and the loss as a function of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.functional import plain_attention
from upweight.gradients.network import Network
from upweight.gradients.network_memo import NetworkMemo

CHECKED_EXAMPLES = 3  # examples on which the joint axes are checked
ROUNDING = 100  # units in the last place that a zero may have


class NoOutputsError(TypeError):
    """The loss is not a function of one output tensor of the net."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the net said of a batch, and what the loss makes of it.

    Attributes:
        values: the output (B, …) with its graph.
        losses: `losses(z) -> (B,)`, the loss as a function of an output of that shape.
    """

    values: Tensor
    losses: Callable[[Tensor], Tensor]

    def gradient(self) -> Tensor:
        """∂loss/∂output, (B, …)."""
        z = self.values.detach().requires_grad_(True)
        return torch.autograd.grad(self.losses(z).sum(), z)[0].detach()

    def hessian_product(self, weights: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """u ↦ (∇²_z loss) u, each example's times its weight (B,): what `ggn_vp` takes."""
        z = self.values.detach().requires_grad_(True)
        losses = self.losses(z)
        slope = torch.autograd.grad((losses if weights is None else losses * weights).sum(), z, create_graph=True)[0]

        def product(u: Tensor) -> Tensor:
            if not slope.requires_grad:  # a loss without curvature, |z| for one
                return torch.zeros_like(u)
            found = torch.autograd.grad(slope, z, u, retain_graph=True, allow_unused=True)[0]
            return torch.zeros_like(u) if found is None else found

        return product

    def hessians(self) -> Tensor:
        """∇²_z loss of every example, (B, C, C) for outputs of C numbers each (flattened): C products."""
        return self.hessian_blocks(self.values.ndim - 1)[:, 0]

    def hessian_blocks(self, joint: int) -> Tensor:
        """Diagonal blocks of ∇²_z loss over the last `joint` axes, (B, P, V, V): V products for all P positions."""
        shape, b = self.values.shape, len(self.values)
        size = prod(shape[self.values.ndim - joint :])
        product = self.hessian_product()
        columns = []
        for c in range(size):
            unit = torch.zeros(b, self.values[0].numel() // size, size).to(self.values.detach())
            unit[:, :, c] = 1.0
            columns.append(product(unit.view(shape)).detach().reshape_as(unit))
        return torch.stack(columns, dim=3)

    def joint_axes(self) -> int:
        """How many trailing axes of the output the loss's Hessian joins: 0 where it is diagonal, 1 for token losses.

        Losses of tokens that are only added do not interact: their Hessian is one block for each position. Every two
        positions differ in some bit of their numbers, so for each bit Λu of a u at the positions that have it must
        vanish at all others. What does not pass is taken as one block, all of `values.ndim - 1` axes.
        """
        product, ends = self.hessian_product(), self.values.shape[1:]
        drawn = torch.Generator().manual_seed(0)
        u = torch.randn(self.values.shape, generator=drawn, dtype=torch.float64).to(self.values)
        return next(
            joint
            for joint in range(len(ends) + 1)
            if joint == len(ends) or _apart(product, u, prod(ends[: len(ends) - joint]))
        )


def _apart(product: Callable[[Tensor], Tensor], u: Tensor, positions: int) -> bool:
    flat = u.reshape(len(u), positions, -1)
    for bit in range((positions - 1).bit_length()):
        has = (torch.arange(positions, device=u.device) >> bit) % 2 == 1
        found = product((flat * has[:, None]).view(u.shape)).detach().reshape_as(flat).abs()
        if not float(found[:, ~has].max()) <= ROUNDING * torch.finfo(u.dtype).eps * float(found.max()):
            return False
    return True


def outputs(network: Network, batch: Any, ids: Any) -> Outputs:
    """The net's output on a batch, found by looking at the one call of the net that the loss makes.

    Call it inside `network.preserved()`, and inside a `Tape` when its gradients are to be pulled.

    Raises:
        NoOutputsError: the loss does not call the net exactly once, or the output is not one tensor per batch (or an
            object with `logits`).
    """
    seen: list[Any] = []
    if isinstance(network.net, torch.jit.ScriptModule):
        raise NoOutputsError("a scripted net shows its output to nobody; pass the module that it was scripted from")
    handle = network.net.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        with plain_attention():
            network.values("loss", batch, ids)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise NoOutputsError(
            f"expected the loss to call the net once as net(...), it did {len(seen)} times: the Gauss–Newton matrix "
            "needs the loss as a function of the net's output; the Hessian and the empirical Fisher do not"
        )
    said = seen[0]
    values = said if isinstance(said, Tensor) else getattr(said, "logits", None)
    if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != len(ids):
        raise NoOutputsError(
            f"expected the net to return a tensor with one row per example ({len(ids)}) or an object with such logits, "
            f"got {type(said).__name__}"
        )

    def losses(z: Tensor) -> Tensor:
        answer = _Answer(network.net, _replaced(said, z))
        found = network.values("loss", batch, ids, net=answer)
        if not answer.asked:
            raise NoOutputsError("the loss does not call the net that it is given as its first argument, but another")
        return found

    return Outputs(values, losses)


_JOINT_AXES: NetworkMemo[int] = NetworkMemo()


def joint_axes(network: Network, examples: Examples) -> int:
    """Trailing axes of the output that the loss's Hessian joins; checked once per network, on a few examples."""

    def check() -> int:
        few = examples.take(np.unique(np.linspace(0, len(examples) - 1, CHECKED_EXAMPLES).astype(np.intp)))
        with network.preserved():
            return outputs(network, network.batch(few), few.ids).joint_axes()

    return _JOINT_AXES.get_or_make(network, check)


def share_joint_axes(source: Network, target: Network) -> None:
    """Let a network with the same modules and loss take over the joint axes of `source`, if they are known."""
    _JOINT_AXES.share(source, target)


class _Answer:
    """Stands in for the net: the same attributes, an answer that is given."""

    def __init__(self, net: Any, answer: Any) -> None:
        self._net, self._answer, self.asked = net, answer, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.asked = True
        return self._answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)


def _replaced(said: Any, z: Tensor) -> Any:
    if isinstance(said, Tensor):
        return z
    again = copy.copy(said)
    again.logits = z
    return again
