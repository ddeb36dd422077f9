"""The basis of a store: K-FAC's eigenvectors, with eigenvalues of KFAC and EK-FAC, from sums over parts of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.saved_state import SavedState
from upweight.curvature.ekfac import Factors, refine_factors, second_moments
from upweight.curvature.kfac import FactoredLayer, factor_sums
from upweight.curvature.label_expectation import Weighted
from upweight.curvature.saved_factors import factors_state, saved_layers, saved_parameters
from upweight.curvature.saved_tensors import as_array, as_tensor
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import UnfactoredParameter, decompose_parameters
from upweight.gradients.network import Network

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Basis:
    """Eigenvectors and eigenvalues on the scale of the whole training set.

    Attributes:
        layers: weight name → layer, with the eigenvalues of KFAC.
        parameters: name → parameter of no layer.
        moments: name → the eigenvalues of EK-FAC; empty before they are computed.
    """

    layers: dict[str, FactoredLayer]
    parameters: dict[str, UnfactoredParameter]
    moments: Mapping[str, Tensor]

    def factors(self, refined: bool) -> Factors:
        """The factors of EK-FAC if `refined`, else of KFAC."""
        layers = {name: replace(layer) for name, layer in self.layers.items()}
        if not refined:
            return layers, dict(self.parameters)
        return layers, refine_factors(layers, dict(self.parameters), self.moments)

    def state(self) -> SavedState:
        """The arrays of the basis, and names and biases of the layers."""
        factors = factors_state(self.layers, self.parameters)
        moments = {f"{name}/moments": as_array(values) for name, values in self.moments.items()}
        return SavedState({**factors.arrays, **moments}, factors.facts)

    @classmethod
    def of(cls, state: SavedState, network: Network) -> Basis:
        """The basis whose state was saved. Raises ValueError for that of another net."""
        layers, parameters = saved_layers(state, network), saved_parameters(state, network)
        values = {
            **{name: layer.values for name, layer in layers.items()},
            **{n: p.values for n, p in parameters.items()},
        }
        moments = {
            name: as_tensor(state, f"{name}/moments", tuple(tensor.shape), network)
            for name, tensor in values.items()
            if f"{name}/moments" in state.arrays
        }
        return cls(layers, parameters, moments)


def sums_of_part(summed: SummedObjective, part: Weighted) -> SavedState:
    """The sums over a part of the sample of which the factors are made, in float64."""
    layers, parameters, _ = factor_sums(summed, part)
    arrays: Arrays = {}
    for name, layer in layers.items():
        arrays[f"{name}/inputs"], arrays[f"{name}/slopes"] = _wide(layer.inputs), _wide(layer.slopes)
    for name, squares in parameters.squares().items():
        arrays[f"{name}/squares"] = _wide(squares)
    for name, covariance in parameters.covariances.items():
        arrays[f"{name}/covariance"] = _wide(covariance)
    facts = {
        name: {"bias": layer.bias, "swapped": layer.swapped, "positions": layer.positions, "length": layer.length}
        for name, layer in layers.items()
    }
    return SavedState(arrays, {"layers": facts, "weight": float(part[1].sum())})


def decompose(parts: Iterable[SavedState], network: Network, total: float) -> Basis:
    """The eigenvectors and KFAC's eigenvalues from the sums of all parts, added in their order.

    Args:
        parts: what `sums_of_part` returned.
        network: whose gradients these are.
        total: Σ weights of the whole training set.
    """
    arrays, positions, facts, weight = _added(parts)
    like = next(iter(network.parameters().values())).detach()

    def tensor(name: str) -> Tensor:
        return torch.as_tensor(arrays[name]).to(like.device, network.precision)

    layers = {}
    for name, of_layer in facts.items():
        sums = tensor(f"{name}/inputs"), tensor(f"{name}/slopes")
        layer = FactoredLayer(name, of_layer["bias"], of_layer["swapped"], *sums, positions[name], weight)
        layer.length = int(of_layer["length"])
        layer.decompose(total)
        layers[name] = layer
    ending, scale = "/squares", total / weight
    names = [name.removesuffix(ending) for name in arrays if name.endswith(ending)]
    squares = {name: tensor(f"{name}/squares") * scale for name in network.names if name in names}
    covariances = {name: tensor(f"{name}/covariance") * scale for name in names if f"{name}/covariance" in arrays}
    return Basis(layers, decompose_parameters(squares, covariances), {})


def moments_of_part(summed: SummedObjective, basis: Basis, part: Weighted) -> SavedState:
    """The second moments over a part of the sample in the axes of the basis, in float64."""
    moments = second_moments(summed, basis.layers, basis.parameters, part)
    return SavedState({f"{name}/moments": _wide(values) for name, values in moments.items()}, _facts(part))


def refined(basis: Basis, parts: Iterable[SavedState], total: float) -> Basis:
    """The basis with EK-FAC's eigenvalues, from the second moments of all parts, added in their order."""
    arrays, _, _, weight = _added(parts)
    like = next(iter(basis.layers.values())).values if basis.layers else next(iter(basis.parameters.values())).values
    scaled = {
        name.removesuffix("/moments"): (torch.as_tensor(sums) * (total / weight)).to(like)
        for name, sums in arrays.items()
    }
    return replace(basis, moments=scaled)


def _facts(part: Weighted) -> dict[str, Any]:
    return {"layers": {}, "weight": float(part[1].sum())}


def _added(parts: Iterable[SavedState]) -> tuple[Arrays, dict[str, float], dict[str, Any], float]:
    """(sums of the arrays, of the positions by layer, facts of the layers, sum of the weights)."""
    arrays: Arrays = {}
    positions: dict[str, float] = {}
    layers: dict[str, Any] = {}
    weight = 0.0
    for part in parts:
        for name, array in part.arrays.items():
            arrays[name] = arrays[name] + array if name in arrays else np.asarray(array, dtype=np.float64)
        for name, facts in part.facts["layers"].items():
            positions[name] = positions.get(name, 0.0) + float(facts["positions"])
            layers[name] = facts
        weight += float(part.facts["weight"])
    return arrays, positions, layers, weight


def _wide(tensor: Tensor) -> NDArray[np.float64]:
    return as_array(tensor.double())
