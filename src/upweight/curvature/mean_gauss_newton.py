"""The mean Gauss–Newton matrix of several checkpoints, and functions of it by its eigenvalues."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.curvature.ekfac import add_squares
from upweight.curvature.kfac import (
    FactoredLayer,
    add_products,
    diagonal_warnings,
    parameter_names,
    position_weights,
    with_ones,
    zero_factor,
)
from upweight.curvature.label_expectation import draws_per_example, expected_batches, expected_gradients
from upweight.curvature.operators import GaussNewtonOperator
from upweight.curvature.solvers.algebra import to_blocks, to_matrix
from upweight.curvature.solvers.direct import assemble
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import unfactored_squares
from upweight.gradients.captured_batch import LayerFactors
from upweight.gradients.inspection import inspect

Array = NDArray[np.float64]
Blocks = Mapping[str, Tensor]
Function = Callable[[Array], Array]
Decays = Mapping[str, float]  # weight decay by parameter


class Spectrum(ABC):
    """A symmetric positive semidefinite matrix whose functions can be applied to vectors."""

    @abstractmethod
    def functions(self, blocks: Blocks, functions: Sequence[Function]) -> list[Blocks]:
        """f(A) v for each function of the eigenvalues, v name → (k, *shape)."""

    @property
    @abstractmethod
    def diagnostics(self) -> dict[str, Any]:
        """How functions are computed, and the largest eigenvalue."""


class MeanGaussNewton:
    """Products with A = P^½ (Σ_c C_c + inside) P^½ + outside, C_c the Gauss–Newton matrix of one checkpoint.

    Args:
        parts: one objective per checkpoint; if all examples have weight 1, the weights of all parts sum to 1.
        root: P^½ by parameter; None for the identity.
        inside: weight decay by parameter that the optimiser scales with the gradient.
        outside: weight decay by parameter that it does not scale (decoupled).
    """

    def __init__(self, parts: Sequence[SummedObjective], root: Blocks | None, inside: Decays, outside: Decays) -> None:
        self.operators = [GaussNewtonOperator(part) for part in parts]
        self.network, self.size = parts[0].network, parts[0].network.size
        self.root, self.inside, self.outside = root, inside, outside

    def product(self, blocks: Blocks) -> dict[str, Tensor]:
        """A v."""
        scaled = self._scaled(blocks)
        out = {name: self.inside[name] * block for name, block in scaled.items()}
        for operator in self.operators:
            for name, block in operator.product(scaled).items():
                out[name] += block
        out = self._scaled(out)
        return {name: block + self.outside[name] * blocks[name] for name, block in out.items()}

    def diagonal(self, decays: Decays) -> Tensor:
        """The weight decay of every number, (p,) in float64."""
        parameters = self.network.parameters()
        parts = [torch.full((parameters[name].numel(),), decays[name], dtype=torch.float64) for name in parameters]
        return torch.cat(parts).to(self.network.device)

    def _scaled(self, blocks: Blocks) -> dict[str, Tensor]:
        root = self.root
        return dict(blocks) if root is None else {name: block * root[name] for name, block in blocks.items()}


@final
class Eigendecomposition(Spectrum):
    """Eigenvalues and eigenvectors of the matrix itself, in float64."""

    def __init__(self, mean_matrix: MeanGaussNewton, values: Tensor, vectors: Tensor) -> None:
        self.network, self.values, self.vectors = mean_matrix.network, values, vectors

    def functions(self, blocks: Blocks, functions: Sequence[Function]) -> list[Blocks]:
        """f(A) v by rotation into the eigenbasis."""
        rotated = to_matrix(self.network, blocks).double() @ self.vectors
        return [
            to_blocks(self.network, (rotated * torch.as_tensor(f(self.values.numpy()))) @ self.vectors.T)
            for f in functions
        ]

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Size and largest eigenvalue."""
        return {"exponential": "all eigenvalues", "largest": float(self.values[-1])}


def diagonalise(mean_matrix: MeanGaussNewton) -> Eigendecomposition:
    """The eigendecomposition of the matrix, assembled from one gradient per example and output."""
    network, parts = mean_matrix.network, [operator.summed for operator in mean_matrix.operators]
    if any(inspect(part.network, "loss", part.train).fallback or draws_per_example(part) for part in parts):
        matrix = assemble(mean_matrix)  # hooks do not see every parameter, or there are too many directions: p products
    else:
        matrix = torch.zeros(mean_matrix.size, mean_matrix.size, dtype=torch.float64, device=network.device)
        for part in parts:
            for _, captured in expected_gradients(part):
                rows = to_matrix(network, {name: captured.materialise(name) for name in network.names}).double()
                matrix.addmm_(rows.T, rows)
        matrix.diagonal().add_(mean_matrix.diagonal(mean_matrix.inside))
        if mean_matrix.root is not None:
            root = to_matrix(network, {name: block[None] for name, block in mean_matrix.root.items()})[0].double()
            matrix.mul_(root[:, None]).mul_(root)
        matrix.diagonal().add_(mean_matrix.diagonal(mean_matrix.outside))
    values, vectors = torch.linalg.eigh(matrix)
    return Eigendecomposition(mean_matrix, values.cpu(), vectors)


