"""Captured: the per-example gradients of one batch, as factors, and what can be done without multiplying them out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from upweight.gradients.gradient_terms import (
    MAX_TEMPORARY_NUMBERS,
    DenseTerm,
    GradientTerm,
    LookupTerm,
    OuterTerm,
    concatenate,
)
from upweight.gradients.inner_products import ghost_is_cheaper, pairwise_inner_products, per_example_inner_products

GRAM_BLOCK_EXAMPLES = 512  # examples of one block of a symmetric matrix


@dataclass(frozen=True)
class LayerFactors:
    """One layer of outer products, as KFAC wants it.

    Attributes:
        module: name of the module.
        weight, bias: names of its parameters; bias is None where it has none or it is frozen.
        a: activations (B, T, d_i), patches for a convolution, without a column of ones.
        s: output gradients (B, T, d_o).
        swapped: the weight is stored (d_i, d_o), not (d_o, d_i).
    """

    module: str
    weight: str
    bias: str | None
    a: Tensor
    s: Tensor
    swapped: bool


@dataclass(frozen=True, eq=False)
class CapturedBatch:
    """Per-example gradients of one batch, by parameter, each the sum of its parts.

    Attributes:
        count: examples, B.
        parts: name → parts; empty where the parameter had no influence on the batch.
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
            for ours in uses:
                for theirs in other.terms[name]:
                    out += pairwise_inner_products(ours, theirs)
        return out

    def dot_vectors(self, blocks: Mapping[str, Tensor]) -> Tensor:
        """Inner products with k vectors, blocks name → (k, *shape): (B, k)."""
        out = self.like.new_zeros(self.count, len(next(iter(blocks.values()))))
        for name, uses in self.terms.items():
            for term in uses:
                out += term.dot_vectors(blocks[name])
        return out

    def squares(self) -> Tensor:
        """Squared norms, (B,); uses of one parameter are summed before squaring."""
        out = self.like.new_zeros(self.count)
        for each in self.squares_by_name().values():
            out += each
        return out

    def squares_by_name(self) -> dict[str, Tensor]:
        """Squared norms of each parameter's gradients, name → (B,)."""
        out = {}
        for name, uses in self.terms.items():
            each = [per_example_inner_products(ours, theirs) for ours in uses for theirs in uses]
            out[name] = sum(each, self.like.new_zeros(self.count))
        return out

    def scaled(self, by: Mapping[str, Tensor]) -> CapturedBatch:
        """Gradients of each parameter times a number per example, name → (B,)."""
        terms = {name: tuple(term.scaled(by[name]) for term in uses) for name, uses in self.terms.items()}
        return replace(self, terms=terms)

    def normalised(self, by_layer: bool) -> CapturedBatch:
        """Gradients divided by their norms, or each module's part by its own norm; zero stays zero."""
        squares = self.squares_by_name()
        groups = {name: name.rpartition(".")[0] if by_layer else "" for name in squares}
        totals: dict[str, Tensor] = {}
        for name, group in groups.items():
            totals[group] = totals[group] + squares[name] if group in totals else squares[name]
        scales = {group: torch.where(s > 0, s.clamp_min(0).rsqrt(), 0.0) for group, s in totals.items()}
        return self.scaled({name: scales[group] for name, group in groups.items()})

    def prepare(self) -> CapturedBatch:
        """The same gradients, materialised where products of their factors would cost more; for many products."""
        terms = {name: tuple(map(_prepare, uses)) for name, uses in self.terms.items()}
        return replace(self, terms=terms)

    def sums(self, member: Tensor) -> dict[str, Tensor]:
        """member (g, B) times the gradients, name → (g, *shape)."""
        out = {}
        for name, uses in self.terms.items():
            out[name] = sum((p.sums(member) for p in uses), self.like.new_zeros(len(member), *self.shapes[name]))
        return out

    def materialise(self, name: str) -> Tensor:
        """Gradients of one parameter, (B, *shape)."""
        uses = [term.materialise() for term in self.terms[name]]
        return sum(uses[1:], uses[0]) if uses else self.like.new_zeros(self.count, *self.shapes[name])

    def sum_of_squares(self, name: str) -> Tensor:
        """Σ of squared gradients of one parameter over the examples, (*shape); of rank one by products of squares."""
        shape, uses = self.shapes[name], self.terms[name]
        if len(uses) == 1 and isinstance(uses[0], OuterTerm) and uses[0].length == 1:
            return (uses[0].left[:, 0].square().T @ uses[0].right[:, 0].square()).reshape(shape)
        total, size = self.like.new_zeros(shape), max(1, MAX_TEMPORARY_NUMBERS // max(1, prod(shape)))
        for start in range(0, self.count, size):
            total += self.take(slice(start, start + size)).materialise(name).square().sum(dim=0)
        return total

    def take(self, where: slice) -> CapturedBatch:
        """The gradients of these examples of the batch, as views."""
        terms = {name: tuple(term.take(where) for term in uses) for name, uses in self.terms.items()}
        return replace(self, count=len(range(*where.indices(self.count))), terms=terms)

    def only(self, names: Collection[str]) -> CapturedBatch:
        """The gradients of these parameters alone."""
        return replace(self, terms={name: uses for name, uses in self.terms.items() if name in names})

    def gram(self) -> Tensor:
        """`dot(self)` by little more than half the products."""
        out = self.like.new_empty(self.count, self.count)
        for start in range(0, self.count, GRAM_BLOCK_EXAMPLES):
            rows = slice(start, start + GRAM_BLOCK_EXAMPLES)
            block = self.take(rows).dot(self.take(slice(start, None)))
            out[rows, start:], out[start:, rows] = block, block.T
        return out

    def row(self, place: int) -> dict[str, Tensor]:
        """The gradient of one example, name → shape."""
        out = {}
        for name, uses in self.terms.items():
            each = [term.take(slice(place, place + 1)).materialise()[0] for term in uses]
            out[name] = sum(each[1:], each[0]) if each else self.like.new_zeros(self.shapes[name])
        return out

    def layers(self) -> Iterator[LayerFactors]:
        """Layers whose weight is used in outer products alone, the parts of a module used twice one after the other."""
        for name, (module, bias) in self.owners.items():
            uses = [term for term in self.terms[name] if isinstance(term, OuterTerm)]
            if not uses or len(uses) < len(self.terms[name]):
                continue
            left, right = uses[0].left, uses[0].right
            if len(uses) > 1:
                left, right = (torch.cat([getattr(u, side) for u in uses], dim=1) for side in ("left", "right"))
            a, s = (left, right) if uses[0].swapped else (right, left)
            yield LayerFactors(module, name, bias, a, s, uses[0].swapped)

    @property
    def floats(self) -> int:
        """Numbers held per example."""
        return sum(term.floats for uses in self.terms.values() for term in uses)

    @staticmethod
    def concatenate(batches: list[CapturedBatch]) -> CapturedBatch:
        """Consecutive batches as one; the list is used up, so that memory does not hold all of them twice."""
        first, counts, terms = batches[0], [b.count for b in batches], {}
        if len(batches) == 1:
            return first
        each = [dict(b.terms) for b in batches]
        batches.clear()
        for name in first.terms:
            uses = [one.pop(name) for one in each]
            if len({len(u) for u in uses}) > 1:  # a use that some batches do without
                pairs = zip(uses, counts, strict=True)
                uses = [(DenseTerm(replace(first, count=b, terms={name: u}).materialise(name)),) for u, b in pairs]
            terms[name] = tuple(concatenate(same) for same in zip(*uses, strict=True))
        return replace(first, count=sum(counts), terms=terms)


def merge_batches(passes: Iterator[tuple[slice, CapturedBatch]], limit: int) -> Iterator[tuple[slice, CapturedBatch]]:
    """Consecutive batches as fewer of at most `limit` numbers: (which rows, as factors)."""
    batches: list[CapturedBatch] = []
    here, numbers = slice(0, 0), 0
    for where, batch in passes:
        if batches and numbers + batch.floats * batch.count > limit:
            yield here, CapturedBatch.concatenate(batches)
            batches, numbers = [], 0
        here = slice(here.start if batches else where.start, where.stop)
        batches.append(batch)
        numbers += batch.floats * batch.count
    if batches:
        yield here, CapturedBatch.concatenate(batches)


def _prepare(term: GradientTerm) -> GradientTerm:
    few_rows = isinstance(term, LookupTerm) and term.shape[0] <= term.length
    dense = few_rows or (isinstance(term, OuterTerm) and not ghost_is_cheaper(term, term.length))
    return DenseTerm(term.materialise()) if dense else term
