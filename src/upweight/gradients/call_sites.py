"""Calls of modules in a forward pass, and where the examples are in their inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from upweight.gradients.layers import LayerKind

# Where the examples are in the input of a module: on its first axis; on the first axis, folded together with positions;
# on the second axis; nowhere, because one input serves all examples (as positions do in a transformer), either with a
# first axis of length one ("single") or without such an axis ("shared").
ExampleLayout = Literal["first", "folded", "second", "single", "shared"]

PARAMETER_SITE = -1  # instead of a call number: the site is a parameter of shape (1, …) that all examples use


class CallSite(NamedTuple):
    """One call of a module in a forward pass, or a parameter that a module of no known layer kind uses directly."""

    module: str
    call: int


@dataclass(frozen=True)
class HookedCall:
    """One call of a module, as its hook recorded it."""

    site: CallSite
    module: nn.Module
    kind: LayerKind
    layout: ExampleLayout
    inputs: Tensor
    version: int
    edge: GradientEdge
    names: Mapping[str, str]  # parameter name within the module → name within the network


class UnassignableError(ValueError):
    """Gradients at a module cannot be assigned to examples.

    Attributes:
        names: the parameters of the module, by their names within the network.
    """

    def __init__(self, message: str, names: Collection[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


def possible_layouts(kind: LayerKind, inputs: Tensor, count: int) -> tuple[ExampleLayout, ...]:
    """Where the examples could be in this input, the most likely layout first."""
    layouts: list[ExampleLayout] = []
    first = len(inputs) if inputs.ndim else 0
    if first == count:
        layouts.append("first")
    if kind.positional:
        if inputs.ndim > 1 and inputs.shape[1] == count:
            layouts.append("second")
        if first > count and first % count == 0:
            layouts.append("folded")
        if kind.shareable and first == 1 and count > 1:
            layouts.append("single")
        if kind.shareable and inputs.ndim and count > 1:
            layouts.append("shared")
    return tuple(layouts)
