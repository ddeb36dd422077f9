"""Answers: what one answer of a fitted method says of itself, beside its values."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
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
    """Blocks of scores as they come, and after the last one what they say of themselves.

    Attributes:
        facts: those that the method returned; empty until the last block has come.
    """

    def __init__(self, blocks: Iterator[Block] | Blocks) -> None:
        self._blocks = blocks
        self.facts = AnswerFacts()

    def __iter__(self) -> Iterator[Block]:
        returned: Any = yield from self._blocks  # type: ignore[func-returns-value]  # a generator's own; else None
        self.facts = returned or AnswerFacts()


def combined(parts: Sequence[AnswerFacts]) -> AnswerFacts:
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
