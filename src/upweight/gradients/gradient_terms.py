"""Parts: what one use of a parameter adds to the per-example gradients of a batch, kept as factors where it has them.

Shapes: B examples, T positions, r × c the parameter as a matrix (shape[0] × the rest). Products and their costs are
those of Goodfellow (2015, arXiv 1510.01799) and Lee & Kifer (2021), "ghost" products without the gradient itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

MAX_FLOP_RATIO = 8  # times the flops that a matrix product may cost more than gathering and adding
MAX_TEMPORARY_NUMBERS = 1 << 23  # numbers that a temporary may hold: 32 MB in float32


class GradientTerm(ABC):
    """Gradients (B, *shape) of one parameter by one use of it."""

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
    def dot_vectors(self, block: Tensor) -> Tensor:
        """Inner products with k vectors (k, *shape): (B, k)."""

    @abstractmethod
    def sums(self, member: Tensor) -> Tensor:
        """member (g, B) times the gradients: (g, *shape)."""

    @abstractmethod
    def take(self, where: slice) -> GradientTerm:
        """The gradients of these examples of the batch."""

    @abstractmethod
    def scaled(self, by: Tensor) -> GradientTerm:
        """Every example's gradient times its entry of `by` (B,)."""

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Materialised gradients as matrices (b, r·c), a few examples at a time."""
        size = max(1, MAX_TEMPORARY_NUMBERS // max(1, prod(self.shape)))
        for start in range(0, len(self), size):
            where = slice(start, min(start + size, len(self)))
            yield where, self.take(where).materialise().flatten(1)


class DenseTerm(GradientTerm):
    """Gradients that exist: biases, norms, and whatever no factors are known of."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.shape = tuple(values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    @property
    def floats(self) -> int:
        """All of the parameter."""
        return prod(self.shape)

    def materialise(self) -> Tensor:
        """The values."""
        return self.values

    def dot_vectors(self, block: Tensor) -> Tensor:
        """One GEMM."""
        return self.values.flatten(1) @ block.flatten(1).T

    def sums(self, member: Tensor) -> Tensor:
        """One GEMM."""
        return (member @ self.values.flatten(1)).reshape(len(member), *self.shape)

    def take(self, where: slice) -> DenseTerm:
        """A view."""
        return DenseTerm(self.values[where])

    def scaled(self, by: Tensor) -> DenseTerm:
        """Multiplied out."""
        return DenseTerm(self.values * by.view(-1, *[1] * len(self.shape)))


