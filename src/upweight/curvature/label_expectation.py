"""The expectation over labels: gradients along the square root of every output Hessian, all of them or a few draws.

The Gauss–Newton matrix of one example is Jᵀ Λ J with Λ the Hessian of its loss in the outputs. With Λ = Σ_c u_c u_cᵀ
it is Σ_c (Jᵀu_c)(Jᵀu_c)ᵀ: as many gradients as Λ has rank. For cross-entropy Λ = E_y[(p − e_y)(p − e_y)ᵀ], so this is
the true Fisher without sampling a label. A sequence has as many directions as tokens × vocabulary; of these, sums with
random signs u = Σ_c ±u_c are pulled back, whose E[u uᵀ] is Λ again.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.curvature.output_roots import MAX_BLOCK_NUMBERS, output_root
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.hooks import HookedPass
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network
from upweight.gradients.outputs import Outputs, joint_axes, outputs

MAX_BATCH_EXAMPLES = 256  # examples at a time
NEGLIGIBLE_TRACE = 1e-6  # share of the batch's trace below which a direction is left out
MAX_EXACT_OUTPUTS = 256  # outputs of an example up to which every direction is pulled back
TOTAL_DRAWS = 256  # draws over all examples that are taken beyond
MAX_DRAWS_PER_EXAMPLE = 4  # draws of an example at most


class LabelGradients(NamedTuple):
    """√wᵢ Jᵢᵀu_c of one batch: which direction c, which positions among the examples, the gradients."""

    direction: int
    where: slice
    captured: CapturedBatch


def expected_gradients(
    summed: SummedObjective, sample: tuple[Examples, NDArray[np.float64]] | None = None, seed: int = 0
) -> Iterator[tuple[int, CapturedBatch]]:
    """(c, √wᵢ Jᵢᵀu_c) of what `expected_batches` gives."""
    return ((c, captured) for c, _, captured in expected_batches(summed, sample, seed))


def expected_batches(
    summed: SummedObjective, sample: tuple[Examples, NDArray[np.float64]] | None = None, seed: int = 0
) -> Iterator[LabelGradients]:
    """For every batch of training examples, or of a sample with its weights, and every direction of output Hessians.

    Beyond `MAX_EXACT_OUTPUTS` outputs directions are drawn, by the ids of the examples and the seed: in any order and
    any batches an example has the same draws. Parameters that hooks cannot see are absent from what is yielded.

    Raises:
        NoOutputsError: the loss is no function of one output of the net.
        ValueError: blocks of the output Hessian that are too large to be held.
    """
    network = summed.network
    draws = draws_per_example(summed)
    examples, weights = (summed.train, summed.weights) if sample is None else sample
    found = inspect(network, "loss", examples)
    size = min(MAX_BATCH_EXAMPLES, found.batch_size) if draws is None else _fitting_batch_size(summed, found.batch_size)
    for start in range(0, len(examples), size):
        where = np.arange(start, min(start + size, len(examples)))
        part = examples.take(where)
        pulled: list[CapturedBatch] = []
        with network.preserved(), HookedPass(network, len(part), found.layouts, frozenset(found.fallback)) as tape:
            out = outputs(network, network.batch(part), part.ids)
            weighs = torch.as_tensor(weights[where]).to(out.values)
            directions = (
                _all_directions(out, weighs) if draws is None else _draw_directions(out, summed, part, draws, seed)
            )
            for c, direction in enumerate(directions):
                cotangent = (direction.flatten(1) * weighs.sqrt()[:, None]).reshape(out.values.shape)
                pulled.append(tape.backpropagate(out.values, cotangent, keep=c < len(directions) - 1))
        yield from (LabelGradients(c, slice(start, start + size), captured) for c, captured in enumerate(pulled))


def draws_per_example(summed: SummedObjective) -> int | None:
    """How many directions of every example are drawn; None where all of them are taken."""
    network, examples = summed.network, summed.train
    with network.preserved():
        few = examples.take([0])
        count = outputs(network, network.batch(few), few.ids).values[0].numel()
    return None if count <= MAX_EXACT_OUTPUTS else min(MAX_DRAWS_PER_EXAMPLE, max(1, -(-TOTAL_DRAWS // len(examples))))


def label_expectation(summed: SummedObjective) -> str:
    """ "exact" or "sampled, k draws"."""
    draws = draws_per_example(summed)
    return "exact" if draws is None else f"sampled, {draws} draw{'s' * (draws > 1)}"


def independent_losses(network: Network, examples: Examples, copies: NDArray[np.float64]) -> float:
    """Of how many parts that do not share an output the losses of all examples are the sum: one each, or their tokens.

    Tokens that no loss depends on (padding) are none; every example is there in so many `copies` (n,).
    """
    joint, found, few = joint_axes(network, examples), 0.0, examples.take([0])
    with network.preserved():
        shape = outputs(network, network.batch(few), few.ids).values.shape[1:]
    if len(shape) == joint:
        return float(copies.sum())
    size = min(
        MAX_BATCH_EXAMPLES, inspect(network, "loss", examples).batch_size, max(1, MAX_BLOCK_NUMBERS // prod(shape))
    )
    for start, part in zip(range(0, len(examples), size), examples.batches(size), strict=True):
        with network.preserved():
            out = outputs(network, network.batch(part), part.ids)
        u = torch.randn(out.values.shape, generator=torch.Generator().manual_seed(0)).to(out.values)
        bent = (
            out.hessian_product()(u).flatten(out.values.ndim - joint) if joint else out.hessian_product()(u)[..., None]
        )
        parts = (bent != 0).any(dim=-1).flatten(1).sum(dim=1).cpu().numpy()
        found += float(parts @ copies[start : start + len(part)])
    return max(found, 1.0)


def square_roots(hessians: Tensor, weights: Tensor | None = None) -> Iterator[Tensor]:
    """Vectors u (B, C), strongest first, with Σ u uᵀ = Λ up to a negligible share of the (weighted) trace.

    Negative eigenvalues (a loss that is not convex in its outputs) are left out: the Gauss–Newton matrix takes Λ
    positive semidefinite.
    """
    values, vectors = torch.linalg.eigh(hessians.double())
    values = values.clamp_min(0.0)
    weighs = weights is not None and bool(weights.any())  # a checkpoint that is not travelled to weighs nothing at all
    traces = (values * weights[:, None] if weighs and weights is not None else values).sum(dim=0)
    total = float(traces.sum())
    for c in range(values.shape[1] - 1, -1, -1):
        if float(traces[c]) > NEGLIGIBLE_TRACE * total:
            yield (vectors[:, :, c] * values[:, c, None].sqrt()).to(hessians.dtype)


def _fitting_batch_size(summed: SummedObjective, size: int) -> int:
    """Examples whose blocks can be decomposed together; as many as there are where not even those of one can be."""
    joint, network, few = joint_axes(summed.network, summed.train), summed.network, summed.train.take([0])
    with network.preserved():
        shape = outputs(network, network.batch(few), few.ids).values.shape[1:]
    fitting = MAX_BLOCK_NUMBERS // (prod(shape) * prod(shape[len(shape) - joint :]))
    return min(size, fitting or size)


def _all_directions(out: Outputs, weights: Tensor) -> list[Tensor]:
    return [u for u in square_roots(out.hessians(), weights) if float(u.abs().max()) > 0]


def _draw_directions(out: Outputs, summed: SummedObjective, part: Examples, draws: int, seed: int) -> list[Tensor]:
    """Λ^½ ε / √draws of random signs ε, which an example has from its id."""
    root = output_root(out, joint_axes(summed.network, summed.train))
    keys = [crc32(repr(i).encode()) for i in part.ids.tolist()]
    shape, like = out.values.shape, out.values.detach()
    found = []
    for draw in range(draws):  # a stream for each: what padding takes of one moves no other
        streams = [np.random.default_rng([seed, key, draw]) for key in keys]
        signs = np.stack([stream.integers(0, 2, shape[1:], dtype=np.int8) for stream in streams])
        found.append(root((2 * torch.as_tensor(signs) - 1).to(like)) / draws**0.5)
    return found
