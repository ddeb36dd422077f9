"""The expectation over labels: gradients along square roots of the output Hessians, all of them or a few draws.

The Gauss–Newton matrix of one example is Jᵀ Λ J with Λ the Hessian of its loss in the outputs. With Λ = Σ_c u_c u_cᵀ
it is Σ_c (Jᵀu_c)(Jᵀu_c)ᵀ: as many gradients as Λ has rank. For cross-entropy Λ = E_y[(p − e_y)(p − e_y)ᵀ], so this is
the true Fisher without sampling a label. A sequence has as many directions as tokens × vocabulary; of these, sums with
random signs u = Σ_c ±u_c are backpropagated instead; E[u uᵀ] is again Λ.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.forecast import watched_slices
from upweight.curvature.content_keys import Keys, content_keys, random_signs
from upweight.curvature.output_roots import MAX_BLOCK_NUMBERS, LargeBlocksError, output_root
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.call_sites import UnassignableError
from upweight.gradients.capture import backpropagate_all, widened
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.hooks import HookedPass
from upweight.gradients.inspection import Inspection, batch_numbers, inspect
from upweight.gradients.matrices import flatten_each
from upweight.gradients.outputs import Outputs, joint_axes, outputs

MAX_BATCH_EXAMPLES = 256
MAX_BATCH_MISSED = 128  # examples of a batch if hooks miss a parameter, whose gradients are materialised
MAX_BATCH_ALONE = 16  # if each of them goes backward through all of the batch
MISSED_COST = 8  # by which a number that hooks miss takes longer than one that they capture, or more
NEGLIGIBLE_TRACE = 1e-6  # share of the batch's trace below which a direction is left out

Weighted = tuple[Examples, NDArray[np.float64]]


class DirectionBatch(NamedTuple):
    """Gradients of one batch along every direction of the output Hessians.

    Attributes:
        where: positions of the batch among the examples.
        gradients: √wᵢ Jᵢᵀu_c, one for each c.
        hessian_norms: ‖Λᵢ‖ (Frobenius), (B,); None if directions are drawn, and no Λ is known.
    """

    where: slice
    gradients: list[CapturedBatch]
    hessian_norms: Tensor | None


class LabelGradients(NamedTuple):
    """√wᵢ Jᵢᵀu_c of one batch and one direction.

    Attributes:
        direction: c.
        where: positions of the batch among the examples.
        captured: the gradients.
    """

    direction: int
    where: slice
    captured: CapturedBatch


def expected_gradients(
    summed: SummedObjective, sample: Weighted | None = None, seed: int = 0, batch_examples: int | None = None
) -> Iterator[tuple[int, CapturedBatch]]:
    """(c, √wᵢ Jᵢᵀu_c) for every batch and direction of `expected_batches`."""
    return ((c, captured) for c, _, captured in expected_batches(summed, sample, seed, batch_examples))


def expected_batches(
    summed: SummedObjective, sample: Weighted | None = None, seed: int = 0, batch_examples: int | None = None
) -> Iterator[LabelGradients]:
    """Gradients along every direction of the output Hessians, batch by batch; arguments as for `direction_batches`."""
    for where, gradients, _ in direction_batches(summed, sample, seed, batch_examples):
        yield from (LabelGradients(c, where, captured) for c, captured in enumerate(gradients))


def direction_batches(
    summed: SummedObjective, sample: Weighted | None = None, seed: int = 0, batch_examples: int | None = None
) -> Iterator[DirectionBatch]:
    """Gradients along all directions of the output Hessians together, batch by batch.

    If that are too many directions, there are a few draws. These depend on the contents of the example and the seed
    alone, not on the order or the batches.

    Args:
        summed: the objective, whose training examples and weights are used.
        sample: other examples with their weights instead.
        seed: seed of the draws.
        batch_examples: examples of one batch at most; None for as many as memory holds.

    Raises:
        NoOutputsError: the loss is not a function of one output of the net.
        ValueError: blocks of the output Hessian are too large to be held.
    """
    network = summed.network
    expectation = expectation_of(summed)
    examples, weights = (summed.train, summed.weights) if sample is None else sample
    inspection = inspect(network, "loss", examples)
    size = _batch_size(summed, inspection.floats, expectation) if batch_examples is None else batch_examples
    if inspection.fallback:
        size = min(size, MAX_BATCH_ALONE if inspection.sliced is None else MAX_BATCH_MISSED)
    keys = None if expectation.draws is None else sample_keys(summed, examples)
    for whole in watched_slices(blocks(len(examples), size), "gradients for the curvature", len(examples)):
        waiting = [whole]
        while waiting:
            where = waiting.pop(0)
            part = examples.take(np.arange(where.start, where.stop)), weights[where]
            drawn = Drawn(expectation, seed, None if keys is None else keys[where])
            try:
                gradients, norms = _along_directions(summed, part, drawn, inspection)
            except UnassignableError as error:
                inspection = widened(network, "loss", inspection, error)
                waiting.insert(0, where)
            except LargeBlocksError as error:
                if not error.fitting:
                    raise
                starts = range(where.start, where.stop, error.fitting)
                waiting[:0] = [slice(start, min(start + error.fitting, where.stop)) for start in starts]
            else:
                yield DirectionBatch(where, gradients, norms)


def sample_keys(summed: SummedObjective, examples: Examples) -> Keys:
    """The keys of these examples, computed once for the training examples."""
    return summed.keys if examples is summed.train else content_keys(examples)


def _along_directions(
    summed: SummedObjective, part: Weighted, drawn: Drawn, inspection: Inspection
) -> tuple[list[CapturedBatch], Tensor | None]:
    """The gradients of one batch along every direction, and the norms of the output Hessians if these are formed."""
    network, (examples, weights) = summed.network, part
    (expectation, seed, keys), norms = drawn, None
    with network.preserved():
        batch = network.batch(examples)
        with HookedPass(network, len(examples), inspection.layouts, frozenset(inspection.fallback)) as hooked:
            out = outputs(network, batch, examples.ids)
        example_weights = torch.as_tensor(weights).to(out.values.device, network.precision)
        if expectation.draws is None or expectation.grouped:
            hessians = out.hessians()
            norms = _frobenius_norms(hessians)
            directions = (
                list(square_roots(hessians, example_weights))
                if expectation.draws is None or keys is None
                else grouped_directions(hessians, expectation.draws, keys, seed)
            )
        else:
            assert keys is not None
            directions = _draw_directions(out, summed, keys, expectation.draws, seed)
        if not directions:  # no example has curvature; one direction of zeros shows which layers there are
            directions = [torch.zeros_like(out.values)]
        roots = example_weights.sqrt()[:, None]
        cotangents = [(flatten_each(direction) * roots).reshape(out.values.shape) for direction in directions]
        return backpropagate_all(hooked, inspection, batch, out.values, cotangents), norms


def _frobenius_norms(hessians: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(hessians.detach().double().flatten(1), dim=1)
    return norms


class Expectation(NamedTuple):
    """How the expectation over labels is taken.

    Attributes:
        draws: directions of each example that are backpropagated; None for all.
        grouped: whether all directions of an example are summed with random signs in that many groups.
    """

    draws: int | None
    grouped: bool = False


class Drawn(NamedTuple):
    """How directions of a batch are taken, with the seed and the keys of its examples; no keys if nothing is drawn."""

    expectation: Expectation
    seed: int
    keys: Keys | None


def expectation_of(summed: SummedObjective) -> Expectation:
    """All directions if that are few numbers in all; else groups of them or, of many outputs, random ones.

    The choice depends on counts alone: outputs, captured numbers, and examples (with copies).
    """
    limits, examples = summed.limits, float(summed.copies.sum())
    count = output_count(summed)
    if count > limits.exact_outputs:
        return Expectation(min(limits.draws_per_example, max(1, -int(-limits.total_draws // examples))))
    inspection = inspect(summed.network, "loss", summed.train)
    missed = sum(prod(summed.network.shapes[name]) for name in inspection.fallback)
    numbers = count * examples * (inspection.floats + MISSED_COST * missed)
    if count <= limits.direction_groups or numbers <= limits.exact_numbers:
        return Expectation(None)
    return Expectation(limits.direction_groups, grouped=True)


def output_count(summed: SummedObjective) -> int:
    """Outputs of one example. Raises NoOutputsError if the loss is not a function of one output of the net."""
    return prod(summed.output_shape)


def draws_per_example(summed: SummedObjective) -> int | None:
    """How many directions each example has that are drawn; None if all directions are taken."""
    return expectation_of(summed).draws


def label_expectation(summed: SummedObjective) -> str:
    """How the expectation over labels is taken: "exact" or "sampled, k draws"."""
    draws = draws_per_example(summed)
    return "exact" if draws is None else f"sampled, {draws} draw{'s' * (draws > 1)}"


def independent_losses(summed: SummedObjective) -> float:
    """The number of losses in the sum that share no output: one for each example, or one for each of its tokens.

    Tokens that no loss depends on (padding) do not count; every example counts as many times as it has copies.
    """
    if summed.losses is not None:
        return summed.losses
    network, examples, copies = summed.network, summed.train, summed.copies
    joint, count = joint_axes(network, examples), 0.0
    shape = summed.output_shape
    if len(shape) == joint:
        return float(copies.sum())
    size = min(MAX_BATCH_EXAMPLES, inspect(network, "loss", examples).batch_size)
    size = min(size, max(1, MAX_BLOCK_NUMBERS // prod(shape)))
    for where in blocks(len(examples), size):
        part = examples.take(np.arange(where.start, where.stop))
        with network.preserved():
            out = outputs(network, network.batch(part), part.ids)
        u = torch.randn(out.values.shape, generator=torch.Generator().manual_seed(0)).to(out.wide_values())
        product = out.hessian_product()(u)
        product = product.flatten(out.values.ndim - joint) if joint else product[..., None]
        losses = flatten_each((product != 0).any(dim=-1)).sum(dim=1).cpu().numpy()
        count += float(losses @ copies[where])
    return max(count, 1.0)


def hessian_norms(summed: SummedObjective) -> NDArray[np.float64] | None:
    """‖Λ‖ of every example (Frobenius), (n,), from a forward pass; None if directions are drawn, and no Λ is known."""
    expectation = expectation_of(summed)
    if expectation.draws is not None and not expectation.grouped:
        return None
    network, examples, norms = summed.network, summed.train, []
    size = _batch_size(summed, inspect(network, "loss", examples).floats, expectation)
    for where in watched_slices(blocks(len(examples), size), "output Hessians", len(examples)):
        part = examples.take(np.arange(where.start, where.stop))
        with network.preserved():
            with torch.no_grad():
                out = outputs(network, network.batch(part), part.ids)
            norms.append(_frobenius_norms(out.hessians()).cpu().numpy())
    return np.concatenate(norms)


def square_roots(hessians: Tensor, weights: Tensor | None = None) -> Iterator[Tensor]:
    """Vectors u (B, C), strongest first, with Σ u uᵀ = Λ up to a negligible share of the (weighted) trace.

    Negative eigenvalues (of a loss that is not convex in its outputs) are left out: the Gauss–Newton matrix takes Λ as
    positive semidefinite.
    """
    values, vectors = torch.linalg.eigh(hessians.double())
    values = values.clamp_min(0.0)
    # all weights are 0 at a checkpoint with no training time
    weighted = values if weights is None or not bool(weights.any()) else values * weights[:, None]
    traces: list[float] = weighted.sum(dim=0).tolist()
    total = sum(traces)
    for c in range(values.shape[1] - 1, -1, -1):
        if traces[c] > NEGLIGIBLE_TRACE * total:
            yield (vectors[:, :, c] * values[:, c, None].sqrt()).to(hessians.dtype)


def grouped_directions(hessians: Tensor, groups: int, keys: NDArray[np.uint64], seed: int) -> list[Tensor]:
    """Vectors u_k (B, C), one per group, whose Σ_k u_k u_kᵀ has the expectation Λ.

    Each example's directions are shared out so that the strongest are alone in their groups and all groups carry about
    the same trace; those of a group are added with random signs, from the example's key and the seed. The error is the
    products of different directions in one group, which are few and weak. With a group for each direction it is zero.
    """
    values, vectors = torch.linalg.eigh(hessians.double())
    values = values.clamp_min(0.0)
    count = values.shape[1]
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    vectors = vectors * vectors.gather(1, largest).sign()  # the sign that an eigenvector has is arbitrary
    signs = torch.as_tensor(random_signs(keys, count, seed)).to(values)
    scaled = vectors * (values.sqrt() * signs)[:, None, :]
    traces, sums = values.new_zeros(len(values), groups), values.new_zeros(len(values), groups, count)
    for c in range(count - 1, -1, -1):
        membership = torch.nn.functional.one_hot(traces.argmin(dim=1), groups).to(values)
        traces = traces + membership * values[:, c, None]
        sums = sums + membership[:, :, None] * scaled[:, None, :, c]
    return [u.to(hessians.dtype) for u in sums.unbind(1)]


def _batch_size(summed: SummedObjective, floats: int, expectation: Expectation) -> int:
    """Examples whose gradients along all directions memory holds."""
    directions = expectation.draws or prod(summed.output_shape)
    numbers = batch_numbers(summed.network.net)
    return min(MAX_BATCH_EXAMPLES, max(1, numbers // max(1, floats * (1 + directions) // 2)))


def _draw_directions(out: Outputs, summed: SummedObjective, keys: Keys, draws: int, seed: int) -> list[Tensor]:
    """Λ^½ ε / √draws for random signs ε, which depend on the example's contents and the seed."""
    root = output_root(out, joint_axes(summed.network, summed.train))
    shape, like = out.values.shape, out.wide_values()
    directions = []
    for draw in range(draws):  # each draw has its own stream, so that padding in one does not move the others
        streams = [np.random.default_rng([seed, key, draw]) for key in keys.tolist()]
        signs = np.stack([stream.integers(0, 2, shape[1:], dtype=np.int8) for stream in streams])
        directions.append(root((2 * torch.as_tensor(signs) - 1).to(like)) / draws**0.5)
    return directions
