"""Inner products of a vector with loss gradients, token by token: by the token that the loss is about, or by position.

By target: dℓ_it/dε at θ + εv, for all tokens of a batch in one forward-mode pass. By position: the parameter gradient
of a sequence is a sum over the positions of its computation, s_t a_tᵀ for a linear layer, and each has its product with
v. The loss of a token reaches the positions before it through attention, so that the two differ; both add up to vᵀ∇ℓᵢ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel

from upweight.core.examples import Examples
from upweight.core.token_scoring import Split, TokenProducts
from upweight.gradients.call_sites import HookedCall
from upweight.gradients.functional import call_with, gradient_rows
from upweight.gradients.hooks import HookedPass
from upweight.gradients.inspection import inspect, inspections_of
from upweight.gradients.layers import LeafKind
from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network
from upweight.gradients.token_loss import SplitLoss, Text, TokenLoss

Array = NDArray[np.float64]
MAX_BATCH_EXAMPLES = 8  # of a pass over a network that was not inspected
Blocks = Mapping[str, Tensor]  # name → (*shape)
PRODUCT_TOLERANCE = 1e-4  # relative difference up to which products of positions add up to those of the module


@dataclass(frozen=True, eq=False)
class _Batch:
    """Products of one padded batch.

    Attributes:
        values: (n, L), by position in the text.
        rest: (n,), those that belong to no position.
        targets: (n, L), whether the loss is about the token.
        text: the tokens, and which of them are padding.
    """

    values: Tensor
    rest: Tensor
    targets: Tensor
    text: Text

    def cut(self) -> list[TokenProducts]:
        """One entry per example, without padding."""
        out = []
        outside = torch.where(self.text.present, 0.0, self.values).sum(1) + self.rest
        for row in range(len(self.values)):
            present = self.text.present[row]
            out.append(
                TokenProducts(
                    _numpy(self.text.ids[row][present]),
                    _numpy(self.values[row][present]).astype(np.float64),
                    _numpy(self.targets[row][present]),
                    float(outside[row]),
                )
            )
        return out


def token_products(
    network: Network, examples: Examples, vector: Array, by: Split, weights: Array, share: float
) -> list[TokenProducts]:
    """⟨v, wᵢ ∇ℓ_it⟩ of all tokens t of the examples, a batch at a time; wᵢ · share is added to `rest`."""
    split = products_by_target if by == "target" else products_by_position
    blocks = {name: block[0] for name, block in network.split(vector[None]).items()}
    size = _batch_size(network) if by == "target" else inspect(network, "loss", examples).batch_size
    out: list[TokenProducts] = []
    for part in examples.batches(size):
        out += split(network, part, blocks)
    return [
        replace(each, values=each.values * weight, rest=(each.rest + share) * weight)
        for each, weight in zip(out, weights.tolist(), strict=True)
    ]


def _batch_size(network: Network) -> int:
    """Examples per pass: the batch size of captured gradients if the network was inspected."""
    return min((inspection.batch_size for inspection in inspections_of(network)), default=MAX_BATCH_EXAMPLES)


def token_ids(network: Network, examples: Examples) -> list[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """(token ids, which are targets) of every example, without padding, by forward passes."""
    loss, out = token_loss_of(network), []
    for part in examples.batches(_batch_size(network)):
        batch = network.batch(part)
        with network.preserved(), torch.no_grad():
            split = loss.split(network.net, batch)
            text = loss.text(network.net, batch, split.parts.shape[1], len(part))
        zeros = torch.zeros(text.ids.shape)
        cut = _Batch(zeros, zeros[:, 0], _placed(split.targets, text), text).cut()
        out += [(each.ids, each.targets) for each in cut]
    return out


def products_by_target(network: Network, examples: Examples, vector: Blocks) -> list[TokenProducts]:
    """⟨v, ∇ℓ_it⟩ of every target token t of the examples, by one forward-mode pass, in float32 or better.

    Attention runs in its plain form, since the fused kernels have no forward mode; an operator that has none either is
    differentiated by two backward passes instead. The net is left unchanged.
    """
    loss, network = token_loss_of(network), network.widened()
    batch = network.batch(examples)
    with network.preserved(), sdpa_kernel(SDPBackend.MATH):
        try:
            split, slopes = _forward_mode(network, loss, batch, vector)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError):  # an operator without forward mode
            split, slopes = _double_backward(network, loss, batch, vector)
        text = loss.text(network.net, batch, slopes.shape[1], len(examples))
    rest = slopes.new_zeros(len(slopes))
    return _Batch(_placed(slopes, text), rest, _placed(split.targets, text), text).cut()


def products_by_position(network: Network, examples: Examples, vector: Blocks) -> list[TokenProducts]:
    """⟨v, the part of ∇ℓᵢ that comes from position t of the computation⟩, by one backward pass.

    `rest` holds what belongs to no position: parameters that hooks miss, and layers without an axis of positions.
    """
    loss, network = token_loss_of(network), network.widened()
    inspection, batch = inspect(network, "loss", examples), network.batch(examples)
    vector = {name: block.to(network.device, network.precision) for name, block in vector.items()}
    with network.preserved():
        with HookedPass(network, len(examples), inspection.layouts, frozenset(inspection.fallback)) as hooked:
            split = loss.split(network.net, batch)
            losses = split.parts.sum(1)
        text = loss.text(network.net, batch, split.parts.shape[1], len(examples))
        values = torch.zeros(text.ids.shape, dtype=network.precision, device=network.device)
        rest = values.new_zeros(len(values))
        edges = [*(call.edge for call in hooked.calls), *map(get_gradient_edge, hooked.stretched.values())]
        slopes = torch.autograd.grad(losses, edges, torch.ones_like(losses), allow_unused=True)
        with torch.no_grad():
            for call, slope in zip(hooked.calls, slopes, strict=False):
                if slope is not None:
                    _add_call(values, rest, hooked, call, slope, vector)
            for name, slope in zip(hooked.stretched, slopes[len(hooked.calls) :], strict=True):
                if slope is not None:
                    rest += flatten_each(slope.to(rest)) @ vector[name].flatten()
        if inspection.fallback:
            rows = gradient_rows(network, "loss", examples, inspection.fallback, inspection.sliced)
            rest += sum((flatten_each(row) @ vector[name].flatten() for name, row in rows.items()), rest.new_zeros(()))
    return _Batch(values, rest, _placed(split.targets, text), text).cut()


def token_loss_of(network: Network) -> TokenLoss:
    """The network's loss. Raises TypeError if it is not given token by token."""
    loss = TokenLoss.of(network.loss)
    if loss is None:
        raise TypeError(
            "scores of tokens need the loss of every token; make the model by uw.hf, or pass TorchModel(net, "
            "uw.TokenLoss(token_losses)) with token_losses(net, batch) -> (n, T)"
        )
    return loss


