"""What no layer of outer products holds (norms, embeddings, odd parameters), rotated along its last axis.

A vector is one block of the Gauss–Newton matrix, decomposed as it is. A table is factored like a layer whose inputs are
unit vectors, so that its columns alone are turned.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from upweight.curvature.label_expectation import expected_gradients
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows

Blocks = dict[str, Tensor]
MAX_ROTATED_AXIS = 2048  # numbers on an axis that is turned; a wider one stays as it is


@dataclass
class UnfactoredParameter:
    """One parameter's eigenvalues (summed scale, of its shape) and the eigenvectors (d, d) of its last axis, if any."""

    values: Tensor
    basis: Tensor | None = None

    def rotate(self, block: Tensor) -> Tensor:
        """V Q for V (k, *shape)."""
        return block if self.basis is None else block @ self.basis

    def rotate_back(self, block: Tensor) -> Tensor:
        """V Qᵀ."""
        return block if self.basis is None else block @ self.basis.T


class UnfactoredParameters:
    """All parameters but those that are held elsewhere, batch by batch."""

    def __init__(self, summed: SummedObjective, held: Collection[str]) -> None:
        self.summed = summed
        self.names = [name for name in summed.network.names if name not in set(held)]
        self._squares: Blocks = {}
        self._sides: Blocks = {}

    def gather(self, captured: CapturedBatch, turning: bool = True) -> None:
        """One batch along one direction: squares of every number, and (turning) Σ gᵀg along the last axis."""
        for name in self.names:
            if name in captured.terms:
                g = captured.materialise(name)
                _add(self._squares, name, (g**2).sum(dim=0))
                if turning and g.shape[-1] <= MAX_ROTATED_AXIS:
                    flat = g.reshape(-1, g.shape[-1])
                    _add(self._sides, name, flat.T @ flat)

    def squares(self) -> Blocks:
        """Name → Σ squares, in the network's order; what no hook saw has the true labels' gradients instead."""
        missed = [name for name in self.names if name not in self._squares]
        if missed:
            roots = np.sqrt(self.summed.weights)
            for _, batch in CapturedRows(self.summed.network, self.summed.train, "loss", weights=roots).passes():
                for name in missed:
                    _add(self._squares, name, batch.sum_of_squares(name))
        return {name: self._squares[name] for name in self.names}

    def decompose(self) -> dict[str, UnfactoredParameter]:
        """Name → eigenvectors, and the eigenvalues of (share of every row) ⊗ (Σ gᵀg)."""
        out = {}
        for name, squares in self.squares().items():
            if name not in self._sides:
                out[name] = UnfactoredParameter(squares)
                continue
            values, basis = torch.linalg.eigh(self._sides[name].double())
            rows = squares.double().sum(dim=-1, keepdim=True)
            values = rows / rows.sum().clamp_min(1e-300) * values.clamp_min(0)
            out[name] = UnfactoredParameter(values.to(squares), basis.to(squares))
        return out


def refine(turned: dict[str, UnfactoredParameter], moments: Blocks) -> dict[str, UnfactoredParameter]:
    """The same axes with moments along them for eigenvalues, where there are any."""
    return {
        name: UnfactoredParameter(moments.get(name, parameter.values), parameter.basis)
        for name, parameter in turned.items()
    }


def add_moments(moments: Blocks, turned: dict[str, UnfactoredParameter], captured: CapturedBatch) -> None:
    """Σ of squares along the axes of one batch, added to those of others."""
    for name, parameter in turned.items():
        if name in captured.terms:
            _add(moments, name, parameter.rotate(captured.materialise(name)).square_().sum(dim=0))


def unfactored_squares(summed: SummedObjective, held: Collection[str]) -> Blocks:
    """Σ squared gradients of all parameters but those held elsewhere, none turned."""
    rest = UnfactoredParameters(summed, held)
    if rest.names:
        for _, captured in expected_gradients(summed):
            rest.gather(captured, turning=False)
    return rest.squares()


def _add(sums: Blocks, name: str, block: Tensor) -> None:
    sums[name] = sums[name].add_(block) if name in sums else block
