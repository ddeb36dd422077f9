"""KFAC and EK-FAC: the Gauss–Newton matrix as a rotation per layer and one eigenvalue per rotated parameter.

KFAC (Martens & Grosse 2015) takes the eigenvalues of A ⊗ S. EK-FAC (George et al. 2018) takes the true second moments
Λ = Σ (Qₛᵀ G Q_A)² in the same eigenbasis. For examples with few outputs the expectation over labels is exact, so that
nothing is random. For sequences it is estimated from a few seeded draws per example; factors and moments use different
draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.damping import curvature_rank, damping_from_trace
from upweight.curvature.early_stopping import earlier_gradients
from upweight.curvature.eigen_rows import EigenRows
from upweight.curvature.eigenvalue_sample import eigenvalue_count, eigenvalue_sample
from upweight.curvature.kfac import FactoredLayer, diagonal_warnings, kronecker_factors, with_ones
from upweight.curvature.label_expectation import Weighted, direction_batches, label_expectation
from upweight.curvature.leverage import SavedSlopes, correct_leverage
from upweight.curvature.no_curvature import require_curvature
from upweight.curvature.saved_factors import factors_state, saved_layers, saved_parameters
from upweight.curvature.solvers.algebra import join_columns
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import UnfactoredParameter, add_moments, refine
from upweight.gradients.captured_batch import CapturedBatch, LayerFactors
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.flushed_denormals import flushed_denormals
from upweight.gradients.gradient_terms import MAX_TEMPORARY_NUMBERS
from upweight.gradients.matrices import flatten_each
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
LAYER_SHARE = 0.1  # damping over a layer's mean nonzero eigenvalue (chosen by LDS: MLP, CNN, language model)
Factors = tuple[dict[str, FactoredLayer], dict[str, UnfactoredParameter]]
MAX_FACTORED_LEVERAGE = 0.9  # cap on leverages, which the factors only approximate


class FittedEKFAC(Curvature):
    """Kronecker-factored curvature plus a shift; `refined` means that eigenvalues are the true second moments (EK-FAC).

    If the objective has no `damping_from` yet, every layer gets a damping from its own eigenvalues.

    Cost: outputs (or draws) × one backward pass and one eigendecomposition per side of a layer. Refining the
    eigenvalues takes the same passes again (and two matrix products a batch for layers without positions). Memory
    d_i² + d_o² + d_i·d_o per layer. With the `state` of another one as `saved`, there is nothing to compute.
    `factors` are those of this objective, with refined eigenvalues if `refined`; None to compute them.
    `eigenvalue_examples`: as in the recipe.
    """

    def __init__(
        self,
        summed: SummedObjective,
        refined: bool = True,
        saved: SavedState = NOTHING_SAVED,
        factors: Factors | None = None,
        eigenvalue_examples: int | None = None,
    ) -> None:
        self.summed, self.refined, self.damping_from = summed, refined, summed.damping_from
        self._leverage = SavedSlopes(saved)
        if saved:
            self.layers, self.unfactored = saved_layers(saved, summed.network), saved_parameters(saved, summed.network)
            self.expectation = str(saved.facts["expectation"])
            self.eigenvalues_from = str(saved.facts.get("eigenvalues_from", ""))
            self.damping_from = str(saved.facts["damping_from"])
            self.dampings = {name: float(saved.facts["dampings"][name]) for name in [*self.unfactored, *self.layers]}
            return
        self.expectation, self.eigenvalues_from = label_expectation(summed), ""
        if factors is not None:
            self.layers, self.unfactored = factors
        else:
            self.layers, self.unfactored, norms = kronecker_factors(summed)
            if refined:
                sample = eigenvalue_sample(summed, eigenvalue_examples or eigenvalue_count(summed), norms)
                if len(sample[0]) < len(summed.train):
                    self.eigenvalues_from = f"{len(sample[0]):,} of {len(summed.train):,} examples"
                moments = second_moments(summed, self.layers, self.unfactored, sample)
                self.unfactored = refine_factors(self.layers, self.unfactored, moments)
        self.dampings = dict.fromkeys([*self.unfactored, *self.layers], summed.damping)
        if not summed.damping_from:
            self._choose_damping()
        largest = max(float(values.max()) for _, values in self.shifted())
        require_curvature("EKFAC" if refined else "KFAC", largest)

    def _choose_damping(self) -> None:
        """Every layer gets a share of its mean nonzero eigenvalue; a layer without one gets that of the whole net.

        Kronecker factors take the positions of a convolution as independent (Grosse & Martens 2016), so that it has as
        many nonzero eigenvalues as there are positions, if it has as many weights.
        """
        rank = curvature_rank(self.summed)
        traces = {name: float(values.double().sum()) for name, values in self.eigenvalues()}
        whole, self.damping_from = damping_from_trace(self.summed, sum(traces.values()), LAYER_SHARE, rank)
        for name, values in self.eigenvalues():
            length = self.layers[name].length if name in self.layers else 1
            damping, _ = damping_from_trace(self.summed, traces[name], LAYER_SHARE, min(values.numel(), rank * length))
            self.dampings[name] = damping if traces[name] > 0 else whole
        if any(self.dampings.values()):
            self.damping_from = f"{LAYER_SHARE:g} of the mean eigenvalue, the objective's l2 included, layer by layer"

    def inverse(self, blocks: dict[str, Tensor]) -> dict[str, Tensor]:
        """(C + shift)⁻¹ on blocks name → (k, *shape)."""
        return self._apply(blocks, lambda values: 1.0 / values)

    def matvec(self, vectors: Array) -> Array:
        """(C + shift) v."""
        network = self.summed.network
        return network.join(self._apply(network.split(vectors), lambda values: values))

    def solve(self, rows: Rows) -> Solved:
        """(C + shift)⁻¹ rows by rotation and division; exact for this curvature."""
        network = self.summed.network
        if isinstance(rows, CapturedRows) and rows.share is None:
            solved = [self._solve_batch(batch) for _, batch in rows.passes()]
            joints, blocks = (join_columns(list(parts)) for parts in zip(*solved, strict=True))
            return Solved(EigenRows(network, self.layers, joints, blocks, len(self.summed.train)), 0.0, 0, True)
        return Solved(TensorRows(network, self.inverse(TensorRows.of(network, rows).blocks)), 0.0, 0, True)

    def _solve_batch(self, batch: CapturedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(C + shift)⁻¹ on captured rows: factored layers in their eigenbasis, and the unfactored parameters."""
        shifted = dict(self.shifted())
        blocks = {
            name: parameter.rotate_back(parameter.rotate(batch.materialise(name)) / shifted[name])
            for name, parameter in self.unfactored.items()
        }
        joints, remaining = {}, dict(self.layers)
        for factors in batch.layers():
            if factors.weight in remaining:
                joints[factors.weight] = remaining.pop(factors.weight).rotate_factors(factors)
        for layer in remaining.values():
            names = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
            joints[layer.weight] = layer.rotate(layer.join({name: batch.materialise(name) for name in names}))
        return {name: joints[name].div_(shifted[name]) for name in self.layers}, blocks

    def corrected(self, rows: Rows) -> Rows | None:
        """Rows with the leverage correction, from products in the eigenbasis; about the cost of the fit.

        None if label directions were drawn: an example's own curvature needs all of them.
        """
        if self.expectation != "exact":
            return None
        return self._leverage.corrected(rows, lambda: correct_leverage(self.summed, rows, self, MAX_FACTORED_LEVERAGE))

    def pairwise_inner_products(self, rows: Sequence[CapturedBatch]) -> Tensor:
        """⟨xᵢ, (C + shift)⁻¹ yᵢ⟩ for each pair of k sets of rows of the same examples, (examples, k, k)."""
        shifted, out = dict(self.shifted()), rows[0].like.new_zeros(rows[0].count, len(rows), len(rows))
        for factors in zip(*(batch.layers() for batch in rows), strict=True):
            layer = self.layers[factors[0].weight]
            inverse = 1 / shifted[layer.weight]
            a = layer.rotate_inputs(with_ones(factors[0]))
            s = torch.stack([layer.rotate_slopes(part.s) for part in factors])  # (k, B, T, d_o)
            if a.shape[1] == 1:
                weighted = s[:, :, 0] * (a[:, 0] ** 2 @ inverse.T)
                out += torch.einsum("cbo,dbo->bcd", weighted, s[:, :, 0])
            else:
                for i in range(len(a)):
                    gradients = (s[:, i].transpose(1, 2) @ a[i]).flatten(1)
                    out[i] += (gradients * inverse.flatten()) @ gradients.T
        for name, parameter in self.unfactored.items():
            gradients = torch.stack([flatten_each(parameter.rotate(batch.materialise(name))) for batch in rows])
            out += torch.einsum("cbp,dbp->bcd", gradients / shifted[name].flatten(), gradients)
        return out

    def earlier(self, rows: Rows) -> tuple[float, Rows] | None:
        """What gradients were earlier in the training; None unless the damping is matched to the training time."""
        return earlier_gradients(self.summed, rows)

    def state(self) -> SavedState:
        """Eigenvectors and eigenvalues of every layer and parameter, their dampings, and corrected slopes."""
        factors = factors_state(self.layers, self.unfactored)
        facts = {
            **factors.facts,
            "expectation": self.expectation,
            "eigenvalues_from": self.eigenvalues_from,
            "dampings": self.dampings,
            "damping_from": self.damping_from,
        }
        return self.summed.saved_state(self, SavedState({**factors.arrays, **self._leverage.arrays()}, facts))

    @property
    def calibrated(self) -> bool:
        """False: this is an approximation of the objective's curvature."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size, the share of parameters in Kronecker form, and the damping as a mean over parameters."""
        network = self.summed.network
        factored = sum(layer.values.numel() for layer in self.layers.values())
        damping = sum(self.dampings[name] * values.numel() for name, values in self.eigenvalues())
        return {
            "curvature": ("EK-FAC" if self.refined else "KFAC") + " of the Gauss–Newton matrix",
            "label_expectation": self.expectation,
            "solver": "eigenbasis per layer",
            "parameters": network.size,
            "kronecker_share": factored / network.size,
            "damping": damping / network.size / self.summed.total,
            "damping_from": self.damping_from,
            **({"eigenvalues_from": self.eigenvalues_from} if self.eigenvalues_from else {}),
            **self.summed.choice_diagnostics,
            "warnings": [*self.summed.notes, *diagonal_warnings(self.layers)],
        }

    def _apply(self, blocks: dict[str, Tensor], function: Any) -> dict[str, Tensor]:
        shifted = dict(self.shifted())
        out = {
            name: parameter.rotate_back(parameter.rotate(blocks[name]) * function(shifted[name]))
            for name, parameter in self.unfactored.items()
        }
        for layer in self.layers.values():
            joint = layer.rotate(layer.join(blocks)) * function(shifted[layer.weight])
            out |= layer.split(layer.rotate_back(joint), self.summed.network.shapes)
        return out

    def eigenvalues(self) -> Iterator[tuple[str, Tensor]]:
        """Eigenvalues without the shift, by the name of the layer's weight or of the unfactored parameter."""
        yield from ((name, layer.values) for name, layer in self.layers.items())
        yield from ((name, parameter.values) for name, parameter in self.unfactored.items())

    def shifted(self) -> Iterator[tuple[str, Tensor]]:
        """Eigenvalues with the shift, by the same names."""
        return ((name, values + (self.summed.ridge + self.dampings[name])) for name, values in self.eigenvalues())


