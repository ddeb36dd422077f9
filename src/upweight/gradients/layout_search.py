"""The search for where the examples are on the axes of a layer: a layout is right if hooks agree with autograd."""

from __future__ import annotations

from upweight.gradients.call_sites import (
    PARAMETER_SITE,
    CallSite,
    ExampleLayout,
    UnassignableError,
    possible_layouts,
)
from upweight.gradients.hooks import HookedPass
from upweight.gradients.interaction import GradientsAlone, differing_parameters

MAX_LAYOUT_TRIALS = 8  # of where the examples are, before a parameter is left to autograd


def find_layouts(alone: GradientsAlone) -> tuple[dict[CallSite, ExampleLayout], set[str], int]:
    """Layouts under which hooks agree with autograd, the parameters for which none does, numbers per example."""
    network, quantity, sample = alone.network, alone.quantity, alone.sample
    layouts: dict[CallSite, ExampleLayout] = {}
    given_up: set[str] = set()
    for _ in range(MAX_LAYOUT_TRIALS):
        hooked, values = HookedPass(network, len(sample), layouts, frozenset(given_up), explore=True), None
        try:
            with hooked:
                values = network.values(quantity, network.batch(sample), sample.ids)
            result = hooked.backpropagate(values)
        except UnassignableError as error:
            given_up |= set(error.names)
            continue
        except (RuntimeError, ValueError, IndexError):
            if values is not None and not values.requires_grad:
                raise
            changed = {name for c in hooked.calls if c.layout in ("single", "shared") for name in c.names.values()}
            changed |= {site.module for site in layouts if site.call == PARAMETER_SITE}
            if not changed:
                break
            given_up |= changed
            continue
        wrong = set(differing_parameters(alone, result.row))
        wrong |= hooked.failed_names
        layouts |= {call.site: call.layout for call in hooked.calls}
        if not wrong:
            valid = {site: layout for site, layout in layouts.items() if site.module not in given_up}
            return valid, given_up, result.floats
        given_up |= _try_next_layouts(hooked, layouts, wrong, len(sample))
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
        options = possible_layouts(call.kind, call.inputs, count)
        later = options[options.index(call.layout) + 1 :]
        if later:
            layouts[call.site] = later[0]
            exhausted -= set(call.names.values())
    return exhausted
