"""Inspection of a network: before the first pass, captured gradients are compared with autograd on a few examples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import nn

from upweight.core.examples import Examples
from upweight.core.memory import numbers_within
from upweight.gradients.call_sites import CallSite, ExampleLayout, UnassignableError
from upweight.gradients.cut_gradients import cut_share
from upweight.gradients.functional import batch_tensors, gradient, gradient_rows
from upweight.gradients.hooks import HookedPass
from upweight.gradients.interaction import (
    COMPARED_EXAMPLES,
    GRADIENT_EXAMPLES,
    GradientsAlone,
    checked_sets,
    choose_examples,
    differing_parameters,
    differing_sums,
    random_factors,
    refuse_interaction,
    share_checked_sets,
    values_change_with_batch,
)
from upweight.gradients.layout_search import find_layouts
from upweight.gradients.network import Network, Quantity
from upweight.gradients.network_memo import NetworkMemo
from upweight.gradients.recurrent_layers import can_unroll

MAX_BATCH_EXAMPLES = 512
BATCH_SHARE = 1 / 16  # of the limit of memory that the captured numbers of a batch take; there are copies beside them
STEPWISE = 4  # times more captured numbers if a net goes through its inputs step by step
MAX_BATCH_NUMBERS = 1 << 23  # captured numbers of one batch: 32 MB in float32, besides the net's own activations


def batch_numbers(net: nn.Module | None = None) -> int:
    """Captured numbers of one batch; more for recurrent nets, where every step of every batch is many small calls."""
    is_stepwise = net is not None and any(map(can_unroll, net.modules()))
    return numbers_within(MAX_BATCH_NUMBERS * (STEPWISE if is_stepwise else 1), BATCH_SHARE)


@dataclass(frozen=True)
class Inspection:
    """How to capture the gradients of one quantity of a network.

    Attributes:
        layouts: where the examples are at every site.
        fallback: parameters that hooks miss or get wrong; their gradients come from autograd, example by example.
        covered: share of the trainable numbers whose gradients hooks capture.
        sliced: which tensors of a batch hold one entry per example; None if that is unknown.
        floats: captured numbers per example.
        cut: by how much the gradients differ from the derivatives of the values, relative to these.
    """

    layouts: Mapping[CallSite, ExampleLayout]
    fallback: tuple[str, ...]
    covered: float
    sliced: tuple[bool, ...] | None
    floats: int
    cut: float = 0.0

    @property
    def batch_size(self) -> int:
        """Examples per batch, so that a batch stays within `MAX_BATCH_NUMBERS` and the limit of memory."""
        return int(min(MAX_BATCH_EXAMPLES, max(1, batch_numbers() // max(1, self.floats))))

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts that a reader of the scores should know, as sentences."""
        notes = []
        if self.fallback:
            notes.append(
                f"Hooks see {self.covered:.0%} of the trainable numbers; the gradients of {len(self.fallback)} "
                f"parameters (e.g. {self.fallback[0]}) are formed example by example, which is slower."
            )
        if self.cut:
            notes.append(
                "The gradients of this net are not the derivatives of its loss or measurement: along random directions "
                f"they differ by {self.cut:.2g} times the derivative. Something is cut out of them (.detach(), "
                "torch.no_grad(), or a backward pass of your own). Scores follow the gradients, as training did, and "
                "leave out what goes through the cut: do not act on them without retraining (uw.verify)."
            )
        return tuple(notes)


_INSPECTIONS: NetworkMemo[dict[Quantity, Inspection]] = NetworkMemo()


def inspect(network: Network, quantity: Quantity, examples: Examples) -> Inspection:
    """Inspect the gradients of this quantity.

    How to capture them is found out once per network. Whether examples interact is tried on the training set and on the
    queries, and again on a set that can show more than those before.

    Raises:
        ValueError: the losses of examples depend on each other or on chance, so no example has its own gradient.
    """
    function = _function(network, quantity)
    inspections = _INSPECTIONS.get_or_make(network, dict)
    inspection = inspections.get(function)
    if inspection is None:
        positions = choose_examples(examples)[0][:GRADIENT_EXAMPLES]
        inspection = _inspect_examples(network, function, examples.take(positions))
        if len(positions) == 1:  # one example alone says nothing about batches
            return inspection
        inspections[function] = inspection
    size = min(COMPARED_EXAMPLES, max(GRADIENT_EXAMPLES, inspection.batch_size))
    compared = checked_sets(network, quantity).choose(examples, size)
    if compared is not None:
        wrong = _compare_batch(network, function, examples.take(compared), inspection)
        inspection = add_to_fallback(network, quantity, inspection, wrong) if wrong else inspection
    return inspection