def second_moments(
    summed: SummedObjective,
    layers: Mapping[str, FactoredLayer],
    unfactored: dict[str, UnfactoredParameter],
    sample: Weighted,
) -> dict[str, Tensor]:
    """Λ = Σ (Qₛᵀ G Q_A)² over these examples and label directions, by weight; by name for parameters of no layer."""
    of_parameters: dict[str, Tensor] = {}
    moments = {name: torch.zeros_like(layer.values) for name, layer in layers.items()}
    for _, gradients, _ in direction_batches(summed, sample, seed=1):
        with flushed_denormals():
            for captured in gradients:
                add_moments(of_parameters, unfactored, captured)
            for directions in zip(*(captured.layers() for captured in gradients), strict=True):
                _add_layer_moments(moments[directions[0].weight], layers[directions[0].weight], directions)
    return {**moments, **of_parameters}


def _add_layer_moments(moments: Tensor, layer: FactoredLayer, directions: Sequence[LayerFactors]) -> None:
    """Add the squares of a batch's rotated gradients along all directions."""
    if directions[0].s.shape[1] == 1:  # gradients of rank one: products of squares
        a = layer.rotate_inputs(with_ones(directions[0])[:, 0])
        squares = torch.stack([layer.rotate_slopes(factors.s[:, 0]).square() for factors in directions]).sum(0)
        moments += squares.T @ a.square()
        return
    d_o, d_i = layer.values.shape
    size = max(1, MAX_TEMPORARY_NUMBERS // max(d_o * d_i, directions[0].s.shape[1] * d_i))
    for where in blocks(len(directions[0].s), size):
        for rotated in layer.rotate_directions([factors.take(where) for factors in directions]):
            moments += rotated.square_().sum(dim=0)


def refine_factors(
    layers: Mapping[str, FactoredLayer], unfactored: dict[str, UnfactoredParameter], moments: Mapping[str, Tensor]
) -> dict[str, UnfactoredParameter]:
    """Set the layers' eigenvalues to the second moments; returns the other parameters, refined in the same way."""
    for name, layer in layers.items():
        layer.values = moments[name]
    return refine(unfactored, dict(moments))


def add_squares(layer: FactoredLayer, a: Tensor, s: Tensor) -> None:
    """Add the squares of rotated gradients to the layer's eigenvalues.

    A gradient without positions has rank one, and its square is a product of squares.
    """
    a, s = layer.rotate_inputs(a), layer.rotate_slopes(s)
    if a.shape[1] == 1:
        layer.values += (s[:, 0] ** 2).T @ (a[:, 0] ** 2)
    else:
        layer.values += (s.transpose(1, 2) @ a).square_().sum(dim=0)
