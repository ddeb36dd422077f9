"""The curvature matrix of a net that is linear in its trainable parameters, assembled in closed form.

Softmax or linear regression, or the last layer of any net whose other layers are frozen: outputs z = W a + b. Then the
Hessian of the loss equals the Gauss–Newton matrix, and both are Σᵢ wᵢ Λᵢ ⊗ ãᵢãᵢᵀ with Λᵢ the Hessian of the loss in
the outputs.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.curvature.kfac import with_ones
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_batch import LayerFactors
from upweight.gradients.hooks import HookedPass
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network
from upweight.gradients.outputs import NoOutputsError, outputs

MAX_BATCH_EXAMPLES = 4096
STRIPS, MIN_STRIP = 8, 64  # of a symmetric product
MAX_OUTPUTS = 128  # of one example; the cost is outputs² products of d × n, and outputs² numbers per example


def linear_head_matrix(summed: SummedObjective, batch_examples: int = MAX_BATCH_EXAMPLES) -> Tensor | None:
    """Σᵢ wᵢ Λᵢ ⊗ ãᵢãᵢᵀ in float64, parameters in the network's order; None if the net is not such a head.

    Cost: outputs (outputs + 1)/2 products of d × n and n × d.
    """
    network, train = summed.network, summed.train
    total: Tensor | None = None
    if set(network.shapes) - _names_in_first_module(network) or inspect(network, "loss", train).fallback:
        return None
    for where in blocks(len(train), batch_examples):
        captured = _factors(network, train.take(np.arange(where.start, where.stop)))
        if captured is None:
            return None
        factors, hessians = captured
        if total is None:
            total = torch.zeros(network.size, network.size, dtype=torch.float64, device=factors.a.device)
        weighted = hessians * torch.as_tensor(summed.weights[where]).to(hessians)[:, None, None]
        _add_kronecker(total, with_ones(factors)[:, 0], weighted, _places(factors, network))
    return total


def is_linear_head(summed: SummedObjective) -> bool:
    """Whether the net's output is linear in its trainable parameters, by two examples."""
    network, train = summed.network, summed.train
    if set(network.shapes) - _names_in_first_module(network) or inspect(network, "loss", train).fallback:
        return False
    return _factors(network, train.take(np.arange(min(2, len(train))))) is not None


def _names_in_first_module(network: Network) -> set[str]:
    """Names of the parameters in the module of the first parameter."""
    module = network.names[0].rpartition(".")[0]
    return {name for name in network.names if name.rpartition(".")[0] == module}


def _factors(network: Network, part: Examples) -> tuple[LayerFactors, Tensor] | None:
    """The layer's factors and the output Hessians (B, C, C); None unless the layer's output is the net's output."""
    layouts = inspect(network, "loss", part).layouts
    with network.preserved(), HookedPass(network, len(part), layouts) as hooked:
        try:
            out = outputs(network, network.batch(part), part.ids)
        except NoOutputsError:
            return None
        if out.values.ndim != 2 or out.values.shape[1] > MAX_OUTPUTS:
            return None
        probe = torch.linspace(1, 2, out.values.numel()).to(out.values).view_as(out.values)
        layers = list(hooked.backpropagate(out.values, probe).layers())
        if len(layers) != 1 or layers[0].s.shape[1] != 1 or not torch.equal(layers[0].s[:, 0], probe.to(layers[0].s)):
            return None
        return layers[0], out.hessians().to(layers[0].a)


def _places(factors: LayerFactors, network: Network) -> list[list[tuple[slice, slice]]]:
    """Of every output: (positions among the network's parameters, in ãᵢ) of its weights and its bias."""
    d_i, d_o = factors.a.shape[-1], factors.s.shape[-1]
    sizes = [prod(network.shapes[name]) for name in network.names]
    starts = dict(zip(network.names, np.cumsum([0, *sizes]).tolist(), strict=False))
    weight, places = starts[factors.weight], []
    for output in range(d_o):
        if factors.swapped:
            weights = slice(weight + output, weight + d_i * d_o, d_o)
        else:
            weights = slice(weight + output * d_i, weight + (output + 1) * d_i)
        pieces = [(weights, slice(0, d_i))]
        if factors.bias is not None:
            bias = starts[factors.bias] + output
            pieces.append((slice(bias, bias + 1), slice(d_i, d_i + 1)))
        places.append(pieces)
    return places


def _add_kronecker(total: Tensor, a: Tensor, hessians: Tensor, places: list[list[tuple[slice, slice]]]) -> None:
    """total += Σᵢ Λᵢ ⊗ aᵢaᵢᵀ, block by block where the network has its parameters."""
    gram = a.new_empty(a.shape[1], a.shape[1])
    for row in range(len(places)):
        for column in range(row, len(places)):
            _weighted_gram(a, hessians[:, row, column], gram)
            for to_row, from_row in places[row]:
                for to_column, from_column in places[column]:
                    block = gram[from_row, from_column]
                    total[to_row, to_column] += block
                    if row != column:
                        total[to_column, to_row] += block.T


def _weighted_gram(a: Tensor, weights: Tensor, out: Tensor) -> None:
    """Σᵢ weightᵢ aᵢaᵢᵀ, strip by strip up to the diagonal: it is symmetric, and half of the flops are saved."""
    width = max(MIN_STRIP, -(-a.shape[1] // STRIPS))
    for strip in blocks(a.shape[1], width):
        products = (a[:, strip] * weights[:, None]).T @ a[:, : strip.stop]
        out[strip, : strip.stop] = products
        out[: strip.start, strip] = products[:, : strip.start].T
