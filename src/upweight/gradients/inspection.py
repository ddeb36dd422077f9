"""Inspection of a network: before the first pass, captured gradients are compared with autograd on a few examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, prod

import numpy as np
import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.functional import batch_tensors, gradient, gradient_rows, single_gradient
from upweight.gradients.gradient_terms import DenseTerm
from upweight.gradients.hooks import PARAMETER_SITE, CallSite, ExampleLayout, HookedPass, possible_layouts
from upweight.gradients.network import Network, Quantity
from upweight.gradients.network_memo import NetworkMemo
from upweight.gradients.outputs import outputs

MAX_BATCH_EXAMPLES = 512
MAX_BATCH_NUMBERS = 1 << 23  # captured numbers of one batch: 32 MB in float32, besides the net's own activations
INSPECTED_EXAMPLES = 3  # compared with autograd
MAX_LAYOUT_TRIALS = 4  # of where the examples are, before a parameter is left to autograd
Blocks = Mapping[str, Tensor]


@dataclass(frozen=True)
class Inspection:
    """How to capture the gradients of one quantity of a network.

    Attributes:
        layouts: where the examples are at every site.
        fallback: parameters that hooks miss or get wrong; their gradients come from autograd, example by example.
        covered: share of the trainable numbers whose gradients hooks capture.
        sliced: which tensors of a batch hold one entry per example; None if that is unknown.
        floats: captured numbers per example.
    """

    layouts: Mapping[CallSite, ExampleLayout]
    fallback: tuple[str, ...]
    covered: float
    sliced: tuple[bool, ...] | None
    floats: int

    @property
    def batch_size(self) -> int:
        """Examples per batch, so that a batch stays within `MAX_BATCH_NUMBERS`."""
        return int(min(MAX_BATCH_EXAMPLES, max(1, MAX_BATCH_NUMBERS // max(1, self.floats))))

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts that a reader of the scores should know, as sentences."""
        if not self.fallback:
            return ()
        return (
            f"Hooks see {self.covered:.0%} of the trainable numbers; the gradients of {len(self.fallback)} parameters "
            f"(e.g. {self.fallback[0]}) are formed example by example, which is slower.",
        )


_INSPECTIONS: NetworkMemo[dict[Quantity, Inspection]] = NetworkMemo()


def inspect(network: Network, quantity: Quantity, examples: Examples) -> Inspection:
    """Inspect the gradients of this quantity; each network is inspected once.

    Raises:
        ValueError: the losses of examples depend on each other or on chance, so no example has its own gradient.
    """
    if network.measure is None:  # the measurement is −loss, so one inspection serves both
        quantity = "loss"
    inspections = _INSPECTIONS.get_or_make(network, dict)
    if quantity in inspections:
        return inspections[quantity]
    positions = np.unique(np.linspace(0, len(examples) - 1, INSPECTED_EXAMPLES).astype(np.intp))
    inspection = _inspect_examples(network, quantity, examples.take(positions))
    if len(positions) > 1:  # one example alone says nothing about batches
        inspections[quantity] = inspection
    return inspection


def inspections_of(network: Network) -> tuple[Inspection, ...]:
    """The inspections that were made so far, one for each quantity."""
    return tuple((_INSPECTIONS.get(network) or {}).values())


def share_inspections(source: Network, target: Network) -> None:
    """Let two networks with the same modules share their inspections, also those that are still to be made."""
    _INSPECTIONS.get_or_make(source, dict)
    _INSPECTIONS.share(source, target)


def capture(
    network: Network, quantity: Quantity, examples: Examples, inspection: Inspection, cotangent: Tensor | None = None
) -> CapturedBatch:
    """Per-example gradients of a batch, each times its entry of `cotangent` (B,). The net is left unchanged."""
    without = frozenset(inspection.fallback)
    with network.preserved():
        with HookedPass(network, len(examples), inspection.layouts, without) as hooked:
            values = network.values(quantity, network.batch(examples), examples.ids)
        if not values.requires_grad:
            hooked.backpropagate(values)  # raises with the reason
        result = hooked.backpropagate(values, cotangent)
        if hooked.failed:
            raise next(iter(hooked.failed.values()))
        if not without:
            return result
        del values
        terms = dict(result.terms)
        for name, rows in gradient_rows(network, quantity, examples, inspection.fallback, inspection.sliced).items():
            scale = 1.0 if cotangent is None else cotangent.to(rows).view(-1, *[1] * (rows.ndim - 1))
            terms[name] = (DenseTerm(rows * scale),)
    return CapturedBatch(result.count, terms, result.like, result.shapes, result.owners)


