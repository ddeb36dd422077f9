"""What learned weights have in common, in words: conditions under which they are larger or smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.conditions import conditions_of
from upweight.applications.weight_slopes import FreeWeights
from upweight.core.examples import Examples

Array = NDArray[np.float64]
MAX_CONDITIONS_NAMED = 8  # conditions that are named
FEWEST = 10  # examples inside and outside of a condition
CLEAR = 4.0  # standard errors of the difference from which a condition is named


@dataclass(frozen=True)
class WeightShift:
    """One condition, and the mean weight of the examples that fulfil it and of those that do not.

    Attributes:
        condition: in words.
        examples: how many fulfil it.
        inside, outside: mean weights.
        errors: the difference in standard errors.
    """

    condition: str
    examples: int
    inside: float
    outside: float
    errors: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "condition": self.condition,
            "examples": self.examples,
            "inside": self.inside,
            "outside": self.outside,
            "errors": self.errors,
        }


def weight_shifts(model: Any, train: Examples, free: FreeWeights, weights: Array) -> tuple[WeightShift, ...]:
    """The clearest conditions, one per column, in the order of their clearness."""
    part = train.take(free.part >= 0)
    if len(part) < 2 * FEWEST or not weights.std():
        return ()
    conditions = conditions_of(model, part, {}, seed=0)
    fulfilled = conditions.fulfilled.astype(np.float64)
    count = fulfilled.sum(axis=1)
    usable = np.flatnonzero((count >= FEWEST) & (len(part) - count >= FEWEST))
    if not len(usable):
        return ()
    fulfilled, count = fulfilled[usable], count[usable]
    others = len(part) - count
    inside = fulfilled @ weights / count
    outside = (weights.sum() - fulfilled @ weights) / others
    errors = (inside - outside) / (weights.std() * np.sqrt(1 / count + 1 / others))
    shifts: dict[str, WeightShift] = {}
    for place in np.argsort(-np.abs(errors), kind="stable").tolist():
        column = conditions.columns[usable[place]].removesuffix(" ≤").removesuffix(" >")
        if len(shifts) == MAX_CONDITIONS_NAMED or abs(errors[place]) < CLEAR:
            break
        if column not in shifts:
            name = conditions.names[usable[place]]
            numbers = (float(inside[place]), float(outside[place]), float(errors[place]))
            shifts[column] = WeightShift(name, int(count[place]), *numbers)
    return tuple(shifts.values())
