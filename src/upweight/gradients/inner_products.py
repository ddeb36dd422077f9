"""Inner products of per-example gradients, of every pair or example by example, by the cheaper of two ways."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from upweight.gradients.gradient_terms import MAX_TEMPORARY_NUMBERS, DenseTerm, GradientTerm, LookupTerm, OuterTerm


def pairwise_inner_products(ours: GradientTerm, theirs: GradientTerm) -> Tensor:
    """⟨Gᵢ, Gⱼ⟩ of every pair, (len(ours), len(theirs)).

    Ghost products cost 2 T T' (r + c) flops a pair, materialised gradients 2 r c: the cheaper is taken.
    """
    if isinstance(theirs, DenseTerm):
        return ours.dot_vectors(theirs.values)
    if isinstance(ours, DenseTerm):
        return theirs.dot_vectors(ours.values).T
    ours, theirs = _common_rows(ours, theirs)
    if ghost_is_cheaper(ours, theirs.length):
        return _ghost(ours, theirs)
    out = ours.right.new_empty(len(ours), len(theirs))
    for there, right in theirs.chunks():
        for here, left in ours.chunks():
            out[here, there] = left @ right.T
    return out


def per_example_inner_products(ours: GradientTerm, theirs: GradientTerm) -> Tensor:
    """⟨Gᵢ, G'ᵢ⟩ of the same example in two uses of one parameter, (B,)."""
    if isinstance(ours, DenseTerm) or isinstance(theirs, DenseTerm):
        return (ours.materialise().flatten(1) * theirs.materialise().flatten(1)).sum(1)
    ours, theirs = _common_rows(ours, theirs)
    size = max(1, MAX_TEMPORARY_NUMBERS // max(1, ours.length * theirs.length, prod(ours.shape)))
    out = ours.right.new_empty(len(ours))
    for start in range(0, len(ours), size):
        where = slice(start, start + size)
        a, b = ours.take(where), theirs.take(where)
        if ours.length * theirs.length * sum(_sides(ours)) < 2 * ours.length * prod(ours.shape):
            out[where] = (_meetings(a, b, paired=True) * (a.right @ b.right.transpose(1, 2))).sum((1, 2))
        else:
            out[where] = (a.materialise() * b.materialise()).flatten(1).sum(1)
    return out


def ghost_is_cheaper(term: OuterTerm | LookupTerm, length: int) -> bool:
    """Whether products by positions are cheaper than by materialised gradients, against `length` positions."""
    return term.length * length * sum(_sides(term)) < max(prod(term.shape), 2)


def _sides(term: OuterTerm | LookupTerm) -> tuple[int, int]:
    """Costs of meeting on the left (looking up is one comparison) and on the right."""
    columns = term.right.shape[-1]
    return (prod(term.shape) // columns if isinstance(term, OuterTerm) else 1), columns


def _common_rows(ours: GradientTerm, theirs: GradientTerm) -> tuple[OuterTerm | LookupTerm, OuterTerm | LookupTerm]:
    """Where a table is involved, only the rows that are looked up."""
    assert isinstance(ours, OuterTerm | LookupTerm) and isinstance(theirs, OuterTerm | LookupTerm)
    tables = [term for term in (ours, theirs) if isinstance(term, LookupTerm)]
    if not tables:
        return ours, theirs
    smallest = min(tables, key=lambda term: term.ids.numel())
    kept = torch.unique(smallest.ids)
    return ours.rows(kept), theirs.rows(kept)


def _ghost(ours: OuterTerm | LookupTerm, theirs: OuterTerm | LookupTerm) -> Tensor:
    length, other = ours.length, theirs.length
    if length == other == 1:
        return _meetings(ours, theirs).mul_(ours.right[:, 0] @ theirs.right[:, 0].T)
    out = ours.right.new_empty(len(ours), len(theirs))
    size = max(1, MAX_TEMPORARY_NUMBERS // max(1, length * other * len(theirs)))
    for start in range(0, len(ours), size):
        term = ours.take(slice(start, start + size))
        met = _meetings(term, theirs).mul_(term.right.flatten(0, 1) @ theirs.right.flatten(0, 1).T)
        out[start : start + size] = met.view(len(term), length, len(theirs), other).sum((1, 3))
    return out


def _meetings(ours: OuterTerm | LookupTerm, theirs: OuterTerm | LookupTerm, paired: bool = False) -> Tensor:
    """⟨left_t, left'_t'⟩: (B·T, B'·T') of all pairs of examples, (B, T, T') of the same example."""
    if isinstance(ours, LookupTerm) and isinstance(theirs, LookupTerm):
        same = (
            ours.ids[:, :, None] == theirs.ids[:, None, :]
            if paired
            else (ours.ids.flatten()[:, None] == theirs.ids.flatten())
        )
        return same.to(ours.right.dtype)
    if isinstance(ours, LookupTerm):
        return _meetings(theirs, ours, paired).transpose(-1, -2).contiguous()
    if isinstance(theirs, LookupTerm):
        if not paired:
            return ours.left.flatten(0, 1).index_select(1, theirs.ids.flatten())
        places = theirs.ids[:, None, :].expand(-1, ours.length, -1)
        return torch.gather(ours.left, 2, places)
    if paired:
        return ours.left @ theirs.left.transpose(1, 2)
    return ours.left.flatten(0, 1) @ theirs.left.flatten(0, 1).T