def backpropagate(network: Network, examples: Examples, inspection: Inspection, cotangent: Tensor) -> CapturedBatch:
    """Jᵢᵀ cotangentᵢ of a batch, with J the Jacobian of the net's output and cotangent (B, outputs).

    The net is left unchanged. Raises NoOutputsError if the loss is not a function of one output of the net.
    """
    with network.preserved():
        with HookedPass(network, len(examples), inspection.layouts, frozenset(inspection.fallback)) as hooked:
            values = outputs(network, network.batch(examples), examples.ids).values
        cotangent = cotangent.to(values).view_as(values)
        result = hooked.backpropagate(values, cotangent, keep=bool(inspection.fallback))
        if hooked.failed:
            raise next(iter(hooked.failed.values()))
        if not inspection.fallback:
            return result
        parameters = network.parameters()
        tensors = [parameters[name] for name in inspection.fallback]
        products = (values * cotangent).flatten(1).sum(1)
        rows = [gradient(product, tensors, inspection.fallback, keep=True) for product in products]
    terms = dict(result.terms)
    for name in inspection.fallback:
        terms[name] = (DenseTerm(torch.stack([row[name] for row in rows])),)
    return CapturedBatch(result.count, terms, result.like, result.shapes, result.owners)


def _inspect_examples(network: Network, quantity: Quantity, few: Examples) -> Inspection:
    with network.preserved():
        _refuse_interaction(network, quantity, few)
        layouts, wrong, floats = _find_layouts(network, quantity, few)
        fallback = tuple(name for name in network.names if name in wrong)
        sliced = _sliced(network, few)
        if fallback:
            rows = gradient_rows(network, quantity, few, fallback, sliced)
            if _differing(network, quantity, few, lambda i: {name: block[i] for name, block in rows.items()}):
                sliced = None
    missing = sum(prod(network.shapes[name]) for name in fallback)
    return Inspection(layouts, fallback, 1 - missing / network.size, sliced, floats + missing)


def _refuse_interaction(network: Network, quantity: Quantity, few: Examples) -> None:
    """Raise ValueError if the gradient of an example depends on the other examples of its batch."""
    parameters = list(network.parameters().values())
    values = network.values(quantity, network.batch(few), few.ids)

    def in_batch(i: int) -> Blocks:
        return gradient(values[i], parameters, network.names, keep=True)

    differing = _differing(network, quantity, few, in_batch)
    if differing:
        raise ValueError(
            f"expected a {quantity} that treats examples separately, but the gradient of an example changes with the "
            f"other examples of its batch (first at {differing[0]!r}): either examples interact (a contrastive loss, a "
            "norm over the batch, a loss divided by a count over the batch) or the net is random in eval mode (dropout "
            "called as a function). Then no example has a gradient of its own; write a loss of each example alone"
        )


def _find_layouts(
    network: Network, quantity: Quantity, few: Examples
) -> tuple[dict[CallSite, ExampleLayout], set[str], int]:
    """Layouts under which hooks agree with autograd, the parameters for which none does, numbers per example."""
    layouts: dict[CallSite, ExampleLayout] = {}
    given_up: set[str] = set()
    for _ in range(MAX_LAYOUT_TRIALS):
        hooked = HookedPass(network, len(few), layouts, frozenset(given_up))
        try:
            with hooked:
                values = network.values(quantity, network.batch(few), few.ids)
            result = hooked.backpropagate(values)
        except (RuntimeError, ValueError, IndexError):
            changed = {name for c in hooked.calls if c.layout in ("single", "shared") for name in c.names.values()}
            changed |= {site.module for site in layouts if site.call == PARAMETER_SITE}
            if not changed:
                raise
            given_up |= changed
            continue
        wrong = set(_differing(network, quantity, few, result.row))
        wrong |= {name for call in hooked.calls if call.site in hooked.failed for name in call.names.values()}
        layouts |= {call.site: call.layout for call in hooked.calls}
        if not wrong:
            valid = {site: layout for site, layout in layouts.items() if site.module not in given_up}
            return valid, given_up, result.floats
        given_up |= _try_next_layouts(hooked, layouts, wrong, len(few))
    return {}, set(network.names), 0


