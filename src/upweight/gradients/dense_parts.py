"""Captured gradients as a matrix, part by part, because it has no room in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from upweight.core.forecast import counted
from upweight.core.rows import DensePart
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.gradient_terms import DenseTerm, GradientTerm, LookupTerm, OuterTerm
from upweight.gradients.held_numbers import MAX_CACHED_NUMBERS, held_numbers, streamed_numbers
from upweight.gradients.merged_batches import merge_batches
from upweight.gradients.patches import PatchTerm
from upweight.gradients.tensor_rows import to_numpy


def dense_parts(
    passes: Iterator[tuple[slice, CapturedBatch]],
    count: int,
    shapes: Mapping[str, tuple[int, ...]],
    columns: Sequence[slice],
) -> Iterator[DensePart]:
    """These columns of as many rows as have room as factors, then those of the next rows.

    Of the gradients, only the part that is given out is materialised.

    Args:
        passes: batches of gradients, of `count` rows in all.
        count: of the rows.
        shapes: name → shape, in the order of the parameters.
        columns: of all parameters.
    """
    smaller = ((where, smaller_forms(batch)) for where, batch in passes)
    for where, batch in merge_batches(smaller, held_numbers(MAX_CACHED_NUMBERS), count):
        for some in counted(columns, len(columns)):
            size = max(1, streamed_numbers() // max(1, 4 * (some.stop - some.start)))  # and copies in float64
            for first in range(0, batch.count, size):
                gradients = gradient_columns(batch.take(slice(first, first + size)), shapes, some)
                part = slice(where.start + first, where.start + first + len(gradients))
                yield part, some, to_numpy(gradients)


def smaller_forms(batch: CapturedBatch) -> CapturedBatch:
    """The same gradients, materialised where that takes fewer numbers than the factors, and in place of patches."""
    return replace(batch, terms={name: tuple(map(_smaller_form, uses)) for name, uses in batch.terms.items()})


def _smaller_form(term: GradientTerm) -> GradientTerm:
    is_large = term.floats > prod(term.shape)
    return DenseTerm(term.materialise()) if is_large or isinstance(term, PatchTerm) else term


def gradient_columns(batch: CapturedBatch, shapes: Mapping[str, tuple[int, ...]], columns: slice) -> Tensor:
    """The gradients in these of all parameters, (B, columns); nothing else is materialised.

    `shapes`: name → shape, in the order of the parameters.
    """
    parts, start = [], 0
    for name, shape in shapes.items():
        first, last = max(columns.start - start, 0), min(columns.stop - start, prod(shape))
        if first < last:
            uses = [_term_columns(term, first, last) for term in batch.terms[name]]
            parts.append(sum(uses[1:], uses[0]) if uses else batch.like.new_zeros(batch.count, last - first))
        start += prod(shape)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _term_columns(term: GradientTerm, first: int, last: int) -> Tensor:
    """Numbers `first` to `last` of each flattened gradient, (B, last − first)."""
    lower = 0
    if isinstance(term, OuterTerm | LookupTerm):
        width, lower = term.columns, first // term.columns
        term = term.rows(torch.arange(lower, -(-last // width), device=term.right.device))
        lower *= width
    return term.materialise().reshape(len(term), -1)[:, first - lower : last - lower]
