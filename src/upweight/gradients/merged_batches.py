"""Consecutive batches of captured gradients as fewer and larger ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import final

from torch import Tensor

from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.gradient_terms import DenseTerm, GradientTerm, LookupTerm, OuterTerm
from upweight.gradients.patches import PatchTerm


def merge_batches(
    passes: Iterator[tuple[slice, CapturedBatch]], limit: int, count: int
) -> Iterator[tuple[slice, CapturedBatch]]:
    """Join consecutive batches, of `count` rows in all, into fewer of at most `limit` numbers: (which rows, batch).

    Every batch is copied to its place as it comes, which leaves its own memory to the next one. Many batches that wait
    to be joined would be in memory twice, and what was computed between them would leave gaps that cannot be returned.
    """
    joined, rows, numbers = Joined(), slice(0, 0), 0
    for where, batch in passes:
        size = batch.floats * batch.count
        if joined and numbers + size > limit:
            yield rows, joined.taken()
            numbers, count = 0, count - (rows.stop - rows.start)
        rows, numbers = slice(rows.start if joined else where.start, where.stop), numbers + size
        joined.add(batch, min(count, limit // max(1, batch.floats)))
        del batch  # before the next one is captured
    if joined:
        yield rows, joined.taken()


@final
class Joined:
    """Consecutive batches that become one: in room that the first of them is made for, as long as they fit into it."""

    def __init__(self) -> None:
        self._batches: list[CapturedBatch] = []
        self._room: Room | None = None

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, batch: CapturedBatch, most: int) -> None:
        """Add a batch; all together will have at most so many rows."""
        if len(self._batches) == 1:
            first = self._batches[0]
            room = self._room or Room.with_first(first, max(most, first.count + batch.count))
            if room.fits(batch):
                room.add(batch)
                self._batches[0], self._room = room.filled(), room
                return
        self._batches.append(batch)
        self._room = None  # other forms: joined at the end

    def taken(self) -> CapturedBatch:
        """All of them as one batch; nothing is left here."""
        batches, self._batches, self._room = self._batches, [], None
        return CapturedBatch.concatenate(batches)


@final
class Room:
    """Memory for the terms of consecutive batches of the same form. It is taken as it is filled."""

    def __init__(self, first: CapturedBatch, capacity: int) -> None:
        terms = {
            name: tuple(
                _with_parts(term, [part.new_empty(capacity, *part.shape[1:]) for part in _parts(term)]) for term in uses
            )
            for name, uses in first.terms.items()
        }
        self._whole, self._count = replace(first, count=capacity, terms=terms), 0

    @classmethod
    def with_first(cls, first: CapturedBatch, capacity: int) -> Room:
        """Room for so many rows, which has these."""
        room = cls(first, capacity)
        room.add(first)
        return room

    def fits(self, batch: CapturedBatch) -> bool:
        """Whether a batch has terms of the same forms, and there is room for its rows."""
        if self._count + batch.count > self._whole.count or batch.terms.keys() != self._whole.terms.keys():
            return False
        return all(
            len(uses) == len(self._whole.terms[name]) and all(map(_have_one_form, uses, self._whole.terms[name]))
            for name, uses in batch.terms.items()
        )

    def add(self, batch: CapturedBatch) -> None:
        """Copy the batch behind those before."""
        where = slice(self._count, self._count + batch.count)
        for name, uses in batch.terms.items():
            for term, whole in zip(uses, self._whole.terms[name], strict=True):
                for part, place in zip(_parts(term), _parts(whole), strict=True):
                    place[where] = part
        self._count = where.stop

    def filled(self) -> CapturedBatch:
        """What was added, as views."""
        return self._whole.take(slice(0, self._count))


def _have_one_form(term: GradientTerm, other: GradientTerm) -> bool:
    if type(term) is not type(other) or term.shape != other.shape:
        return False
    pairs = zip(_parts(term), _parts(other), strict=True)
    return all(a.shape[1:] == b.shape[1:] and a.dtype == b.dtype for a, b in pairs)


def _parts(term: GradientTerm) -> tuple[Tensor, ...]:
    """The tensors of a term, each with a row for every example."""
    match term:
        case DenseTerm():
            return (term.values,)
        case LookupTerm():
            return term.ids, term.right
        case PatchTerm():
            return term.left, term.inputs
        case OuterTerm():
            return term.left, term.right
    raise TypeError(f"no parts of {type(term).__name__}")


def _with_parts(term: GradientTerm, parts: list[Tensor]) -> GradientTerm:
    """A term of the same form with these tensors."""
    match term:
        case LookupTerm():
            return LookupTerm(parts[0], parts[1], term.shape)
        case PatchTerm():
            return PatchTerm(parts[0], parts[1], term.module)
        case OuterTerm():
            return OuterTerm(parts[0], parts[1], term.shape, term.swapped)
    return DenseTerm(parts[0])
