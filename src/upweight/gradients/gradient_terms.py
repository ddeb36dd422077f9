"""Gradient terms: what one use of a parameter adds to the per-example gradients of a batch, as factors if possible.

Shapes: B examples, T positions, r × c the parameter as a matrix (shape[0] × the rest). Products and their costs are
those of Goodfellow (2015, arXiv 1510.01799) and Lee & Kifer (2021): "ghost" products, without the gradient itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from upweight.core.blocks import blocks
from upweight.gradients.matrices import flatten_each

MAX_FLOP_RATIO = 8  # a matrix product may cost this many times the flops of gathering and adding
MAX_TEMPORARY_NUMBERS = 1 << 23  # of a temporary tensor: 32 MB in float32


class GradientTerm(ABC):
    """Per-example gradients (B, *shape) of one parameter that come from one use of it."""

    shape: tuple[int, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def floats(self) -> int:
        """Numbers held per example."""

    @abstractmethod
    def materialise(self) -> Tensor:
        """(B, *shape)."""

    @abstractmethod
    def dot_vectors(self, block: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """Inner products with k vectors (k, *shape): (B, k); no temporary tensor holds more than `limit` numbers."""

    @abstractmethod
    def sums(self, membership: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """Weighted sums of the gradients, membership (g, B) times (B, *shape): (g, *shape); `limit` as for vectors."""

    @abstractmethod
    def take(self, where: slice) -> GradientTerm:
        """The gradients of these examples of the batch."""

    @abstractmethod
    def scaled(self, by: Tensor) -> GradientTerm:
        """The gradient of every example times its entry of `by` (B,)."""

    def chunks(self, limit: int = MAX_TEMPORARY_NUMBERS) -> Iterator[tuple[slice, Tensor]]:
        """Materialised gradients as matrices (b, r·c), a few examples at a time."""
        for where in blocks(len(self), max(1, limit // max(1, prod(self.shape)))):
            yield where, flatten_each(self.take(where).materialise())


class DenseTerm(GradientTerm):
    """Gradients that are stored as they are: biases, normalisation layers, and layers without known factors."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.shape = tuple(values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    @property
    def floats(self) -> int:
        """The size of the parameter."""
        return prod(self.shape)

    def materialise(self) -> Tensor:
        """The values."""
        return self.values

    def dot_vectors(self, block: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """One GEMM."""
        return flatten_each(self.values) @ flatten_each(block).T

    def sums(self, membership: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """One GEMM."""
        return (membership @ flatten_each(self.values)).reshape(len(membership), *self.shape)

    def take(self, where: slice) -> DenseTerm:
        """A view."""
        return DenseTerm(self.values[where])

    def scaled(self, by: Tensor) -> DenseTerm:
        """The values times `by`."""
        return DenseTerm(self.values * by.view(-1, *[1] * len(self.shape)))


class OuterTerm(GradientTerm):
    """Gradients Σ_t left_t right_tᵀ.

    Args:
        left: (B, T, r); for a linear layer the output gradients s.
        right: (B, T, c); for a linear layer the activations a.
        shape: of the parameter; r × c with the axes after the first one flattened.
        swapped: whether left holds the activations and right the output gradients (weights stored input × output).
    """

    def __init__(self, left: Tensor, right: Tensor, shape: tuple[int, ...], swapped: bool = False) -> None:
        self.left, self._right, self.shape, self.swapped = left, right, shape, swapped

    def __len__(self) -> int:
        return len(self.left)

    @property
    def right(self) -> Tensor:
        """(B, T, c)."""
        return self._right

    @property
    def columns(self) -> int:
        """c."""
        return self._right.shape[-1]

    @property
    def floats(self) -> int:
        """T (r + c)."""
        return self.length * (self.left.shape[-1] + self.columns)

    @property
    def length(self) -> int:
        """T."""
        return self.left.shape[1]

    def materialise(self) -> Tensor:
        """One batched GEMM."""
        return (self.left.transpose(1, 2) @ self.right).reshape(len(self), *self.shape)

    def dot_vectors(self, block: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """Σ_t left_tᵀ X right_t for all matrices X: from materialised gradients if there are several positions and
        vectors, else by a GEMM with one factor.
        """
        if self.length > 1 and len(block) > 1:
            out = self.left.new_empty(len(self), len(block))
            for where, gradients in self.chunks(limit):
                out[where] = gradients @ flatten_each(block).T
            return out
        b, t, r, c = *self.left.shape, self.columns
        matrices, left, right = block.reshape(len(block), r, c), self.left, self.right
        out = self.left.new_empty(b, len(block))
        size = max(1, limit // max(1, b * t * min(r, c)))
        for where in blocks(len(block), size):
            x = matrices[where]
            if r <= c:
                mapped = (right.reshape(b * t, c) @ x.reshape(-1, c).T).view(b, t, len(x), r)
                out[:, where] = torch.einsum("btkr,btr->bk", mapped, left)
            else:
                mapped = (left.reshape(b * t, r) @ x).view(len(x), b, t, c)
                out[:, where] = torch.einsum("kbtc,btc->bk", mapped, right)
        return out

    def sums(self, membership: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """One GEMM over all positions per group; with several groups and positions, of materialised gradients."""
        if len(membership) > 1 and self.length > 1:
            out = self.left.new_zeros(len(membership), prod(self.shape))
            for where, gradients in self.chunks(limit):
                out += membership[:, where] @ gradients
            return out.reshape(len(membership), *self.shape)
        right = self.right.flatten(0, 1)
        totals = [(self.left * weights[:, None, None]).flatten(0, 1).T @ right for weights in membership]
        return torch.stack(totals).reshape(len(membership), *self.shape)

    def take(self, where: slice) -> OuterTerm:
        """Views."""
        return OuterTerm(self.left[where], self.right[where], self.shape, self.swapped)

    def scaled(self, by: Tensor) -> OuterTerm:
        """The left factors times `by`."""
        return OuterTerm(self.left * by[:, None, None], self.right, self.shape, self.swapped)

    def rows(self, indices: Tensor) -> OuterTerm:
        """The gradients of these rows of the parameter only, as a matrix (len(indices), c)."""
        return OuterTerm(self.left[..., indices], self.right, (len(indices), self.columns))

    def outer(self) -> OuterTerm:
        """The same gradients with both factors in memory; here itself."""
        return self

    def concatenated(self, terms: Sequence[OuterTerm]) -> OuterTerm:
        """These terms of consecutive batches, of which this is the first, as one."""
        left, right = _padded([p.left for p in terms]), _padded([p.right for p in terms])
        return OuterTerm(left, right, self.shape, self.swapped)


class LookupTerm(GradientTerm):
    """Gradients Σ_t e(ids_t) right_tᵀ of an embedding table (r, c), with unit vectors e.

    Args:
        ids: (B, T) integers.
        right: (B, T, c), the output gradients; zero if the id is padding.
        shape: (r, c).
    """

    def __init__(self, ids: Tensor, right: Tensor, shape: tuple[int, ...]) -> None:
        self.ids, self.right, self.shape = ids, right, shape

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def columns(self) -> int:
        """c."""
        return self.right.shape[-1]

    @property
    def floats(self) -> int:
        """T (1 + c)."""
        return self.length * (1 + self.right.shape[-1])

    @property
    def length(self) -> int:
        """T."""
        return self.ids.shape[1]

    def materialise(self) -> Tensor:
        """The output gradients, added to the rows of an empty table."""
        b, rows = len(self), self.shape[0]
        out = self.right.new_zeros(b * rows, self.right.shape[-1])
        indices = self.ids + rows * torch.arange(b, device=self.ids.device)[:, None]
        return out.index_add_(0, indices.flatten(), self.right.flatten(0, 1)).view(b, *self.shape)

    def dot_vectors(self, block: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """By one GEMM over the rows that occur, if they are few; else by gathering the rows of each vector."""
        if len(block) > 1:
            indices = torch.unique(self.ids)
            if len(indices) <= MAX_FLOP_RATIO * self.length:
                vectors, out = flatten_each(block[:, indices]).T, self.right.new_empty(len(self), len(block))
                for where, gradients in self.rows(indices).chunks(limit):
                    out[where] = gradients @ vectors
                return out
        return torch.stack([(functional.embedding(self.ids, x) * self.right).sum((1, 2)) for x in block], dim=1)

    def sums(self, membership: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """The weighted output gradients, added to the rows of an empty table."""
        out = self.right.new_zeros(len(membership), *self.shape)
        for total, weights in zip(out, membership, strict=True):
            total.index_add_(0, self.ids.flatten(), (self.right * weights[:, None, None]).flatten(0, 1))
        return out

    def take(self, where: slice) -> LookupTerm:
        """Views."""
        return LookupTerm(self.ids[where], self.right[where], self.shape)

    def scaled(self, by: Tensor) -> LookupTerm:
        """The output gradients times `by`."""
        return LookupTerm(self.ids, self.right * by[:, None, None], self.shape)

    def rows(self, indices: Tensor) -> LookupTerm:
        """The gradients of these rows of the table only (sorted indices), as a table (len(indices), c)."""
        positions = torch.searchsorted(indices, self.ids.contiguous()).clamp_(max=len(indices) - 1)
        inside = indices[positions] == self.ids
        return LookupTerm(positions * inside, self.right * inside[..., None], (len(indices), self.right.shape[-1]))


def concatenate(terms: Sequence[GradientTerm]) -> GradientTerm:
    """The terms of the same use in consecutive batches as one; zeros, which add nothing, pad shorter sequences.

    Terms of different forms (`prepare` materialises those of long sequences only) are materialised.
    """
    first = terms[0]
    if len(terms) == 1:
        return first
    if any(type(term) is not type(first) for term in terms):
        return DenseTerm(torch.cat([term.materialise() for term in terms]))
    if isinstance(first, OuterTerm):
        return first.concatenated(terms)  # type: ignore[arg-type]
    if isinstance(first, LookupTerm):
        ids = _padded([p.ids[..., None] for p in terms])[..., 0]  # type: ignore[attr-defined]
        return LookupTerm(ids, _padded([p.right for p in terms]), first.shape)  # type: ignore[attr-defined]
    return DenseTerm(torch.cat([p.materialise() for p in terms]))


def _padded(tensors: list[Tensor]) -> Tensor:
    longest = max(t.shape[1] for t in tensors)
    if all(t.shape[1] == longest for t in tensors):  # padding by nothing would copy them
        return torch.cat(tensors)
    return torch.cat([functional.pad(t, (0, 0, 0, longest - t.shape[1])) for t in tensors])
