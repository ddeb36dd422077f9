"""Per-example gradients of a batch, from one hooked pass over the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.call_sites import UnassignableError
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.functional import gradient_rows
from upweight.gradients.gradient_terms import DenseTerm
from upweight.gradients.hooks import HookedPass
from upweight.gradients.inspection import Inspection, add_to_fallback
from upweight.gradients.network import Network, Quantity
from upweight.gradients.output_rows import output_rows
from upweight.gradients.outputs import outputs, values_and_output

Observer = Callable[[Tensor, Tensor], None]


def capture(
    network: Network,
    quantity: Quantity,
    examples: Examples,
    inspection: Inspection,
    cotangent: Tensor | None = None,
    observe: Observer | None = None,
) -> CapturedBatch:
    """Per-example gradients of a batch, each times its entry of `cotangent` (B,). The net is left unchanged.

    `observe` is shown the values (B,) whose gradients these are, and the output of the net; with it, a function that
    does not call the net once raises NoOutputsError.
    """
    try:
        return _capture(network, quantity, examples, inspection, cotangent, observe)
    except UnassignableError as error:
        return capture(network, quantity, examples, widened(network, quantity, inspection, error), cotangent, observe)


def _capture(
    network: Network,
    quantity: Quantity,
    examples: Examples,
    inspection: Inspection,
    cotangent: Tensor | None,
    observe: Observer | None,
) -> CapturedBatch:
    without = frozenset(inspection.fallback)
    with network.preserved():
        with HookedPass(network, len(examples), inspection.layouts, without) as hooked:
            if observe is None:
                values = network.values(quantity, network.batch(examples), examples.ids)
            else:
                values, output = values_and_output(network, quantity, network.batch(examples), examples.ids)
        if not values.requires_grad:
            hooked.backpropagate(values)  # raises with the reason
        result = hooked.backpropagate(values, cotangent)
        hooked.require_none_failed()
        if observe is not None:
            observe(values.detach(), output.detach())
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
    try:
        return _backpropagate(network, examples, inspection, cotangent)
    except UnassignableError as error:
        return backpropagate(network, examples, widened(network, "loss", inspection, error), cotangent)


def widened(network: Network, quantity: Quantity, inspection: Inspection, error: UnassignableError) -> Inspection:
    """The inspection that leaves the parameters of the error to autograd; raises the error if it does so already."""
    wider = add_to_fallback(network, quantity, inspection, error.names)
    if set(wider.fallback) == set(inspection.fallback):
        raise error
    return wider


def _backpropagate(network: Network, examples: Examples, inspection: Inspection, cotangent: Tensor) -> CapturedBatch:
    with network.preserved():
        batch = network.batch(examples)
        with HookedPass(network, len(examples), inspection.layouts, frozenset(inspection.fallback)) as hooked:
            values = outputs(network, batch, examples.ids).values
        return backpropagate_all(hooked, inspection, batch, values, [cotangent.to(values).view_as(values)])[0]


def backpropagate_all(
    hooked: HookedPass, inspection: Inspection, batch: Any, values: Tensor, cotangents: Sequence[Tensor]
) -> list[CapturedBatch]:
    """Gradients of ⟨cotangentᵢ, valuesᵢ⟩ for each of the cotangents, with those that hooks miss.

    Call it inside `network.preserved()`, with the batch and the output of the hooked pass.

    Raises UnassignableError if the gradients at a site could not be computed.
    """
    names, network = inspection.fallback, hooked.network
    results = []
    for number, cotangent in enumerate(cotangents):
        is_last = number == len(cotangents) - 1
        results.append(hooked.backpropagate(values, cotangent, keep=bool(names) or not is_last))
        hooked.require_none_failed()
    if not names:
        return results
    missed = output_rows(network, batch, values, cotangents, names, inspection.sliced)
    return [
        replace(result, terms={**result.terms, **{name: (DenseTerm(block),) for name, block in rows.items()}})
        for result, rows in zip(results, missed, strict=True)
    ]
