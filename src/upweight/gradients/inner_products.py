"""Inner products of per-example gradients, of all pairs or example by example, by the cheaper of two ways."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.gradients.gradient_terms import MAX_TEMPORARY_NUMBERS, DenseTerm, GradientTerm, LookupTerm, OuterTerm
from upweight.gradients.matrices import flatten_each


def pairwise_inner_products(first: GradientTerm, second: GradientTerm, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
    """⟨Gᵢ, G'ⱼ⟩ of all pairs, (len(first), len(second)).

    Ghost products cost 2 T T' (r + c) flops per pair, materialised gradients 2 r c: the cheaper way is taken.
    No temporary tensor holds more than `limit` numbers.
    """
    if isinstance(second, DenseTerm):
        return first.dot_vectors(second.values, limit)
    if isinstance(first, DenseTerm):
        return second.dot_vectors(first.values, limit).T
    first, second = _common_rows(first, second)
    if ghost_is_cheaper(first, second.length):
        return _ghost(first, second, limit)
    out = first.right.new_empty(len(first), len(second))
    for columns, b in second.chunks(limit):
        for rows, a in first.chunks(limit):
            out[rows, columns] = a @ b.T
    return out


def per_example_inner_products(first: GradientTerm, second: GradientTerm, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
    """⟨Gᵢ, G'ᵢ⟩ of the same example in two terms of one parameter, (B,)."""
    if isinstance(first, DenseTerm) or isinstance(second, DenseTerm):
        return (flatten_each(first.materialise()) * flatten_each(second.materialise())).sum(1)
    first, second = _common_rows(first, second)
    size = max(1, limit // max(1, first.length * second.length, prod(first.shape)))
    out = first.right.new_empty(len(first))
    for where in blocks(len(first), size):
        a, b = first.take(where), second.take(where)
        if first.length * second.length * sum(_costs(first)) < 2 * first.length * prod(first.shape):
            out[where] = (_left_inner_products(a, b, paired=True) * (a.right @ b.right.transpose(1, 2))).sum((1, 2))
        else:
            left = a.materialise()
            out[where] = flatten_each(left * (left if first is second else b.materialise())).sum(1)
    return out


def ghost_is_cheaper(term: OuterTerm | LookupTerm, length: int) -> bool:
    """Whether ghost products with a term of `length` positions are cheaper than products of materialised gradients."""
    return term.length * length * sum(_costs(term)) < max(prod(term.shape), 2)


def _costs(term: OuterTerm | LookupTerm) -> tuple[int, int]:
    """Flops of the inner product of two left factors (of two ids: one comparison) and of two right factors."""
    columns = term.columns
    return (prod(term.shape) // columns if isinstance(term, OuterTerm) else 1), columns


def _common_rows(first: GradientTerm, second: GradientTerm) -> tuple[OuterTerm | LookupTerm, OuterTerm | LookupTerm]:
    """Both terms, restricted to the rows that are looked up if one of them is an embedding table."""
    assert isinstance(first, OuterTerm | LookupTerm) and isinstance(second, OuterTerm | LookupTerm)
    tables = [term for term in (first, second) if isinstance(term, LookupTerm)]
    if not tables:
        return first, second
    smallest = min(tables, key=lambda term: term.ids.numel())
    indices = torch.unique(smallest.ids)
    return first.rows(indices), second.rows(indices)


def _ghost(first: OuterTerm | LookupTerm, second: OuterTerm | LookupTerm, limit: int) -> Tensor:
    first, second = (term.outer() if isinstance(term, OuterTerm) else term for term in (first, second))
    length, other = first.length, second.length
    if length == other == 1:
        return _left_inner_products(first, second).mul_(first.right[:, 0] @ second.right[:, 0].T)
    out = first.right.new_empty(len(first), len(second))
    size = max(1, limit // max(1, length * other * len(second)))
    for where in blocks(len(first), size):
        term = first.take(where)
        products = _left_inner_products(term, second).mul_(term.right.flatten(0, 1) @ second.right.flatten(0, 1).T)
        out[where] = products.view(len(term), length, len(second), other).sum((1, 3))
    return out


def _left_inner_products(first: OuterTerm | LookupTerm, second: OuterTerm | LookupTerm, paired: bool = False) -> Tensor:
    """⟨left_t, left'_t'⟩ of all pairs of examples (B·T, B'·T'), or of the same example (B, T, T') if `paired`."""
    if isinstance(first, LookupTerm) and isinstance(second, LookupTerm):
        same_ids = (
            first.ids[:, :, None] == second.ids[:, None, :]
            if paired
            else (first.ids.flatten()[:, None] == second.ids.flatten())
        )
        return same_ids.to(first.right.dtype)
    if isinstance(first, LookupTerm):
        return _left_inner_products(second, first, paired).transpose(-1, -2).contiguous()
    if isinstance(second, LookupTerm):
        if not paired:
            return first.left.flatten(0, 1).index_select(1, second.ids.flatten())
        indices = second.ids[:, None, :].expand(-1, first.length, -1)
        return torch.gather(first.left, 2, indices)
    if paired:
        return first.left @ second.left.transpose(1, 2)
    return first.left.flatten(0, 1) @ second.left.flatten(0, 1).T
