"""The per-example gradients of one batch, stored as factors, and the products that need no materialised gradients."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.gradients.gradient_terms import (
    MAX_TEMPORARY_NUMBERS,
    DenseTerm,
    GradientTerm,
    LookupTerm,
    OuterTerm,
    concatenate,
)
from upweight.gradients.inner_products import ghost_is_cheaper, pairwise_inner_products, per_example_inner_products
from upweight.gradients.patches import PatchTerm

GRAM_BLOCK_EXAMPLES = 512  # examples per block of a Gram matrix


@dataclass(frozen=True, eq=False)
class LayerFactors:
    """Activations and output gradients of one layer, as KFAC takes them.

    Attributes:
        module: name of the module.
        weight, bias: names of its parameters; bias is None if there is none or it is frozen.
        uses: the terms of the weight; several uses of a layer are joined along the positions.
    """

    module: str
    weight: str
    bias: str | None
    uses: tuple[OuterTerm, ...]

    @property
    def swapped(self) -> bool:
        """Whether the weight is stored as (d_i, d_o) instead of (d_o, d_i)."""
        return self.uses[0].swapped

    @cached_property
    def a(self) -> Tensor:
        """Activations (B, T, d_i), for a convolution its patches; without a column of ones."""
        return _joined([use.left if self.swapped else use.right for use in self.uses])

    @cached_property
    def s(self) -> Tensor:
        """Output gradients (B, T, d_o)."""
        return _joined([use.right if self.swapped else use.left for use in self.uses])

    @property
    def convolution(self) -> PatchTerm | None:
        """The convolution, if the layer is one that is used once."""
        use = self.uses[0]
        return use if len(self.uses) == 1 and isinstance(use, PatchTerm) else None

    @property
    def width(self) -> int:
        """d_i, without a column of ones."""
        use = self.uses[0]
        return use.left.shape[-1] if use.swapped else use.columns

    def take(self, where: slice) -> LayerFactors:
        """The gradients of the examples of the batch at these positions."""
        return replace(self, uses=tuple(use.take(where) for use in self.uses))


@dataclass(frozen=True, eq=False)
class CapturedBatch:
    """Per-example gradients of one batch, by parameter; each is a sum of terms, one per use of the parameter.

    Attributes:
        count: examples, B.
        terms: name → terms; empty if the parameter had no influence on the batch.
        like: an empty tensor of the precision and device.
        shapes: name → shape of the parameter.
        owners: weight name → (module, bias name), for the layers of outer products.
    """

    count: int
    terms: Mapping[str, tuple[GradientTerm, ...]]
    like: Tensor
    shapes: Mapping[str, tuple[int, ...]]
    owners: Mapping[str, tuple[str, str | None]]

    def dot(self, other: CapturedBatch) -> Tensor:
        """Inner products of all pairs, (B, B'), float32 or better."""
        out = self.like.new_zeros(self.count, other.count)
        for name, uses in self.terms.items():
            for left in uses:
                for right in other.terms[name]:
                    out += pairwise_inner_products(left, right)
        return out

    def dot_vectors(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Inner products with k vectors, given as name → (k, *shape): (B, k)."""
        out = self.like.new_zeros(self.count, len(next(iter(vectors.values()))))
        for name, uses in self.terms.items():
            for term in uses:
                out += term.dot_vectors(vectors[name])
        return out

    def squares(self) -> Tensor:
        """Squared norms, (B,); the terms of one parameter are summed before squaring."""
        out = self.like.new_zeros(self.count)
        for squares in self.squares_by_name().values():
            out += squares
        return out

    def squares_by_name(self) -> dict[str, Tensor]:
        """Squared norms of the gradients of each parameter, name → (B,)."""
        out = {}
        for name, uses in self.terms.items():
            products = [per_example_inner_products(left, right) for left in uses for right in uses]
            out[name] = sum(products, self.like.new_zeros(self.count))
        return out

    def scaled(self, by: Mapping[str, Tensor]) -> CapturedBatch:
        """The gradients, multiplied parameter by parameter with a factor per example, name → (B,)."""
        terms = {name: tuple(term.scaled(by[name]) for term in uses) for name, uses in self.terms.items()}
        return replace(self, terms=terms)

    def normalised(self, by_layer: bool) -> CapturedBatch:
        """Gradients divided by their norms, or the part of each module by the norm of that part; zero stays zero."""
        squares = self.squares_by_name()
        groups = {name: name.rpartition(".")[0] if by_layer else "" for name in squares}
        totals: dict[str, Tensor] = {}
        for name, group in groups.items():
            totals[group] = totals[group] + squares[name] if group in totals else squares[name]
        scales = {group: torch.where(s > 0, s.clamp_min(0).rsqrt(), 0.0) for group, s in totals.items()}
        return self.scaled({name: scales[group] for name, group in groups.items()})

    def prepare(self) -> CapturedBatch:
        """The same gradients, materialised where ghost products would cost more; worth it before many products."""
        terms = {name: tuple(map(_prepare, uses)) for name, uses in self.terms.items()}
        return replace(self, terms=terms)

    def sums(self, membership: Tensor) -> dict[str, Tensor]:
        """Weighted sums of the gradients, `membership` (g, B) times (B, *shape): name → (g, *shape)."""
        out = {}
        for name, uses in self.terms.items():
            out[name] = sum(
                (term.sums(membership) for term in uses), self.like.new_zeros(len(membership), *self.shapes[name])
            )
        return out

    def materialise(self, name: str) -> Tensor:
        """Gradients of one parameter, (B, *shape)."""
        uses = [term.materialise() for term in self.terms[name]]
        return sum(uses[1:], uses[0]) if uses else self.like.new_zeros(self.count, *self.shapes[name])

    def sum_of_squares(self, name: str, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """Σ of the elementwise squared gradients of one parameter over the examples, (*shape).

        A single term of rank one per example needs only a product of squared factors.
        """
        shape, uses = self.shapes[name], self.terms[name]
        if len(uses) == 1 and isinstance(uses[0], OuterTerm) and uses[0].length == 1:
            return (uses[0].left[:, 0].square().T @ uses[0].right[:, 0].square()).reshape(shape)
        total, size = self.like.new_zeros(shape), max(1, limit // max(1, prod(shape)))
        for where in blocks(self.count, size):
            total += self.take(where).materialise(name).square().sum(dim=0)
        return total

    def take(self, where: slice) -> CapturedBatch:
        """The gradients of these examples of the batch, as views."""
        terms = {name: tuple(term.take(where) for term in uses) for name, uses in self.terms.items()}
        return replace(self, count=len(range(*where.indices(self.count))), terms=terms)

    def only(self, names: Collection[str]) -> CapturedBatch:
        """The gradients of these parameters alone, as if the others were held fixed."""
        terms = {name: uses for name, uses in self.terms.items() if name in names}
        owners = {
            weight: (module, bias if bias in names else None)
            for weight, (module, bias) in self.owners.items()
            if weight in names
        }
        return replace(self, terms=terms, owners=owners)

    def gram(self, block_examples: int = GRAM_BLOCK_EXAMPLES) -> Tensor:
        """`dot(self)`, with little more than half of its products, for blocks of this many examples."""
        out = self.like.new_empty(self.count, self.count)
        for rows in blocks(self.count, block_examples):
            products = self.take(rows).dot(self.take(slice(rows.start, None)))
            out[rows, rows.start :], out[rows.start :, rows] = products, products.T
        return out

    def row(self, position: int) -> dict[str, Tensor]:
        """The gradient of one example, name → shape."""
        out = {}
        for name, uses in self.terms.items():
            rows = [term.take(slice(position, position + 1)).materialise()[0] for term in uses]
            out[name] = sum(rows[1:], rows[0]) if rows else self.like.new_zeros(self.shapes[name])
        return out

    def layers(self) -> Iterator[LayerFactors]:
        """Layers whose weight gradients are outer products; several uses of a layer are joined along the positions."""
        for name, (module, bias) in self.owners.items():
            uses = [term for term in self.terms[name] if isinstance(term, OuterTerm)]
            if not uses or len(uses) < len(self.terms[name]):
                continue
            yield LayerFactors(module, name, bias, tuple(uses))

    @property
    def floats(self) -> int:
        """Numbers held per example."""
        return sum(term.floats for uses in self.terms.values() for term in uses)

    @staticmethod
    def concatenate(batches: list[CapturedBatch]) -> CapturedBatch:
        """Consecutive batches as one batch. The list is emptied, so that memory does not hold all of them twice."""
        first, counts, terms = batches[0], [batch.count for batch in batches], {}
        if len(batches) == 1:
            return first
        remaining = [dict(batch.terms) for batch in batches]
        batches.clear()
        for name in first.terms:
            uses = [of_batch.pop(name) for of_batch in remaining]
            if len({len(u) for u in uses}) > 1:  # some batches lack a use
                pairs = zip(uses, counts, strict=True)
                uses = [(DenseTerm(replace(first, count=b, terms={name: u}).materialise(name)),) for u, b in pairs]
            terms[name] = tuple(concatenate(same) for same in zip(*uses, strict=True))
        return replace(first, count=sum(counts), terms=terms)


def _joined(factors: list[Tensor]) -> Tensor:
    return factors[0] if len(factors) == 1 else torch.cat(factors, dim=1)


def _prepare(term: GradientTerm) -> GradientTerm:
    few_rows = isinstance(term, LookupTerm) and term.shape[0] <= term.length
    dense = few_rows or (isinstance(term, OuterTerm) and not ghost_is_cheaper(term, term.length))
    if isinstance(term, PatchTerm) and not dense:
        return term.outer()
    return DenseTerm(term.materialise()) if dense else term
