"""DataInf's products of every training example with itself, from the products of all pairs layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.rows import Rows
from upweight.curvature.solvers.algebra import to_numpy
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.network import Network

Array = NDArray[np.float64]


class LayerwiseFit(Protocol):
    """What a fitted DataInf holds: training gradients, and per layer its parameters, λW and D (layers, n)."""

    summed: SummedObjective
    network: Network
    rows: CapturedRows
    layers: list[tuple[str, ...]]
    factors: Array
    scales: Array


@dataclass(frozen=True, eq=False)
class Multiples:
    """Rows factorᵢ (gᵢ + share) of the training gradients gᵢ."""

    factors: Array
    share: Mapping[str, Tensor] | None

    def share_of(self, names: Sequence[str]) -> dict[str, Tensor] | None:
        """The share of these parameters, name → (1, *shape)."""
        return None if self.share is None else {name: self.share[name][None] for name in names}


def training_multiples(fitted: LayerwiseFit, rows: Rows) -> Multiples | None:
    """Rows of the whole training set as multiples of its gradients; None if they are others."""
    if not isinstance(rows, CapturedRows) or rows.is_stored or rows.network is not fitted.network:
        return None
    whole, positions = rows.origin
    if whole is not fitted.summed.train or not np.array_equal(positions, np.arange(len(whole))):
        return None
    if rows.slopes is not None or rows.normalisation is not None:
        return None
    if rows.quantity == "loss":
        return Multiples(rows.weights, rows.share)
    return Multiples(-rows.weights, rows.share) if fitted.network.measure is None else None


def paired_training(fitted: LayerwiseFit, left: Multiples, right: Multiples) -> Array:
    """leftᵢᵀ (H + λ)⁻¹ rightᵢ, (n,).

    Σ over layers of (⟨lᵢ, rᵢ⟩ − Σ_k D_k ⟨lᵢ, g_k⟩⟨g_k, rᵢ⟩)/(λW), with both from the products ⟨gᵢ, g_k⟩.
    """
    out = np.empty(len(left.factors))
    for where, batch in fitted.rows.held_batches():
        out[where] = _share_products(fitted, batch, (left, right))
        for columns, other in fitted.rows.passes(ready=True):
            out[where] += _batch_products(fitted, (where, batch), (columns, other), (left, right))
    return out * left.factors * right.factors


def _share_products(fitted: LayerwiseFit, batch: CapturedBatch, sides: Sequence[Multiples]) -> Array:
    """The part of ⟨lᵢ, rᵢ⟩ that comes from shares of the regulariser, over all layers."""
    out = np.zeros(batch.count)
    for names, factor in zip(fitted.layers, fitted.factors, strict=True):
        shares = [share for side in sides if (share := side.share_of(names)) is not None]
        for share in shares:
            out += to_numpy(batch.only(names).dot_vectors(share))[:, 0] / factor
        if len(shares) == 2:
            out += sum(float((shares[0][name] * shares[1][name]).sum()) for name in names) / factor
    return out


def _batch_products(
    fitted: LayerwiseFit,
    rows: tuple[slice, CapturedBatch],
    others: tuple[slice, CapturedBatch],
    sides: Sequence[Multiples],
) -> Array:
    """⟨gᵢ, gᵢ⟩ − Σ_k D_k ⟨lᵢ, g_k⟩⟨g_k, rᵢ⟩ over all layers, for examples i of one batch and k of another."""
    (where, batch), (columns, other) = rows, others
    out, examples = np.zeros(batch.count), np.arange(where.start, where.stop)
    inside = np.flatnonzero((examples >= columns.start) & (examples < columns.stop))
    for layer, names in enumerate(fitted.layers):
        part = other.only(names)
        kernel = to_numpy(batch.only(names).dot(part))
        products = []
        for side in sides:
            share = side.share_of(names)
            products.append(kernel if share is None else kernel + to_numpy(part.dot_vectors(share))[:, 0])
        values = -np.einsum("ik,ik,k->i", products[0], products[1], fitted.scales[layer, columns])
        values[inside] += kernel[inside, examples[inside] - columns.start]
        out += values / fitted.factors[layer]
    return out
