"""Parameters of no factored layer (norms, embeddings, others), decomposed along their last axis.

A vector is one block of the Gauss–Newton matrix, decomposed as it is. A table is factored like a layer whose inputs are
unit vectors, so that only its columns are rotated. A convolution in groups has a block for every group, in which inputs
and kernel offsets are rotated together; for a depthwise one that is the whole block of a channel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upweight.curvature.label_expectation import expected_gradients
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.network import Network

Blocks = dict[str, Tensor]
MAX_ROTATED_AXIS = 2048  # length of the longest axis that is rotated; a longer one stays as it is


@dataclass
class UnfactoredParameter:
    """One parameter's eigenvalues (summed scale, of its shape) and the eigenvectors of its last axis, if any.

    These are (d, d), or (groups, d, d) over all axes but the first one.
    """

    values: Tensor
    basis: Tensor | None = None

    def rotate(self, block: Tensor) -> Tensor:
        """V Q for V (k, *shape)."""
        return block if self.basis is None else _multiply(block, self.basis)

    def rotate_back(self, block: Tensor) -> Tensor:
        """V Qᵀ."""
        return block if self.basis is None else _multiply(block, self.basis.mT)


class UnfactoredParameters:
    """Sums over batches of examples of the objective, for all parameters except the `factored` ones."""

    def __init__(self, summed: SummedObjective, factored: Collection[str]) -> None:
        self.summed = summed
        self.names = [name for name in summed.network.names if name not in set(factored)]
        self._groups = convolution_groups(summed.network)
        self._squares: Blocks = {}
        self._covariances: Blocks = {}

    def add(self, captured: CapturedBatch, rotated: bool = True) -> None:
        """Add one batch along one direction: squares of all numbers and, if rotated, Σ gᵀg along the last axis."""
        for name in self.names:
            if name in captured.terms:
                g = captured.materialise(name)
                _add(self._squares, name, (g**2).sum(dim=0))
                if name in self._groups and rotated:
                    groups = g.reshape(len(g), self._groups[name], -1, g[0, 0].numel()).transpose(0, 1).flatten(1, 2)
                    _add(self._covariances, name, groups.mT @ groups)
                elif rotated and g.ndim > 1 and g.shape[-1] <= MAX_ROTATED_AXIS:
                    matrix = g.reshape(-1, g.shape[-1])
                    _add(self._covariances, name, matrix.T @ matrix)

    def squares(self) -> Blocks:
        """Name → Σ squares, in the network's order; 0 for outputs without curvature, which have no directions."""
        network = self.summed.network
        zeros = {n: torch.zeros(network.shapes[n], dtype=network.precision, device=network.device) for n in self.names}
        return {**zeros, **self._squares}

    def decompose(self) -> dict[str, UnfactoredParameter]:
        """Name → eigenvectors, and the eigenvalues of (share of every row) ⊗ (Σ gᵀg)."""
        return decompose_parameters(self.squares(), self._covariances)

    @property
    def covariances(self) -> Blocks:
        """Name → Σ gᵀg along the last axis, of the parameters that are rotated."""
        return self._covariances


def convolution_groups(network: Network) -> dict[str, int]:
    """Weight name → groups, of the convolutions with several groups whose inputs are few enough to be rotated."""
    names = {id(parameter): name for name, parameter in network.parameters().items()}
    return {
        names[id(module.weight)]: module.groups
        for module in network.net.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and module.groups > 1
        and id(module.weight) in names
        and module.weight[0].numel() <= MAX_ROTATED_AXIS
    }


def decompose_parameters(squares: Blocks, covariances: Blocks) -> dict[str, UnfactoredParameter]:
    """Name → eigenvectors of the covariance, if there is one, and eigenvalues."""
    out = {}
    for name, sums in squares.items():
        if name not in covariances:
            out[name] = UnfactoredParameter(sums)
            continue
        values, basis = torch.linalg.eigh(covariances[name].double())
        if values.ndim > 1:
            shared = sums.double().reshape(len(values), -1, values.shape[1])  # rows of a group share its eigenvalues
            shares = shared.sum(2, keepdim=True) / shared.sum((1, 2), keepdim=True).clamp_min(1e-300)
            values = (shares * values.clamp_min(0)[:, None]).reshape(sums.shape)
            out[name] = UnfactoredParameter(values.to(sums), basis.to(sums))
            continue
        rows = sums.double().sum(dim=-1, keepdim=True)
        values = rows / rows.sum().clamp_min(1e-300) * values.clamp_min(0)
        out[name] = UnfactoredParameter(values.to(sums), basis.to(sums))
    return out


def refine(parameters: dict[str, UnfactoredParameter], moments: Blocks) -> dict[str, UnfactoredParameter]:
    """The same axes with second moments as eigenvalues, for the parameters that have moments."""
    return {
        name: UnfactoredParameter(moments.get(name, parameter.values), parameter.basis)
        for name, parameter in parameters.items()
    }


def add_moments(moments: Blocks, parameters: dict[str, UnfactoredParameter], captured: CapturedBatch) -> None:
    """Add one batch's sums of squares along the parameters' axes to `moments`."""
    for name, parameter in parameters.items():
        if name in captured.terms:
            _add(moments, name, parameter.rotate(captured.materialise(name)).square_().sum(dim=0))


def unfactored_squares(summed: SummedObjective, factored: Collection[str]) -> Blocks:
    """Σ squared gradients of all parameters except the `factored` ones, without rotation."""
    parameters = UnfactoredParameters(summed, factored)
    if parameters.names:
        for _, captured in expected_gradients(summed):
            parameters.add(captured, rotated=False)
    return parameters.squares()


def _multiply(block: Tensor, basis: Tensor) -> Tensor:
    if basis.ndim == 2:
        return block @ basis
    groups = block.reshape(len(block), len(basis), -1, basis.shape[1])
    return (groups @ basis).reshape(block.shape)


def _add(sums: Blocks, name: str, block: Tensor) -> None:
    sums[name] = sums[name].add_(block) if name in sums else block
