"""The output of the net inside a loss function, and the loss as a function of that output."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.batches import as_constant
from upweight.gradients.failed_calls import first_line
from upweight.gradients.functional import plain_attention
from upweight.gradients.network import Network, Quantity
from upweight.gradients.network_memo import NetworkMemo

CHECKED_EXAMPLES = 3  # examples on which the joint axes are checked
ROUNDING = 100  # in units in the last place, below which a number counts as zero


class NoOutputsError(TypeError):
    """The loss is not a function of one output tensor of the net, or has no second derivatives in it."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """The output of the net on a batch, and the loss as a function of it.

    Attributes:
        values: the output (B, …) with its graph.
        losses: `losses(z) -> (B,)`, the loss as a function of an output of that shape.
    """

    values: Tensor
    losses: Callable[[Tensor], Tensor]

    def wide_values(self) -> Tensor:
        """The output without its graph, in float32 or better: half precision is too coarse for second derivatives."""
        return self.values.detach().to(torch.promote_types(self.values.dtype, torch.float32))

    def gradient(self) -> Tensor:
        """∂loss/∂output, (B, …)."""
        z = self.wide_values().requires_grad_(True)
        return torch.autograd.grad(self._wide_losses(z).sum(), z)[0].detach()

    def hessian_product(self, weights: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The output-Hessian product u ↦ (∇²_z loss) u, with each example times its weight (B,); `ggn_vp` takes it."""
        z = self.wide_values().requires_grad_(True)
        losses = self._wide_losses(z)
        total = (losses if weights is None else losses * as_constant(weights)).sum()
        with _require_second_derivative():
            gradient = torch.autograd.grad(total, z, create_graph=True)[0]

        def product(u: Tensor) -> Tensor:
            if not gradient.requires_grad:  # a loss without curvature, such as |z|
                return torch.zeros_like(u)
            with _require_second_derivative():
                along = (gradient * as_constant(u.to(z))).sum()  # not by `grad_outputs`, for which torch imports sympy
                hessian_u = torch.autograd.grad(along, z, retain_graph=True, allow_unused=True)[0]
            return torch.zeros_like(u) if hessian_u is None else hessian_u

        return product

    def hessians(self) -> Tensor:
        """∇²_z loss of every example, (B, C, C) for C outputs (flattened): C products."""
        return self.hessian_blocks(self.values.ndim - 1)[:, 0]

    def hessian_blocks(self, joint: int) -> Tensor:
        """Diagonal blocks of ∇²_z loss over the last `joint` axes, (B, P, V, V) for P positions: V products."""
        shape, b = self.values.shape, len(self.values)
        size = prod(shape[self.values.ndim - joint :])
        product = self.hessian_product()
        columns = []
        for c in range(size):
            unit = torch.zeros(b, self.values[0].numel() // size, size).to(self.wide_values())
            unit[:, :, c] = 1.0
            columns.append(product(unit.view(shape)).detach().reshape_as(unit))
        return torch.stack(columns, dim=3)

    def _wide_losses(self, z: Tensor) -> Tensor:
        """`losses(z)`; a loss that accepts the precision of the output only is given that."""
        if z.dtype == self.values.dtype:
            return self.losses(z)
        try:
            return self.losses(z)
        except RuntimeError:
            return self.losses(z.to(self.values.dtype))

    def joint_axes(self) -> int:
        """How many trailing axes of the output the Hessian Λ of the loss joins: 0 if Λ is diagonal, 1 for token losses.

        A sum of token losses has one Hessian block per position, because the tokens do not interact. This is tested
        with random vectors u. Any two positions differ in some bit of their index, so for each bit, take u at the
        positions that have this bit and zero elsewhere: Λu must be zero at all other positions. If the test fails,
        Λ counts as one block over all `values.ndim - 1` axes.
        """
        product, axes = self.hessian_product(), self.values.shape[1:]
        generator = torch.Generator().manual_seed(0)
        u = torch.randn(self.values.shape, generator=generator, dtype=torch.float64).to(self.wide_values())
        return next(
            joint
            for joint in range(len(axes) + 1)
            if joint == len(axes) or _is_block_diagonal(product, u, prod(axes[: len(axes) - joint]))
        )


@contextmanager
def _require_second_derivative() -> Iterator[None]:
    """A context in which torch's error about a loss that it differentiates only once is a NoOutputsError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "derivative" not in text and "differentiate" not in text:
            raise
        raise NoOutputsError(f"torch differentiates the loss only once ({text.splitlines()[0]})") from error


def _is_block_diagonal(product: Callable[[Tensor], Tensor], u: Tensor, positions: int) -> bool:
    flat = u.reshape(len(u), positions, -1)
    for bit in range((positions - 1).bit_length()):
        chosen = (torch.arange(positions, device=u.device) >> bit) % 2 == 1
        sizes = product((flat * chosen[:, None]).view(u.shape)).detach().reshape_as(flat).abs()
        if not float(sizes[:, ~chosen].max()) <= ROUNDING * torch.finfo(u.dtype).eps * float(sizes.max()):
            return False
    return True


def outputs(network: Network, batch: Any, ids: Any) -> Outputs:
    """The output of the net on a batch, recorded by a hook while the loss calls the net.

    Call it inside `network.preserved()`, and inside a `HookedPass` if the output is to be backpropagated.

    Raises:
        NoOutputsError: the loss does not call the net exactly once, the output is neither a tensor with one row per
            example nor an object with such a tensor as `logits`, or the loss is not a function of the output alone.
    """
    output, values, recorded_losses = _record(network, batch, ids)

    def losses(z: Tensor) -> Tensor:
        return _losses_at(network, batch, ids, _with_values(output, z))

    if not _IS_FUNCTION_OF_OUTPUT.get(network):
        _require_function_of_output(recorded_losses, losses(values.detach()).detach())
        _IS_FUNCTION_OF_OUTPUT.get_or_make(network, lambda: True)
    return Outputs(values, losses)


def output_values(network: Network, batch: Any, ids: Any) -> Tensor:
    """The output of the net on a batch, (B, …), also if the loss is not a function of it alone.

    Raises NoOutputsError as `outputs` does, for a loss or an output of another form.
    """
    return _record(network, batch, ids)[1]


def losses_and_outputs(network: Network, batch: Any, ids: Any) -> tuple[Tensor, Tensor]:
    """The losses (B,) and the output of the net as `output_values` gives it, from one call of the loss."""
    _, values, losses = _record(network, batch, ids)
    return losses, values


def values_and_output(network: Network, quantity: Quantity, batch: Any, ids: Any) -> tuple[Tensor, Tensor]:
    """The losses or measurements (B,) with their graph, and the output of the net, from one call of the function."""
    values, output = _called(network, quantity, batch, ids)
    return values, _values_of(output, ids)


_IS_FUNCTION_OF_OUTPUT: NetworkMemo[bool] = NetworkMemo()  # checked once per network


def _record(network: Network, batch: Any, ids: Any) -> tuple[Any, Tensor, Tensor]:
    """(What the net returns, its tensor with one row per example, the losses), from one call of the loss."""
    with plain_attention():
        losses, output = _called(network, "loss", batch, ids)
    return output, _values_of(output, ids), losses.detach()


def _called(network: Network, quantity: Quantity, batch: Any, ids: Any) -> tuple[Tensor, Any]:
    """The losses or measurements, and what the net returned to the function."""
    recorded: list[Any] = []
    if isinstance(network.net, torch.jit.ScriptModule):
        raise NoOutputsError(
            "the output of a scripted net cannot be recorded; pass the module that it was scripted from"
        )
    handle = network.net.register_forward_hook(lambda module, args, output: recorded.append(output))
    try:
        values = network.values(quantity, batch, ids)
    finally:
        handle.remove()
    if len(recorded) != 1:
        raise NoOutputsError(
            f"expected the loss to call the net once as net(...), but it did so {len(recorded)} times: the "
            "Gauss–Newton matrix needs the loss as a function of the net's output"
        )
    return values, recorded[0]


def _values_of(output: Any, ids: Any) -> Tensor:
    """The tensor with one row per example in what the net returned."""
    values = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != len(ids):
        raise NoOutputsError(
            f"expected the net to return a tensor with one row per example ({len(ids)}) or an object with such logits, "
            f"got {type(output).__name__}"
        )
    return values


def _losses_at(network: Network, batch: Any, ids: Any, output: Any) -> Tensor:
    """The losses (B,) if the net returned this output."""
    stand_in = _FixedOutput(network.net, output)
    try:
        values = network.values("loss", batch, ids, net=stand_in)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NoOutputsError(
            f"expected a loss that is a function of the net's output alone, but with the output held fixed it cannot "
            f"be computed ({first_line(error)}): does it differentiate the output?"
        ) from error
    if not stand_in.called:
        raise NoOutputsError("expected the loss to call the net in its first argument, but it calls another net")
    return values


def _require_function_of_output(losses: Tensor, repeated: Tensor) -> None:
    """Raise NoOutputsError if the losses differ when the net's output is held fixed."""
    tolerance = torch.finfo(losses.dtype).eps ** 0.5 * float(losses.abs().max())
    if not float((repeated - losses).abs().max()) <= tolerance:
        raise NoOutputsError(
            f"expected a loss that is a function of the net's output alone, but with the output held fixed it is "
            f"{repeated.tolist()[:3]} in place of {losses.tolist()[:3]}: does it differentiate the output?"
        )


_JOINT_AXES: NetworkMemo[int] = NetworkMemo()


def joint_axes(network: Network, examples: Examples) -> int:
    """Trailing axes of the output that the Hessian of the loss joins; checked once per network, on a few examples."""

    def check() -> int:
        sample = examples.take(np.unique(np.linspace(0, len(examples) - 1, CHECKED_EXAMPLES).astype(np.intp)))
        with network.preserved():
            return outputs(network, network.batch(sample), sample.ids).joint_axes()

    return _JOINT_AXES.get_or_make(network, check)


def share_joint_axes(source: Network, target: Network) -> None:
    """Give the joint axes of `source`, if they are known, to a network with the same modules and loss."""
    _JOINT_AXES.share(source, target)


class _FixedOutput:
    """A stand-in for the net, with the same attributes, that returns a fixed output."""

    def __init__(self, net: Any, output: Any) -> None:
        self._net, self._output, self.called = net, output, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.called = True
        return self._output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)


def _with_values(output: Any, z: Tensor) -> Any:
    if isinstance(output, Tensor):
        return z
    replaced = copy.copy(output)
    replaced.logits = z
    return replaced
