"""Operators: the Hessian and the Gauss–Newton matrix of a network as products with vectors, never as matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.functional import ggn_vp, hvp, plain_attention
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network
from upweight.gradients.outputs import NoOutputsError, Outputs, outputs

Blocks = Mapping[str, Tensor]
Product = Callable[[Blocks], dict[str, Tensor]]
MAX_BATCH_EXAMPLES = 4096  # examples in a batch at most: beyond it nothing gets faster
MAX_BATCH_NUMBERS = 1 << 24  # captured numbers: 64 MB in float32, graphs for second order take a few times that
MAX_VECTOR_NUMBERS = 1 << 26  # numbers of the vectors multiplied at a time: 256 MB in float32


class Operator(ABC):
    """v ↦ (A + shift) v with A = Σᵢ wᵢ Cᵢ over the training examples.

    Vectors are blocks, name → (k, *shape of the parameter). A product costs one pass over the data, whatever k: all
    vectors share the forward pass of a batch.

    Args:
        summed: the objective on the summed scale.

    Attributes:
        shift: what is added to the diagonal, ridge + damping.
        size: numbers in a vector.
        total: Σ wᵢ, by which summed numbers become those of the mean loss.
    """

    def __init__(self, summed: SummedObjective) -> None:
        self.summed, self.shift = summed, float(summed.shift)
        self.network: Network = summed.network
        self.size = self.network.size
        self.total = float(summed.weights.sum())

    def matvec(self, blocks: Blocks) -> dict[str, Tensor]:
        """(A + shift) v."""
        return {name: block.add_(blocks[name], alpha=self.shift) for name, block in self.product(blocks).items()}

    def product(self, blocks: Blocks) -> dict[str, Tensor]:
        """A v, without the shift."""
        out = {name: torch.zeros_like(blocks[name]) for name in self.network.names}
        count = len(out[self.network.names[0]])
        width = max(1, MAX_VECTOR_NUMBERS // self.size)
        for part, weights in self._batches():
            with self.network.preserved(), plain_attention():
                multiply = self._multiplier(self.network.batch(part), part, weights)
                for start in range(0, count, width):
                    where = slice(start, min(start + width, count))
                    found = multiply({name: blocks[name][where] for name in self.network.names})
                    for name, block in found.items():
                        out[name][where] += block
        return out

    def subset(self, positions: NDArray[np.intp]) -> Self:
        """The operator of these examples (no position twice), scaled by n / len(positions).

        For uniformly random positions it is an unbiased estimate of this one; the shift stays as it is.
        """
        scale = len(self.summed.train) / len(positions)
        return type(self)(
            replace(
                self.summed,
                train=self.summed.train.take(positions),
                weights=self.summed.weights[positions] * scale,
            )
        )

    @abstractmethod
    def _multiplier(self, batch: Any, part: Examples, weights: Tensor) -> Product:
        """Multiplication by Σ wᵢ Cᵢ of one batch; called inside `network.preserved()`."""

    def _batches(self) -> Iterator[tuple[Examples, Tensor]]:
        """Examples that count, with their weights."""
        train, weights = self.summed.train, self.summed.weights
        kept = np.flatnonzero(weights)
        size = self._batch_size()
        for start in range(0, len(kept), size):
            where = kept[start : start + size]
            part = train if len(where) == len(train) else train.take(where)
            yield part, torch.as_tensor(weights[where]).to(self.network.device, self.network.dtype)

    def _batch_size(self) -> int:
        floats = max(1, inspect(self.network, "loss", self.summed.train).floats)
        return int(min(MAX_BATCH_EXAMPLES, max(1, MAX_BATCH_NUMBERS // floats)))


@final
class HessianOperator(Operator):
    """A = Σᵢ wᵢ ∇²ℓᵢ, by double backward (Pearlmutter 1994). Symmetric, not always positive."""

    def _multiplier(self, batch: Any, part: Examples, weights: Tensor) -> Product:
        def losses() -> Tensor:
            return self.network.values("loss", batch, part.ids) * weights

        return lambda vectors: hvp(losses, self.network.parameters(), vectors)


@final
class GaussNewtonOperator(Operator):
    """A = Σᵢ wᵢ Jᵢᵀ Λᵢ Jᵢ, J = ∂output/∂θ and Λ = ∇² of the loss in the output (Schraudolph 2002).

    Positive semidefinite where the loss is convex in the output, as cross-entropy and squared error are.

    Raises:
        NoOutputsError: the loss is not a function of one output of the net.
    """

    def __init__(self, summed: SummedObjective) -> None:
        super().__init__(summed)
        first = summed.train.take(np.arange(min(2, len(summed.train))))
        with self.network.preserved():
            shape = self.outputs(self.network.batch(first), first).values.shape
        self.outputs_per_example = int(np.prod(shape[1:]))

    def outputs(self, batch: Any, part: Examples) -> Outputs:
        """The net's output on a batch; call it inside `network.preserved()`."""
        try:
            return outputs(self.network, batch, part.ids)
        except NoOutputsError as error:
            raise NoOutputsError(f"{error}. Take curvature=EmpiricalFisher() or Hessian() for this loss") from error

    def _multiplier(self, batch: Any, part: Examples, weights: Tensor) -> Product:
        said = self.outputs(batch, part)
        bend = said.hessian_product(weights)
        return lambda vectors: ggn_vp(said.values, bend, self.network.parameters(), vectors)