@final
class MeanEKFAC(Spectrum):
    """EK-FAC of the mean: Kronecker factors and corrected eigenvalues summed over the checkpoints.

    With a metric P, the factors are those of the scaled gradients. P^½ of each layer is replaced by the nearest outer
    product in the logarithm; for unfactored parameters P itself is used.

    Args:
        parts, root, inside, outside: as for `MeanGaussNewton`.
        sample_weights: (n,) the examples' own weights; a part's weights are these times its checkpoint's share.
    """

    def __init__(
        self,
        parts: Sequence[SummedObjective],
        root: Blocks | None,
        inside: Decays,
        outside: Decays,
        sample_weights: Array,
    ) -> None:
        self.network, self.root, self._sample_weights = parts[0].network, root, sample_weights
        self.layers: dict[str, FactoredLayer] = {}
        self._sides: dict[str, tuple[Tensor, Tensor]] = {}  # P^½ of a layer, by outputs and by inputs
        self._for_each_layer(parts, self._add_to_factors)
        for layer in self.layers.values():
            layer.examples = layer.positions
            layer.decompose(1.0)
            layer.values = torch.zeros_like(layer.values)
        self._for_each_layer(parts, lambda factors, a, s, _: add_squares(self.layers[factors.weight], a, s))
        self.unfactored: dict[str, Tensor] = {}
        for squares in [unfactored_squares(part, parameter_names(self.layers)) for part in parts]:
            for name, block in squares.items():
                self.unfactored[name] = self.unfactored[name] + block if name in self.unfactored else block
        for name, block in self.unfactored.items():
            self.unfactored[name] = (block + inside[name]) * (1.0 if root is None else root[name] ** 2) + outside[name]
        for layer in self.layers.values():
            layer.values += self._decay(layer, outside, 1.0) + self._decay(layer, inside, self._metric(layer))

    def functions(self, blocks: Blocks, functions: Sequence[Function]) -> list[Blocks]:
        """f(A) v by rotation, layer by layer."""
        images: list[dict[str, Tensor]] = [{} for _ in functions]
        for name, values in self.unfactored.items():
            for out, f in zip(images, functions, strict=True):
                out[name] = blocks[name] * _apply(f, values)
        for layer in self.layers.values():
            rotated = layer.rotate(layer.join(blocks))
            for out, f in zip(images, functions, strict=True):
                out.update(layer.split(layer.rotate_back(rotated * _apply(f, layer.values)), self.network.shapes))
        return list(images)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind and largest eigenvalue."""
        largest = [
            float(v.max()) for v in [*self.unfactored.values(), *(layer.values for layer in self.layers.values())]
        ]
        return {"exponential": "EK-FAC", "largest": max(largest), "warnings": diagonal_warnings(self.layers)}

    def _metric(self, layer: FactoredLayer) -> Tensor | float:
        """The diagonal of P in the layer's eigenbasis, (d_o, d_i)."""
        if self.root is None:
            return 1.0
        left, right = self._sides[layer.weight]
        return torch.outer(_squares_along(layer.left, left), _squares_along(layer.right, right))

    def _decay(self, layer: FactoredLayer, decays: Decays, metric: Tensor | float) -> Tensor | float:
        """Weight decay times the metric in the layer's eigenbasis; its diagonal if weight and bias differ."""
        names = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        if len({decays[name] for name in names}) == 1:
            return decays[layer.weight] * metric
        shapes = self.network.shapes
        like = layer.values
        blocks = {name: torch.full((1, *shapes[name]), decays[name]).to(like) for name in names}
        joined = layer.join(blocks)[0]
        if self.root is not None and isinstance(metric, Tensor):
            left, right = self._sides[layer.weight]
            joined = joined * torch.outer(left**2, right**2)
        joined = joined if layer.left is None else (layer.left**2).T @ joined
        return joined if layer.right is None else joined @ (layer.right**2)

    def _for_each_layer(self, parts: Sequence[SummedObjective], use: Callable[..., None]) -> None:
        """Call `use(factors, a, s, weights)` per batch, direction and layer; weights only for the first direction."""
        for part in parts:
            for direction, where, captured in expected_batches(part):
                for factors in captured.layers():
                    a, s = self._scaled(factors, with_ones(factors), factors.s)
                    use(factors, a, s, None if direction else position_weights(self._sample_weights[where], a))

    def _add_to_factors(self, factors: LayerFactors, a: Tensor, s: Tensor, weights: Tensor | None) -> None:
        a, s = a.flatten(0, 1), s.flatten(0, 1)
        if factors.weight not in self.layers:
            zeros = (zero_factor(a.shape[1], a), zero_factor(s.shape[1], s))
            self.layers[factors.weight] = FactoredLayer(factors.weight, factors.bias, factors.swapped, *zeros)
        layer = self.layers[factors.weight]
        add_products(layer.slopes, s, s)
        if weights is not None:  # only for the first direction: the inputs are the same for all
            add_products(layer.inputs, a, weights[:, None] * a)
            layer.positions += float(weights.double().sum())

    def _scaled(self, factors: LayerFactors, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        if self.root is None:
            return a, s
        if factors.weight not in self._sides:
            empty = torch.empty(0)
            layer = FactoredLayer(factors.weight, factors.bias, factors.swapped, empty, empty)
            logs = layer.join({name: block[None] for name, block in self.root.items()})[0].log()
            self._sides[factors.weight] = ((logs.mean(dim=1) - logs.mean()).exp(), logs.mean(dim=0).exp())
        left, right = self._sides[factors.weight]
        return a * right, s * left


def _squares_along(basis: Tensor | None, diagonal: Tensor) -> Tensor:
    """The squares of a diagonal matrix as the diagonal in a rotated basis."""
    return diagonal**2 if basis is None else (basis**2).T @ diagonal**2


def _apply(function: Function, values: Tensor) -> Tensor:
    return torch.as_tensor(function(values.double().cpu().numpy())).to(values)
