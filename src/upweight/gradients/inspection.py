"""Inspection: before the first pass, what hooks capture is compared with autograd on a few examples."""

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
INSPECTED_EXAMPLES = 3  # examples that are compared
MAX_LAYOUT_TRIALS = 4  # readings of where the examples are, before a parameter is left to autograd
Rows = Mapping[str, Tensor]


@dataclass(frozen=True)
class Inspection:
    """How to capture one quantity of a network.

    Attributes:
        layouts: where the examples are at every site.
        fallback: parameters that hooks do not see, or see wrongly; they are differentiated example by example.
        covered: share of the trainable numbers that hooks see.
        sliced: which tensors of a batch hold one entry per example, None where that is unknown.
        floats: numbers that a captured example takes.
    """

    layouts: Mapping[CallSite, ExampleLayout]
    fallback: tuple[str, ...]
    covered: float
    sliced: tuple[bool, ...] | None
    floats: int

    @property
    def batch_size(self) -> int:
        """Examples per batch, by the numbers that each of them takes."""
        return int(min(MAX_BATCH_EXAMPLES, max(1, MAX_BATCH_NUMBERS // max(1, self.floats))))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        if not self.fallback:
            return ()
        return (
            f"Hooks see {self.covered:.0%} of the trainable numbers; the gradients of {len(self.fallback)} parameters "
            f"(e.g. {self.fallback[0]}) are formed example by example, which is slower.",
        )


_INSPECTIONS: NetworkMemo[dict[Quantity, Inspection]] = NetworkMemo()


def inspect(network: Network, quantity: Quantity, examples: Examples) -> Inspection:
    """The inspection of this quantity, made once.

    Raises:
        ValueError: examples whose losses depend on each other or on chance: no gradient is an example's own.
    """
    if network.measure is None:  # the measurement is −loss, and what is true of one is true of the other
        quantity = "loss"
    inspections = _INSPECTIONS.get_or_make(network, dict)
    if quantity in inspections:
        return inspections[quantity]
    places = np.unique(np.linspace(0, len(examples) - 1, INSPECTED_EXAMPLES).astype(np.intp))
    inspection = _inspect_examples(network, quantity, examples.take(places))
    if len(places) > 1:  # one example alone says nothing about batches
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
    network: Network, quantity: Quantity, examples: Examples, found: Inspection, cotangent: Tensor | None = None
) -> CapturedBatch:
    """Per-example gradients of a batch, each times its entry of `cotangent` (B,). Leaves the net untouched."""
    without = frozenset(found.fallback)
    with network.preserved():
        with HookedPass(network, len(examples), found.layouts, without) as hooked:
            values = network.values(quantity, network.batch(examples), examples.ids)
        if not values.requires_grad:
            hooked.backpropagate(values)  # says why
        result = hooked.backpropagate(values, cotangent)
        if hooked.failed:
            raise next(iter(hooked.failed.values()))
        if not without:
            return result
        del values
        terms = dict(result.terms)
        for name, rows in gradient_rows(network, quantity, examples, found.fallback, found.sliced).items():
            scale = 1.0 if cotangent is None else cotangent.to(rows).view(-1, *[1] * (rows.ndim - 1))
            terms[name] = (DenseTerm(rows * scale),)
    return CapturedBatch(result.count, terms, result.like, result.shapes, result.owners)


def backpropagate(network: Network, examples: Examples, found: Inspection, cotangent: Tensor) -> CapturedBatch:
    """Jᵢᵀ cotangentᵢ of a batch, J the Jacobian of the net's output, cotangent (B, outputs). Leaves the net untouched.

    Raises NoOutputsError where the loss is no function of one output of the net.
    """
    with network.preserved():
        with HookedPass(network, len(examples), found.layouts, frozenset(found.fallback)) as hooked:
            values = outputs(network, network.batch(examples), examples.ids).values
        cotangent = cotangent.to(values).view_as(values)
        result = hooked.backpropagate(values, cotangent, keep=bool(found.fallback))
        if hooked.failed:
            raise next(iter(hooked.failed.values()))
        if not found.fallback:
            return result
        parameters = network.parameters()
        held = [parameters[name] for name in found.fallback]
        each = [gradient(v, held, found.fallback, keep=True) for v in (values * cotangent).flatten(1).sum(1)]
    terms = dict(result.terms)
    for name in found.fallback:
        terms[name] = (DenseTerm(torch.stack([one[name] for one in each])),)
    return CapturedBatch(result.count, terms, result.like, result.shapes, result.owners)


def _inspect_examples(network: Network, quantity: Quantity, few: Examples) -> Inspection:
    with network.preserved():
        _refuse_interaction(network, quantity, few)
        layouts, wrong, floats = _read(network, quantity, few)
        fallback = tuple(name for name in network.names if name in wrong)
        sliced = _sliced(network, few)
        if fallback:
            rows = gradient_rows(network, quantity, few, fallback, sliced)
            if _differing(network, quantity, few, lambda i: {name: block[i] for name, block in rows.items()}):
                sliced = None
    missing = sum(prod(network.shapes[name]) for name in fallback)
    return Inspection(layouts, fallback, 1 - missing / network.size, sliced, floats + missing)


def _refuse_interaction(network: Network, quantity: Quantity, few: Examples) -> None:
    """Raise ValueError when company changes the gradient of an example."""
    parameters = list(network.parameters().values())
    values = network.values(quantity, network.batch(few), few.ids)

    def together(i: int) -> Rows:
        return gradient(values[i], parameters, network.names, keep=True)

    differing = _differing(network, quantity, few, together)
    if differing:
        raise ValueError(
            f"the gradient of an example's {quantity} changes in the company of others (first at {differing[0]!r}): "
            "either examples interact (a contrastive loss, a norm over the batch, a loss divided by a count over the "
            "batch) or the net is random in eval mode (dropout called as a function). Such an example has no gradient "
            "of its own; write a loss of each example by itself"
        )


def _read(network: Network, quantity: Quantity, few: Examples) -> tuple[dict[CallSite, ExampleLayout], set[str], int]:
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
            kept = {site: where for site, where in layouts.items() if site.module not in given_up}
            return kept, given_up, result.floats
        given_up |= _move_on(hooked, layouts, wrong, len(few))
    return {}, set(network.names), 0


def _move_on(hooked: HookedPass, layouts: dict[CallSite, ExampleLayout], wrong: set[str], count: int) -> set[str]:
    """Try the next layout at the sites of wrong parameters; the parameters for which there is none."""
    hopeless = set(wrong)
    used = {name for call in hooked.calls for name in call.names.values()}
    for name in wrong - used:
        shape = hooked.network.shapes[name]
        if len(shape) > 1 and shape[0] == 1 and CallSite(name, PARAMETER_SITE) not in layouts:
            layouts[CallSite(name, PARAMETER_SITE)] = "single"
            hopeless.remove(name)
    for call in hooked.calls:
        if not set(call.names.values()) <= wrong:  # what one parameter of a layer has right, it has right for all
            continue
        options = possible_layouts(call.kind, call.given, count)
        later = options[options.index(call.layout) + 1 :]
        if later:
            layouts[call.site] = later[0]
            hopeless -= set(call.names.values())
    return hopeless


def _differing(network: Network, quantity: Quantity, few: Examples, row: Callable[[int], Rows]) -> list[str]:
    """Parameters whose gradients, as `row(i)` has them, are not those of example i alone, to what precision leaves.

    One example at a time: memory holds two gradients, not those of all examples.
    """
    differences: dict[str, float] = {}
    sizes: dict[str, float] = {}
    whole = 0.0
    for i, one in enumerate(few.batches(1)):
        truth = _alone(network, quantity, one, len(few))
        whole += sum(_square(block) for block in truth.values())
        for name, block in row(i).items():
            differences[name] = differences.get(name, 0.0) + _square(block - truth[name])
            sizes[name] = sizes.get(name, 0.0) + _square(truth[name])
    if not isfinite(whole):
        raise ValueError(
            f"the gradient of {quantity} is NaN or infinite among examples {few.ids.tolist()}; look at the loss for a "
            "square root or a logarithm at zero"
        )
    coarse = torch.finfo(network.dtype).eps ** 0.5
    return [
        name
        for name, difference in differences.items()
        if not difference**0.5 <= coarse * (3 * sizes[name] ** 0.5 + 0.1 * whole**0.5)
    ]


def _square(block: Tensor) -> float:
    return float(torch.linalg.vector_norm(block)) ** 2


def _alone(network: Network, quantity: Quantity, one: Examples, company: int) -> dict[str, Tensor]:
    """The gradient of an example in a batch of its own."""
    try:
        return single_gradient(network, quantity, one, network.names)
    except Exception as error:
        if company == 1:
            raise
        raise ValueError(
            f"the {quantity} of {company} examples together can be taken, that of example {one.ids[0].item()!r} in a "
            f"batch of its own cannot ({error}): examples interact, or a shape is fixed to one batch size"
        ) from error


def _sliced(network: Network, few: Examples) -> tuple[bool, ...] | None:
    """Which tensors of a batch grow with the number of examples."""
    if len(few) < 2:
        return None
    try:
        many, one = (batch_tensors(network.batch(part)) for part in (few, few.take([0])))
    except TypeError:
        return None
    if len(many) != len(one):
        return None
    return tuple(a.ndim > 0 and len(a) == len(few) and len(b) == 1 for a, b in zip(many, one, strict=True))
