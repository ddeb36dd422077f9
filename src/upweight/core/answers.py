"""Answers: what one answer of a fitted method says of itself, beside its values."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.scores import Unit

Block = tuple[slice, NDArray[np.float64]]  # which training examples, and the scores of all queries for them (m, block)


@dataclass(frozen=True)
class AnswerFacts:
    """What is true of one answer and of no other.

    Attributes:
        unit: the unit of this answer, None for that of the fit.
        diagnostics: added to those of the fit; `warnings` are added to its warnings.
    """

    unit: Unit | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


Blocks = Generator[Block, None, AnswerFacts | None]  # blocks as they come; what is returned at the end may be left out


class Answer:
    """Blocks of scores as they come, each checked, and after the last one what they say of themselves.

    Attributes:
        facts: those that the method returned; empty until the last block has come.
    """

    def __init__(self, blocks: Iterator[Block] | Blocks, queries: int, train: int, method: str) -> None:
        self._blocks = blocks
        self._queries = queries
        self._method = method
        self._came = np.zeros(train, dtype=bool)
        self.facts = AnswerFacts()

    def __iter__(self) -> Iterator[Block]:
        """Every block as (slice with start and stop, array (queries, stop − start)), in the order of the method.

        Raises:
            TypeError: what is no such pair, or facts that are no AnswerFacts.
            ValueError: a block of another shape, training examples of which scores came twice or never.
        """
        if not isinstance(self._blocks, Iterable):
            raise TypeError(self._misfit(self._blocks))
        returned = yield from self._checked(iter(self._blocks))
        if not self._came.all():
            missing = np.flatnonzero(~self._came)
            raise ValueError(
                f"expected blocks of {self._method} for all {len(self._came)} training examples, got none for "
                f"{len(missing)} of them, the first at position {missing[0]}"
            )
        if not isinstance(returned, AnswerFacts | None):
            raise TypeError(
                f"expected blocks of {self._method} to end with `return AnswerFacts(…)` or without a value, "
                f"got {_described(returned)}"
            )
        self.facts = returned or AnswerFacts()

    def _checked(self, blocks: Iterator[Block]) -> Generator[Block, None, Any]:
        while True:
            try:
                given = next(blocks)
            except StopIteration as end:
                return end.value
            yield self._as_block(given)

    def _as_block(self, given: Any) -> Block:
        """The block with a slice from start to stop; noted as come."""
        if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[0], slice):
            raise TypeError(self._misfit(given))
        values = np.asarray(given[1])
        start, stop, step = given[0].indices(len(self._came))
        if values.dtype.kind not in "fiub":
            raise TypeError(self._misfit(given))
        if step != 1 or values.shape != (self._queries, stop - start):
            raise ValueError(self._misfit(given))
        if self._came[start:stop].any():
            again = start + int(np.argmax(self._came[start:stop]))
            raise ValueError(
                f"expected blocks of {self._method} to hold every training example once, got that at position "
                f"{again} a second time, in {given[0]}"
            )
        self._came[start:stop] = True
        return slice(start, stop), values

    def _misfit(self, given: Any) -> str:
        got = f"({', '.join(map(_described, given))})" if isinstance(given, tuple) else _described(given)
        return (
            f"expected blocks of {self._method} as (slice, array of shape (m, block)), of m = {self._queries} "
            f"queries and some of {len(self._came)} training examples, got {got}"
        )


def _described(given: Any) -> str:
    """A value in a few words: an array by its shape."""
    if isinstance(given, slice | None):
        return repr(given)
    kind, shape = type(given).__name__, getattr(given, "shape", None)
    return f"a value of the type {kind}" if shape is None else f"{kind} of shape {tuple(shape)}"


def combine_facts(parts: Sequence[AnswerFacts]) -> AnswerFacts:
    """The facts of several answers as those of one: the weaker unit, all warnings, numbers that differ as a list."""
    units = {part.unit for part in parts}
    unit = Unit.RANK if Unit.RANK in units else next(iter(units), None)
    names = dict.fromkeys(name for part in parts for name in part.diagnostics if name != "warnings")
    diagnostics: dict[str, Any] = {}
    for name in names:
        values = [part.diagnostics[name] for part in parts if name in part.diagnostics]
        diagnostics[name] = values[0] if all(value == values[0] for value in values) else values
    warnings = list(dict.fromkeys(text for part in parts for text in part.diagnostics.get("warnings", ())))
    return AnswerFacts(unit, {**diagnostics, **({"warnings": warnings} if warnings else {})})