def _try_next_layouts(
    hooked: HookedPass, layouts: dict[CallSite, ExampleLayout], wrong: set[str], count: int
) -> set[str]:
    """Set the next layout at the sites of wrong parameters; returns the parameters for which there is none."""
    exhausted = set(wrong)
    used = {name for call in hooked.calls for name in call.names.values()}
    for name in wrong - used:
        shape = hooked.network.shapes[name]
        if len(shape) > 1 and shape[0] == 1 and CallSite(name, PARAMETER_SITE) not in layouts:
            layouts[CallSite(name, PARAMETER_SITE)] = "single"
            exhausted.remove(name)
    for call in hooked.calls:
        if not set(call.names.values()) <= wrong:  # one correct parameter of a layer proves its layout
            continue
        options = possible_layouts(call.kind, call.given, count)
        later = options[options.index(call.layout) + 1 :]
        if later:
            layouts[call.site] = later[0]
            exhausted -= set(call.names.values())
    return exhausted


def _differing(network: Network, quantity: Quantity, few: Examples, row: Callable[[int], Blocks]) -> list[str]:
    """Parameters whose gradients in `row(i)` differ from those of example i alone by more than rounding.

    One example at a time, so that memory holds two gradients and not those of all examples.
    """
    differences: dict[str, float] = {}
    sizes: dict[str, float] = {}
    total = 0.0
    for i, example in enumerate(few.batches(1)):
        truth = _gradient_alone(network, quantity, example, len(few))
        total += sum(_square(block) for block in truth.values())
        for name, block in row(i).items():
            differences[name] = differences.get(name, 0.0) + _square(block - truth[name])
            sizes[name] = sizes.get(name, 0.0) + _square(truth[name])
    if not isfinite(total):
        raise ValueError(
            f"the gradient of {quantity} is NaN or infinite for one of the examples {few.ids.tolist()}; check the loss "
            "for a square root or a logarithm at zero"
        )

    def beyond(precision: torch.dtype) -> list[str]:
        tolerance = torch.finfo(precision).eps ** 0.5
        return [
            name
            for name, difference in differences.items()
            if not difference**0.5 <= tolerance * (3 * sizes[name] ** 0.5 + 0.1 * total**0.5)
        ]

    return beyond(network.dtype) and beyond(_lowest_precision(network, quantity, few))


def _lowest_precision(network: Network, quantity: Quantity, few: Examples) -> torch.dtype:
    """The coarsest floating-point type in a forward pass: of parameters, buffers, and what the backward pass needs.

    A frozen base in half precision and autocast round the gradients of parameters that are more precise.
    """
    precisions = {t.dtype for t in (*network.net.parameters(), *network.net.buffers()) if t.is_floating_point()}

    def record(tensor: Tensor) -> None:
        if tensor.is_floating_point():
            precisions.add(tensor.dtype)

    try:
        with torch.autograd.graph.saved_tensors_hooks(record, lambda nothing: nothing):
            network.values(quantity, network.batch(few), few.ids)
    except RuntimeError:  # the loss transforms functions (torch.func), which allows no such hooks
        pass
    return max(precisions, key=lambda precision: torch.finfo(precision).eps)


def _square(block: Tensor) -> float:
    return float(torch.linalg.vector_norm(block)) ** 2


def _gradient_alone(network: Network, quantity: Quantity, example: Examples, count: int) -> dict[str, Tensor]:
    """The gradient of an example in a batch of one."""
    try:
        return single_gradient(network, quantity, example, network.names)
    except Exception as error:
        if count == 1:
            raise
        raise ValueError(
            f"the {quantity} of {count} examples together can be computed, but that of example "
            f"{example.ids[0].item()!r} in a batch of one cannot ({error}): examples interact, or a shape is fixed "
            "to one batch size"
        ) from error


def _sliced(network: Network, few: Examples) -> tuple[bool, ...] | None:
    """Which tensors of a batch hold one entry per example."""
    if len(few) < 2:
        return None
    try:
        several, single = (batch_tensors(network.batch(part)) for part in (few, few.take([0])))
    except TypeError:
        return None
    if len(several) != len(single):
        return None
    return tuple(a.ndim > 0 and len(a) == len(few) and len(b) == 1 for a, b in zip(several, single, strict=True))
