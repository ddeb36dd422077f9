"""Eigenvectors and eigenvalues of factored layers and unfactored parameters, as a saved state and back."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray

from upweight.core.saved_state import SavedState
from upweight.curvature.kfac import FactoredLayer
from upweight.curvature.saved_tensors import as_array, as_tensor
from upweight.curvature.unfactored_parameters import UnfactoredParameter, convolution_groups
from upweight.gradients.network import Network


def factors_state(layers: Mapping[str, FactoredLayer], parameters: Mapping[str, UnfactoredParameter]) -> SavedState:
    """The state from which `saved_layers` and `saved_parameters` make them again, without the factors themselves."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, layer in layers.items():
        for part, tensor in (("values", layer.values), ("left", layer.left), ("right", layer.right)):
            if tensor is not None:
                arrays[f"{name}/{part}"] = as_array(tensor)
    for name, parameter in parameters.items():
        arrays[f"{name}/values"] = as_array(parameter.values)
        if parameter.basis is not None:
            arrays[f"{name}/basis"] = as_array(parameter.basis)
    facts = {
        name: {"bias": layer.bias, "swapped": layer.swapped, "length": layer.length} for name, layer in layers.items()
    }
    return SavedState(arrays, {"layers": facts, "parameters": list(parameters)})


def saved_layers(saved: SavedState, network: Network) -> dict[str, FactoredLayer]:
    """Weight name → layer after `decompose`. Raises ValueError for a state of other layers."""
    layers = {}
    for name, facts in saved.facts["layers"].items():
        values = as_tensor(saved, f"{name}/values", (None, None), network)
        left, right = (
            as_tensor(saved, f"{name}/{side}", (width, width), network) if f"{name}/{side}" in saved.arrays else None
            for side, width in zip(("left", "right"), values.shape, strict=True)
        )
        # The factors are gone; a diagonal one still shows how wide its side is.
        slopes, inputs = (
            torch.zeros(width) if basis is None else torch.empty(0, 0)
            for basis, width in zip((left, right), values.shape, strict=True)
        )
        bias = None if facts["bias"] is None else str(facts["bias"])
        layer = FactoredLayer(name, bias, bool(facts["swapped"]), inputs, slopes)
        layer.values, layer.left, layer.right, layer.length = values, left, right, int(facts.get("length", 1))
        layers[name] = layer
    return layers


def saved_parameters(saved: SavedState, network: Network) -> dict[str, UnfactoredParameter]:
    """Name → parameter of no layer, with its eigenvalues and eigenvectors."""
    parameters, groups = {}, convolution_groups(network)
    for name in saved.facts["parameters"]:
        shape, basis = network.shapes[name], f"{name}/basis"
        width = prod(shape[1:] if name in groups else shape[-1:])  # 1 for a single number, which has no axes
        sides = (groups[name], width, width) if name in groups else (width, width)
        parameters[name] = UnfactoredParameter(
            as_tensor(saved, f"{name}/values", shape, network),
            as_tensor(saved, basis, sides, network) if basis in saved.arrays else None,
        )
    return parameters