class _TokenModule(nn.Module):
    """Net and token losses as one module, so that parameters can be replaced."""

    def __init__(self, net: nn.Module, loss: TokenLoss) -> None:
        super().__init__()
        self.net, self._loss = net, loss

    def forward(self, batch: Any) -> SplitLoss:
        return self._loss.split(self.net, batch)


def _forward_mode(network: Network, loss: TokenLoss, batch: Any, vector: Blocks) -> tuple[SplitLoss, Tensor]:
    """(the token losses, their derivatives along v)."""
    module = _TokenModule(network.net, loss)
    primals = {f"net.{name}": p.detach() for name, p in network.parameters().items()}
    tangents = {f"net.{name}": vector[name].to(p) for name, p in network.parameters().items()}

    def parts(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        split: SplitLoss = call_with(module, parameters, batch)
        return split.parts, split.targets

    with torch.no_grad():
        values, slopes, targets = torch.func.jvp(  # type: ignore[misc]  # three values with has_aux
            parts, (primals,), (tangents,), has_aux=True
        )
    return SplitLoss(values, targets), slopes


def _double_backward(network: Network, loss: TokenLoss, batch: Any, vector: Blocks) -> tuple[SplitLoss, Tensor]:
    """The same by two backward passes: J v is the derivative of u ↦ Jᵀu."""
    split = loss.split(network.net, batch)
    parameters = network.parameters()
    dummy = torch.zeros_like(split.parts, requires_grad=True)
    transposed = torch.autograd.grad(
        split.parts, list(parameters.values()), dummy, create_graph=True, allow_unused=True
    )
    used = [(g, vector[name].to(g)) for name, g in zip(parameters, transposed, strict=True) if g is not None]
    (slopes,) = torch.autograd.grad([g for g, _ in used], dummy, [v for _, v in used])
    return SplitLoss(split.parts.detach(), split.targets), slopes


def _placed(columns: Tensor, text: Text) -> Tensor:
    """Values by columns of the losses (n, T), at the positions of the text (n, L)."""
    placed = columns.new_zeros(text.ids.shape)
    placed[:, text.first : text.first + columns.shape[1]] = columns
    return placed


def _add_call(
    values: Tensor, rest: Tensor, hooked: HookedPass, call: HookedCall, slope: Tensor, vector: Blocks
) -> None:
    """Add the products of one call of a module to those of the positions (n, L), or to those of none (n,)."""
    wide, (count, length) = values.dtype, values.shape
    inputs = call.inputs.to(wide) if call.inputs.is_floating_point() else call.inputs
    inputs, slope = hooked.arranged(inputs, call.layout), hooked.arranged(slope.to(wide), call.layout, output=True)
    positions = slope.shape[1] if slope.ndim > 2 else 0  # otherwise the second axis may be that of the features
    has_positions = positions in (length, length - 1) and inputs.shape[:2] == slope.shape[:2]
    if has_positions and (call.kind.positional or isinstance(call.kind, LeafKind)):
        each = _products(call, inputs.flatten(0, 1)[:, None], slope.flatten(0, 1)[:, None], vector).view(
            count, positions
        )
        whole = each.sum(1) if call.kind.positional else _products(call, inputs, slope, vector)
        if torch.allclose(each.sum(1), whole, rtol=PRODUCT_TOLERANCE, atol=PRODUCT_TOLERANCE * float(each.abs().max())):
            values[:, :positions] += each
            return
        rest += whole  # a module that mixes positions
        return
    rest += _products(call, inputs, slope, vector)


def _products(call: HookedCall, inputs: Tensor, slope: Tensor, vector: Blocks) -> Tensor:
    """The products of one call with v, one per entry of the first axis."""
    terms = call.kind.terms(call.module, call.kind.prepare_input(call.module, inputs), slope)
    products = [terms[local].dot_vectors(vector[name][None])[:, 0] for local, name in call.names.items()]
    return sum(products, torch.zeros_like(products[0]))


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().cpu().numpy())
