"""The least that a model and a method can be: a slope, and inner products of inputs in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight import Examples, Unit
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.model import Measurable, Predictions

Array = NDArray[np.float64]


class Line(Measurable):
    """The least a model can be: a slope."""

    def __init__(self, *slope: float) -> None:
        self.parameters = np.array(slope)

    @property
    def measurement(self) -> str:
        return "−squared error"

    def measure(self, queries: Examples) -> Array:
        return -((queries.x @ self.parameters - 1) ** 2)

    def predict(self, examples: Examples) -> Predictions:
        return Predictions(tuple((examples.x @ self.parameters).tolist()))


@dataclass(frozen=True, kw_only=True)
class Ruler:
    width: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Overlap(Attributor):
    """Inner products, a block of training examples at a time."""

    block: int = 4
    scales: tuple[float, ...] = (1.0, 2.0)
    ruler: Ruler = field(default_factory=Ruler)
    label: Any = None

    @property
    def promises(self) -> Promises:
        return Promises()

    def fit(self, model: Any, train: Examples) -> FittedOverlap:
        return FittedOverlap(self, model, train, np.asarray(train.x, dtype=float))

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, Array], facts: Mapping[str, Any]
    ) -> FittedOverlap:
        return FittedOverlap(self, model, train, state["rows"])


class FittedOverlap(Fitted):
    """The inner products; `holes` leaves out all blocks but the first, which a caller has to notice."""

    def __init__(self, recipe: Overlap, model: Any, train: Examples, rows: Array) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.rows = rows
        self.holes = False

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(self.rows), self.recipe.block):
            where = slice(start, min(start + self.recipe.block, len(self.rows)))
            if not (self.holes and start):
                yield where, np.asarray(queries.x, dtype=float) @ self.rows[where].T

    def self_values(self) -> Array:
        return (self.rows**2).sum(axis=1)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        return {"damping": 0.1, "warnings": ["<short>"]}

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        return {"rows": self.rows}, {"kind": "overlap"}


def problem(n: int = 9, m: int = 3, seed: int = 0) -> tuple[Line, Examples, Examples]:
    """(model, train, queries)."""
    random = np.random.default_rng(seed)
    train = Examples(random.normal(size=(n, 2)), random.normal(size=n), ids=[f"t{i}" for i in range(n)])
    return Line(0.5, -1.0), train, Examples(random.normal(size=(m, 2)), ids=[f"q{i}" for i in range(m)])