def _function(network: Network, quantity: Quantity) -> Quantity:
    """The function whose gradients these are: without a measurement of its own, the measurement is −loss."""
    return "loss" if network.measure is None else quantity


def add_to_fallback(network: Network, quantity: Quantity, inspection: Inspection, names: Collection[str]) -> Inspection:
    """The inspection with these parameters left to autograd, from now on if it is that of the network."""
    inspections, function = _INSPECTIONS.get_or_make(network, dict), _function(network, quantity)
    before = inspections.get(function, inspection)
    fallback = tuple(name for name in network.names if name in {*before.fallback, *names})
    missing = sum(prod(network.shapes[name]) for name in fallback)
    added = missing - sum(prod(network.shapes[name]) for name in before.fallback)
    after = replace(before, fallback=fallback, covered=1 - missing / network.size, floats=before.floats + added)
    if function in inspections:
        inspections[function] = after
    return after


def inspections_of(network: Network) -> tuple[Inspection, ...]:
    """The inspections that were made so far, one for each quantity."""
    return tuple((_INSPECTIONS.get(network) or {}).values())


def share_inspections(source: Network, target: Network) -> None:
    """Let two networks with the same modules share their inspections, also those that are still to be made."""
    _INSPECTIONS.get_or_make(source, dict)
    _INSPECTIONS.share(source, target)
    share_checked_sets(source, target)


def _inspect_examples(network: Network, quantity: Quantity, sample: Examples) -> Inspection:
    with network.preserved():
        alone = GradientsAlone(network, quantity, sample)
        refuse_interaction(alone)
        layouts, wrong, floats = find_layouts(alone)
        fallback = tuple(name for name in network.names if name in wrong)
        sliced = _sliced(network, sample)
        if fallback:
            rows = gradient_rows(network, quantity, sample, fallback, sliced)
            if differing_parameters(alone, lambda i: {name: block[i] for name, block in rows.items()}):
                sliced = None
        cut = cut_share(network, quantity, sample)
    missing = sum(prod(network.shapes[name]) for name in fallback)
    return Inspection(layouts, fallback, 1 - missing / network.size, sliced, floats + missing, cut)


def _compare_batch(network: Network, quantity: Quantity, sample: Examples, inspection: Inspection) -> set[str]:
    """Compare a batch with its members alone, and its captured gradients with autograd.

    Returns the parameters whose captured gradients are wrong. Raises ValueError if examples interact.
    """
    wrong: set[str] = set()
    with network.preserved():
        if values_change_with_batch(network, quantity, sample):
            refuse_interaction(GradientsAlone(network, quantity, sample))
        while True:
            without = frozenset({*inspection.fallback, *wrong})
            names = [name for name in network.names if name not in without]
            hooked = HookedPass(network, len(sample), inspection.layouts, without)
            try:
                with hooked:
                    values = network.values(quantity, network.batch(sample), sample.ids)
                if not names or not values.requires_grad:
                    return wrong
                factors = random_factors(len(sample), values)
                parameters = network.parameters()
                truth = gradient(values @ factors, [parameters[name] for name in names], names, keep=True)
                captured = hooked.backpropagate(values, factors)
            except UnassignableError as error:
                wrong |= set(error.names)
                continue
            sums = captured.sums(torch.ones(1, len(sample)).to(captured.like))
            return {*wrong, *hooked.failed_names, *differing_sums(network, quantity, sample, truth, sums)}


def _sliced(network: Network, sample: Examples) -> tuple[bool, ...] | None:
    """Which tensors of a batch hold one entry per example."""
    if len(sample) < 2:
        return None
    try:
        several, single = (batch_tensors(network.batch(part)) for part in (sample, sample.take([0])))
    except TypeError:
        return None
    if len(several) != len(single):
        return None
    return tuple(a.ndim > 0 and len(a) == len(sample) and len(b) == 1 for a, b in zip(several, single, strict=True))
