"""The least that a model and a method can be: a slope, and inner products of inputs in blocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from upweight import Examples, Unit
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.model import Measurable, Predictions


class Line(Measurable):
    """The least a model can be: a slope."""

    def __init__(self, *slope):
        self.parameters = np.array(slope)

    measurement = "−squared error"

    def measure(self, queries):
        return -((queries.x @ self.parameters - 1) ** 2)

    def predict(self, examples):
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
    def promises(self):
        return Promises()

    def fit(self, model, train):
        return FittedOverlap(self, model, train, np.asarray(train.x, dtype=float))

    def restore(self, model, train, state, facts):
        return FittedOverlap(self, model, train, state["rows"])


class FittedOverlap(Fitted):
    def __init__(self, recipe, model, train, rows):
        super().__init__(recipe, model, train, Unit.RANK)
        self.rows = rows
        self.holes = False

    def blocks(self, queries):
        for start in range(0, len(self.rows), self.recipe.block):
            where = slice(start, min(start + self.recipe.block, len(self.rows)))
            if not (self.holes and start):
                yield where, np.asarray(queries.x, dtype=float) @ self.rows[where].T

    def self_values(self):
        return (self.rows**2).sum(axis=1)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        return {"damping": 0.1, "warnings": ["<short>"]}

    def state(self):
        return {"rows": self.rows}, {"kind": "overlap"}


def problem(n=9, m=3, seed=0):
    random = np.random.default_rng(seed)
    train = Examples(random.normal(size=(n, 2)), random.normal(size=n), ids=[f"t{i}" for i in range(n)])
    return Line(0.5, -1.0), train, Examples(random.normal(size=(m, 2)), ids=[f"q{i}" for i in range(m)])
