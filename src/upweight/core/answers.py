"""An answer of a fitted method: blocks of scores, each checked, with the unit and diagnostics of this answer."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.scores import Unit

Block = tuple[slice, NDArray[np.float64]]  # training examples, and the scores of all queries for them, (m, block)


@dataclass(frozen=True)
class AnswerFacts:
    """Unit and diagnostics of one answer, if they differ from those of the fit.

    Attributes:
        unit: the unit of this answer; None for that of the fit.
        diagnostics: added to those of the fit; `warnings` are appended to its warnings.
        half_widths: of the 90 % intervals of these scores, (m, n); None if they are not estimated.
    """

    unit: Unit | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    half_widths: NDArray[np.float64] | None = None


Blocks = Generator[Block, None, AnswerFacts | None]  # the facts may be omitted


class Answer:
    """An iterator over blocks of scores that checks each block, and then holds the facts of the answer.

    Args:
        blocks: the blocks as the method yields them.
        queries: number of queries.
        train: number of training examples.
        method: name of the method, for messages.

    Attributes:
        train: the number of training examples.
        facts: what the method returned after its last block; empty until then.
    """

    def __init__(self, blocks: Iterator[Block] | Blocks, queries: int, train: int, method: str) -> None:
        self._blocks, self.train = blocks, train
        self._queries = queries
        self._method = method
        self._received = np.zeros(train, dtype=bool)
        self.facts = AnswerFacts()

    def __iter__(self) -> Iterator[Block]:
        """Yield every block as (slice with start and stop, array (queries, stop − start)), in the method's order.

        Raises:
            TypeError: a block is not such a pair, or the returned facts are not an AnswerFacts.
            ValueError: a block has another shape, or a training example is scored twice or never.
        """
        if not isinstance(self._blocks, Iterable):
            raise TypeError(self._message(self._blocks))
        returned = yield from self._check_blocks(iter(self._blocks))
        if not self._received.all():
            missing = np.flatnonzero(~self._received)
            raise ValueError(
                f"expected blocks of {self._method} for all {len(self._received)} training examples, got none for "
                f"{len(missing)} of them, the first at position {missing[0]}"
            )
        if not isinstance(returned, AnswerFacts | None):
            raise TypeError(
                f"expected blocks of {self._method} to end with `return AnswerFacts(…)` or without a value, "
                f"got {_describe(returned)}"
            )
        self.facts = returned or AnswerFacts()

    def _check_blocks(self, blocks: Iterator[Block]) -> Generator[Block, None, Any]:
        while True:
            try:
                given = next(blocks)
            except StopIteration as end:
                return end.value
            yield self._as_block(given)

    def _as_block(self, given: Any) -> Block:
        """The block with a slice from start to stop; its examples are marked as received."""
        if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[0], slice):
            raise TypeError(self._message(given))
        values = np.asarray(given[1])
        start, stop, step = given[0].indices(len(self._received))
        if values.dtype.kind not in "fiub":
            raise TypeError(self._message(given))
        if step != 1 or values.shape != (self._queries, stop - start):
            raise ValueError(self._message(given))
        if self._received[start:stop].any():
            repeated = start + int(np.argmax(self._received[start:stop]))
            raise ValueError(
                f"expected blocks of {self._method} to hold every training example once, got that at position "
                f"{repeated} a second time, in {given[0]}"
            )
        self._received[start:stop] = True
        return slice(start, stop), values

    def _message(self, given: Any) -> str:
        got = f"({', '.join(map(_describe, given))})" if isinstance(given, tuple) else _describe(given)
        return (
            f"expected blocks of {self._method} as (slice, array of shape (m, block)), of m = {self._queries} "
            f"queries and some of {len(self._received)} training examples, got {got}"
        )


def _describe(given: Any) -> str:
    """Type of a value for a message, with the shape of an array."""
    if isinstance(given, slice | None):
        return repr(given)
    kind, shape = type(given).__name__, getattr(given, "shape", None)
    return f"a value of the type {kind}" if shape is None else f"{kind} of shape {tuple(shape)}"


def combine_facts(parts: Sequence[AnswerFacts]) -> AnswerFacts:
    """The facts of several answers as one: the weaker unit, all warnings, and a list of the values that differ."""
    units = {part.unit for part in parts}
    unit = Unit.RANK if Unit.RANK in units else next(iter(units), None)
    names = dict.fromkeys(name for part in parts for name in part.diagnostics if name != "warnings")
    diagnostics: dict[str, Any] = {}
    for name in names:
        values = [part.diagnostics[name] for part in parts if name in part.diagnostics]
        diagnostics[name] = values[0] if all(value == values[0] for value in values) else values
    warnings = list(dict.fromkeys(text for part in parts for text in part.diagnostics.get("warnings", ())))
    widths = [part.half_widths for part in parts if part.half_widths is not None]
    half_widths = np.vstack(widths) if len(widths) == len(parts) > 0 else None
    return AnswerFacts(unit, {**diagnostics, **({"warnings": warnings} if warnings else {})}, half_widths)
