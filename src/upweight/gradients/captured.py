"""Captured: the per-example gradients of one batch, as factors, and what can be done without multiplying them out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from upweight.gradients.factors import CHUNK, Dense, Lookup, Outer, Part, joined
from upweight.gradients.inner_products import ghostly, inner, own

SQUARE = 512  # examples of one block of a symmetric matrix


@dataclass(frozen=True)
class Factors:
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
class Captured:
    """Per-example gradients of one batch, by parameter, each the sum of its parts.

    Attributes:
        count: examples, B.
        parts: name → parts; empty where the parameter had no influence on the batch.
        like: an empty tensor of the precision and device.
        shapes: name → shape of the parameter.
        owners: weight name → (module, bias name), for the layers of outer products.
    """

    count: int
    parts: Mapping[str, tuple[Part, ...]]
    like: Tensor
    shapes: Mapping[str, tuple[int, ...]]
    owners: Mapping[str, tuple[str, str | None]]

    def dot(self, other: Captured) -> Tensor:
        """Inner products of all pairs, (B, B'), float32 or better."""
        out = self.like.new_zeros(self.count, other.count)
        for name, uses in self.parts.items():
            for ours in uses:
                for theirs in other.parts[name]:
                    out += inner(ours, theirs)
        return out

    def against(self, blocks: Mapping[str, Tensor]) -> Tensor:
        """Inner products with k vectors, blocks name → (k, *shape): (B, k)."""
        out = self.like.new_zeros(self.count, len(next(iter(blocks.values()))))
        for name, uses in self.parts.items():
            for part in uses:
                out += part.against(blocks[name])
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
        for name, uses in self.parts.items():
            each = [own(ours, theirs) for ours in uses for theirs in uses]
            out[name] = sum(each, self.like.new_zeros(self.count))
        return out

    def scaled(self, by: Mapping[str, Tensor]) -> Captured:
        """Gradients of each parameter times a number per example, name → (B,)."""
        parts = {name: tuple(part.scaled(by[name]) for part in uses) for name, uses in self.parts.items()}
        return replace(self, parts=parts)

    def normalised(self, by_layer: bool) -> Captured:
        """Gradients divided by their norms, or each module's part by its own norm; zero stays zero."""
        squares = self.squares_by_name()
        groups = {name: name.rpartition(".")[0] if by_layer else "" for name in squares}
        totals: dict[str, Tensor] = {}
        for name, group in groups.items():
            totals[group] = totals[group] + squares[name] if group in totals else squares[name]
        scales = {group: torch.where(s > 0, s.clamp_min(0).rsqrt(), 0.0) for group, s in totals.items()}
        return self.scaled({name: scales[group] for name, group in groups.items()})

    def sums(self, member: Tensor) -> dict[str, Tensor]:
        """member (g, B) times the gradients, name → (g, *shape)."""
        out = {}
        for name, uses in self.parts.items():
            out[name] = sum((p.sums(member) for p in uses), self.like.new_zeros(len(member), *self.shapes[name]))
        return out

    def materialise(self, name: str) -> Tensor:
        """Gradients of one parameter, (B, *shape)."""
        uses = [part.materialise() for part in self.parts[name]]
        return sum(uses[1:], uses[0]) if uses else self.like.new_zeros(self.count, *self.shapes[name])

    def squared(self, name: str) -> Tensor:
        """Σ of squared gradients of one parameter over the examples, (*shape); of rank one by products of squares."""
        shape, uses = self.shapes[name], self.parts[name]
        if len(uses) == 1 and isinstance(uses[0], Outer) and uses[0].length == 1:
            return (uses[0].left[:, 0].square().T @ uses[0].right[:, 0].square()).reshape(shape)
        total, size = self.like.new_zeros(shape), max(1, CHUNK // max(1, prod(shape)))
        for start in range(0, self.count, size):
            total += self.take(slice(start, start + size)).materialise(name).square().sum(dim=0)
        return total

    def take(self, where: slice) -> Captured:
        """The gradients of these examples of the batch, as views."""
        parts = {name: tuple(part.take(where) for part in uses) for name, uses in self.parts.items()}
        return replace(self, count=len(range(*where.indices(self.count))), parts=parts)

    def only(self, names: Collection[str]) -> Captured:
        """The gradients of these parameters alone."""
        return replace(self, parts={name: uses for name, uses in self.parts.items() if name in names})

    def gram(self) -> Tensor:
        """`dot(self)` by little more than half the products."""
        out = self.like.new_empty(self.count, self.count)
        for start in range(0, self.count, SQUARE):
            rows = slice(start, start + SQUARE)
            block = self.take(rows).dot(self.take(slice(start, None)))
            out[rows, start:], out[start:, rows] = block, block.T
        return out

    def row(self, place: int) -> dict[str, Tensor]:
        """The gradient of one example, name → shape."""
        out = {}
        for name, uses in self.parts.items():
            each = [part.take(slice(place, place + 1)).materialise()[0] for part in uses]
            out[name] = sum(each[1:], each[0]) if each else self.like.new_zeros(self.shapes[name])
        return out

    def layers(self) -> Iterator[Factors]:
        """Layers whose weight is used in outer products alone, the parts of a module used twice one after the other."""
        for name, (module, bias) in self.owners.items():
            uses = [part for part in self.parts[name] if isinstance(part, Outer)]
            if not uses or len(uses) < len(self.parts[name]):
                continue
            left, right = uses[0].left, uses[0].right
            if len(uses) > 1:
                left, right = (torch.cat([getattr(u, side) for u in uses], dim=1) for side in ("left", "right"))
            a, s = (left, right) if uses[0].swapped else (right, left)
            yield Factors(module, name, bias, a, s, uses[0].swapped)

    @property
    def floats(self) -> int:
        """Numbers held per example."""
        return sum(part.floats for uses in self.parts.values() for part in uses)

    @staticmethod
    def joined(batches: list[Captured]) -> Captured:
        """Consecutive batches as one; the list is used up, so that memory does not hold all of them twice."""
        first, counts, parts = batches[0], [b.count for b in batches], {}
        if len(batches) == 1:
            return first
        each = [dict(b.parts) for b in batches]
        batches.clear()
        for name in first.parts:
            uses = [one.pop(name) for one in each]
            if len({len(u) for u in uses}) > 1:  # a use that some batches do without
                pairs = zip(uses, counts, strict=True)
                uses = [(Dense(replace(first, count=b, parts={name: u}).materialise(name)),) for u, b in pairs]
            parts[name] = tuple(joined(same) for same in zip(*uses, strict=True))
        return replace(first, count=sum(counts), parts=parts)


def gathered(passes: Iterator[tuple[slice, Captured]], limit: int) -> Iterator[tuple[slice, Captured]]:
    """Consecutive batches as fewer of at most `limit` numbers: (which rows, as factors)."""
    batches: list[Captured] = []
    here, numbers = slice(0, 0), 0
    for where, batch in passes:
        if batches and numbers + batch.floats * batch.count > limit:
            yield here, Captured.joined(batches)
            batches, numbers = [], 0
        here = slice(here.start if batches else where.start, where.stop)
        batches.append(batch)
        numbers += batch.floats * batch.count
    if batches:
        yield here, Captured.joined(batches)


def settled(batch: Captured) -> Captured:
    """The same gradients, multiplied out where products of positions would cost more."""

    def one(part: Part) -> Part:
        few_rows = isinstance(part, Lookup) and part.shape[0] <= part.length
        dense = few_rows or (isinstance(part, Outer) and not ghostly(part, part.length))
        return Dense(part.materialise()) if dense else part

    parts = {name: tuple(one(part) for part in uses) for name, uses in batch.parts.items()}
    return Captured(batch.count, parts, batch.like, batch.shapes, batch.owners)