class OuterTerm(GradientTerm):
    """Gradients Σ_t left_t right_tᵀ.

    Args:
        left: (B, T, r), for a linear layer the output gradients s.
        right: (B, T, c), for a linear layer the activations a.
        shape: of the parameter, r × c when flattened behind its first axis.
        swapped: left holds the activations and right the output gradients (weights stored input × output).
    """

    def __init__(self, left: Tensor, right: Tensor, shape: tuple[int, ...], swapped: bool = False) -> None:
        self.left, self.right, self.shape, self.swapped = left, right, shape, swapped

    def __len__(self) -> int:
        return len(self.right)

    @property
    def floats(self) -> int:
        """T (r + c)."""
        return self.length * (self.left.shape[-1] + self.right.shape[-1])

    @property
    def length(self) -> int:
        """T."""
        return self.right.shape[1]

    def materialise(self) -> Tensor:
        """One batched GEMM."""
        return (self.left.transpose(1, 2) @ self.right).reshape(len(self), *self.shape)

    def dot_vectors(self, block: Tensor) -> Tensor:
        """left_tᵀ X right_t by one GEMM against all X where T = 1, of materialised gradients otherwise."""
        if self.length > 1 and len(block) > 1:
            out = self.right.new_empty(len(self), len(block))
            for where, gradients in self.chunks():
                out[where] = gradients @ block.flatten(1).T
            return out
        b, t, r, c = *self.left.shape, self.right.shape[-1]
        matrices, left, right = block.reshape(len(block), r, c), self.left, self.right
        out = self.right.new_empty(b, len(block))
        size = max(1, MAX_TEMPORARY_NUMBERS // max(1, b * t * min(r, c)))
        for start in range(0, len(block), size):
            x = matrices[start : start + size]
            if r <= c:
                bent = (right.reshape(b * t, c) @ x.reshape(-1, c).T).view(b, t, len(x), r)
                out[:, start : start + size] = torch.einsum("btkr,btr->bk", bent, left)
            else:
                bent = (left.reshape(b * t, r) @ x).view(len(x), b, t, c)
                out[:, start : start + size] = torch.einsum("kbtc,btc->bk", bent, right)
        return out

    def sums(self, member: Tensor) -> Tensor:
        """A GEMM over all positions for one group; of materialised gradients, which serve all groups, for several."""
        if len(member) > 1 and self.length > 1:
            out = self.right.new_zeros(len(member), prod(self.shape))
            for where, gradients in self.chunks():
                out += member[:, where] @ gradients
            return out.reshape(len(member), *self.shape)
        right = self.right.flatten(0, 1)
        each = [(self.left * m[:, None, None]).flatten(0, 1).T @ right for m in member]
        return torch.stack(each).reshape(len(member), *self.shape)

    def take(self, where: slice) -> OuterTerm:
        """Views."""
        return OuterTerm(self.left[where], self.right[where], self.shape, self.swapped)

    def scaled(self, by: Tensor) -> OuterTerm:
        """The left side is."""
        return OuterTerm(self.left * by[:, None, None], self.right, self.shape, self.swapped)

    def rows(self, kept: Tensor) -> OuterTerm:
        """Only these rows of the parameter, as a matrix (len(kept), c)."""
        return OuterTerm(self.left[..., kept], self.right, (len(kept), self.right.shape[-1]))


class LookupTerm(GradientTerm):
    """Gradients Σ_t e(ids_t) right_tᵀ of a table (r, c): an embedding.

    Args:
        ids: (B, T) integers.
        right: (B, T, c), the output gradients; zero where the id is padding.
        shape: (r, c).
    """

    def __init__(self, ids: Tensor, right: Tensor, shape: tuple[int, ...]) -> None:
        self.ids, self.right, self.shape = ids, right, shape

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def floats(self) -> int:
        """T (1 + c)."""
        return self.length * (1 + self.right.shape[-1])

    @property
    def length(self) -> int:
        """T."""
        return self.ids.shape[1]

    def materialise(self) -> Tensor:
        """Scattered rows."""
        b, rows = len(self), self.shape[0]
        out = self.right.new_zeros(b * rows, self.right.shape[-1])
        places = self.ids + rows * torch.arange(b, device=self.ids.device)[:, None]
        return out.index_add_(0, places.flatten(), self.right.flatten(0, 1)).view(b, *self.shape)

    def dot_vectors(self, block: Tensor) -> Tensor:
        """Gathered rows of each vector; one GEMM over the rows that occur where those are few or vectors many."""
        if len(block) > 1:
            kept = torch.unique(self.ids)
            if len(kept) <= MAX_FLOP_RATIO * self.length:
                seen, out = block[:, kept].flatten(1).T, self.right.new_empty(len(self), len(block))
                for where, gradients in self.rows(kept).chunks():
                    out[where] = gradients @ seen
                return out
        return torch.stack([(functional.embedding(self.ids, x) * self.right).sum((1, 2)) for x in block], dim=1)

    def sums(self, member: Tensor) -> Tensor:
        """Scattered, weighted rows."""
        out = self.right.new_zeros(len(member), *self.shape)
        for total, m in zip(out, member, strict=True):
            total.index_add_(0, self.ids.flatten(), (self.right * m[:, None, None]).flatten(0, 1))
        return out

    def take(self, where: slice) -> LookupTerm:
        """Views."""
        return LookupTerm(self.ids[where], self.right[where], self.shape)

    def scaled(self, by: Tensor) -> LookupTerm:
        """The output gradients are."""
        return LookupTerm(self.ids, self.right * by[:, None, None], self.shape)

    def rows(self, kept: Tensor) -> LookupTerm:
        """Only these rows of the table (sorted), as a table (len(kept), c)."""
        places = torch.searchsorted(kept, self.ids.contiguous()).clamp_(max=len(kept) - 1)
        inside = kept[places] == self.ids
        return LookupTerm(places * inside, self.right * inside[..., None], (len(kept), self.right.shape[-1]))


def concatenate(terms: Sequence[GradientTerm]) -> GradientTerm:
    """The same use in consecutive batches as one; shorter sequences are padded with zeros, which add nothing."""
    first = terms[0]
    if len(terms) == 1:
        return first
    if isinstance(first, OuterTerm):
        left, right = _padded([p.left for p in terms]), _padded([p.right for p in terms])  # type: ignore[attr-defined]
        return OuterTerm(left, right, first.shape, first.swapped)
    if isinstance(first, LookupTerm):
        ids = _padded([p.ids[..., None] for p in terms])[..., 0]  # type: ignore[attr-defined]
        return LookupTerm(ids, _padded([p.right for p in terms]), first.shape)  # type: ignore[attr-defined]
    return DenseTerm(torch.cat([p.materialise() for p in terms]))


def _padded(tensors: list[Tensor]) -> Tensor:
    longest = max(t.shape[1] for t in tensors)
    return torch.cat([functional.pad(t, (0, 0, 0, longest - t.shape[1])) for t in tensors])
