"""Products of vectors with the Hessian and with the Gauss–Newton matrix of a network, without the matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks as slices
from upweight.core.examples import Examples
from upweight.core.forecast import watched_slices
from upweight.core.memory import numbers_within
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.functional import ggn_vp, hvp, plain_attention
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network
from upweight.gradients.outputs import Outputs, outputs

Blocks = Mapping[str, Tensor]
Product = Callable[[Blocks], dict[str, Tensor]]
MAX_BATCH_EXAMPLES = 4096  # larger batches are not faster
MAX_BATCH_NUMBERS = 1 << 24  # captured numbers: 64 MB in float32; graphs for second order take a few times that
MAX_VECTOR_NUMBERS = 1 << 26  # numbers of the vectors multiplied at a time: 256 MB in float32


class Operator(ABC):
    """v ↦ (A + shift) v with A = Σᵢ wᵢ Cᵢ over the training examples.

    Vectors are blocks, name → (k, *shape of the parameter). A product costs one pass over the data, whatever k: all
    vectors share the forward pass of a batch.

    Args:
        summed: the objective on the summed scale.
        wide: the network that makes the passes; None for `summed.network`, on a float32 copy if it holds tensors in
            half precision, in which second-order products are too coarse for any solver.

    Attributes:
        wide: the network that makes the passes.
        shift: what is added to the diagonal, ridge + damping.
        size: numbers in a vector.
        total: Σ wᵢ; a summed number divided by it is that of the mean loss.
        max_batch_examples: examples of one batch at most.
        max_vector_numbers: numbers of the vectors that are multiplied at a time.
    """

    def __init__(self, summed: SummedObjective, wide: Network | None = None) -> None:
        self.summed, self.shift = summed, float(summed.shift)
        self.network: Network = summed.network
        self.wide = _widened(summed) if wide is None else wide
        self.size = self.network.size
        self.total = summed.total
        self.max_batch_examples, self.max_vector_numbers = MAX_BATCH_EXAMPLES, MAX_VECTOR_NUMBERS

    def matvec(self, blocks: Blocks) -> dict[str, Tensor]:
        """(A + shift) v."""
        return {name: block.add_(blocks[name], alpha=self.shift) for name, block in self.product(blocks).items()}

    def product(self, blocks: Blocks) -> dict[str, Tensor]:
        """A v, without the shift."""
        out = {name: torch.zeros_like(blocks[name]) for name in self.network.names}
        count = len(out[self.network.names[0]])
        width = max(1, self.max_vector_numbers // self.size)
        for part, weights in self._batches():
            with self.wide.preserved(), plain_attention():
                multiply = self._multiplier(self.wide.batch(part), part, weights)
                for where in slices(count, width):
                    products = multiply({name: blocks[name][where] for name in self.network.names})
                    for name, block in products.items():
                        out[name][where] += block
        return out

    def subset(self, positions: NDArray[np.intp]) -> Self:
        """The operator of the examples at these positions (each at most once), scaled by n / len(positions).

        For uniformly random positions it is an unbiased estimate of the whole operator; the shift is not scaled.
        """
        scale = len(self.summed.train) / len(positions)
        return type(self)(
            replace(
                self.summed,
                train=self.summed.train.take(positions),
                weights=self.summed.weights[positions] * scale,
            ),
            self.wide,
        )

    @abstractmethod
    def _multiplier(self, batch: Any, part: Examples, weights: Tensor) -> Product:
        """Multiplication by Σ wᵢ Cᵢ of one batch; called inside `wide.preserved()`."""

    def _batches(self) -> Iterator[tuple[Examples, Tensor]]:
        """Examples of weight above 0, with their weights."""
        train, weights = self.summed.train, self.summed.weights
        counted = np.flatnonzero(weights)
        batches = slices(len(counted), self.batch_size)
        for batch in watched_slices(batches, "products with the curvature", len(counted)):
            where = counted[batch]
            part = train if len(where) == len(train) else train.take(where)
            yield part, torch.as_tensor(weights[where]).to(self.network.device, self.network.precision)

    @property
    def batch_size(self) -> int:
        """Examples of one batch."""
        floats = max(1, inspect(self.network, "loss", self.summed.train).floats)
        return int(min(self.max_batch_examples, max(1, numbers_within(MAX_BATCH_NUMBERS, 1 / 16) // floats)))


@final
class HessianOperator(Operator):
    """A = Σᵢ wᵢ ∇²ℓᵢ, by double backward (Pearlmutter 1994). Symmetric, not always positive semidefinite."""

    def _multiplier(self, batch: Any, part: Examples, weights: Tensor) -> Product:
        def losses() -> Tensor:
            return self.wide.values("loss", batch, part.ids) * weights

        return lambda vectors: hvp(losses, self.wide.parameters(), vectors)


@final
class GaussNewtonOperator(Operator):
    """A = Σᵢ wᵢ Jᵢᵀ Λᵢ Jᵢ, J = ∂output/∂θ and Λ = ∇² of the loss in the output (Schraudolph 2002).

    Positive semidefinite if the loss is convex in the output, as cross-entropy and squared error are.

    Raises:
        NoOutputsError: the loss is not a function of one output of the net.
    """

    def __init__(self, summed: SummedObjective, wide: Network | None = None) -> None:
        super().__init__(summed, wide)
        first = summed.train.take(np.arange(min(2, len(summed.train))))
        with self.wide.preserved():
            shape = self.outputs(self.wide.batch(first), first).values.shape
        self.outputs_per_example = int(np.prod(shape[1:]))

    def outputs(self, batch: Any, part: Examples) -> Outputs:
        """The net's output on a batch of `wide`; call it inside `wide.preserved()`."""
        return outputs(self.wide, batch, part.ids)

    def require_second_derivatives(self) -> None:
        """Raise SecondDerivativeError if products are impossible, by a product of one example."""
        network = self.network
        zeros = {
            name: torch.zeros(1, *shape, dtype=network.precision, device=network.device)
            for name, shape in network.shapes.items()
        }
        self.subset(np.array([0])).product(zeros)

    def _multiplier(self, batch: Any, part: Examples, weights: Tensor) -> Product:
        out = self.outputs(batch, part)
        output_hessian_product = out.hessian_product(weights)
        return lambda vectors: ggn_vp(out.values, output_hessian_product, self.wide.parameters(), vectors)


def _widened(summed: SummedObjective) -> Network:
    """The network without half precision; itself if it cannot be copied, or computes in half precision only."""
    network = summed.network
    try:
        wide = network.widened()
        if wide is not network:
            first = summed.train.take(np.arange(1))
            with wide.preserved():
                wide.values("loss", wide.batch(first), first.ids)
    except (TypeError, RuntimeError):
        return network
    return wide
