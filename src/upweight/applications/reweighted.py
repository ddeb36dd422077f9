"""`Reweighted`: learned weights, what got weight and what lost it, and the gain on held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.weight_gains import WeightGain
from upweight.applications.weight_shifts import WeightShift
from upweight.core.examples import Examples, Id
from upweight.core.tabular import Tabular
from upweight.core.weights import sample_weights

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reweighted(Tabular):
    """What `reweight` returns.

    Attributes:
        weights: the learned weights, (k,), from 0 to `Reweighting.largest`.
        names: what each belongs to: an id, or the name of a group.
        of: "examples", "groups" or "unlabelled examples".
        slopes: where the derivatives came from, as `Reweighting.slopes`.
        course: mean measurement of the validation examples before each step, and last with the learned weights.
        measured: mean measurement of the held-out examples with the learned weights; NaN without held-out examples.
        accuracy: of the held-out examples with the learned weights; None if the model predicts numbers.
        gains: the same beside other weights; empty without held-out examples.
        shifts: conditions under which weights are larger or smaller; empty for groups.
        model: trained with the learned weights.
        train: what it was trained on: the training set, with the unlabelled examples and their labels below it.
        example_weights: the weight of each of its examples, (n,), to be multiplied by their own.
        measurement: in words.
        diagnostics: `warnings` and `notes`.
    """

    weights: Array
    names: tuple[Any, ...]
    of: str
    slopes: str
    course: tuple[float, ...]
    measured: float
    accuracy: float | None
    gains: tuple[WeightGain, ...]
    shifts: tuple[WeightShift, ...]
    model: Any
    train: Examples
    example_weights: Array
    measurement: str
    diagnostics: Mapping[str, Any]

    @property
    def weighted(self) -> Examples:
        """The training set with these weights as its sample weights."""
        return self.train.replaced(weights=self.example_weights * sample_weights(self.train))

    def lowest(self, count: int = 10) -> list[tuple[Id, float]]:
        """(name, weight) of the smallest weights, the smallest first."""
        return self._listed(np.argsort(self.weights, kind="stable")[:count])

    def highest(self, count: int = 10) -> list[tuple[Id, float]]:
        """(name, weight) of the largest weights, the largest first."""
        return self._listed(np.argsort(-self.weights, kind="stable")[:count])

    def gain_beside(self, weights: str) -> WeightGain:
        """The gain beside these other weights, e.g. "uniform". KeyError if they were not compared."""
        for gain in self.gains:
            if gain.weights == weights:
                return gain
        raise KeyError(f"no gain is about {weights!r}; there are {[gain.weights for gain in self.gains]}")

    @property
    def sentence(self) -> str:
        """The result for a reader."""
        lost, won = int((self.weights < 0.5).sum()), int((self.weights > 1.5).sum())
        words = (
            f"Of {len(self.weights):,} weights of {self.of}, {lost:,} fell below 0.5 and {won:,} rose above 1.5. Mean "
            f"{self.measurement} of the validation examples: {_number(self.course[0])} before, "
            f"{_number(self.course[-1])} after."
        )
        if not self.gains:
            return words
        uniform = self.gain_beside("uniform")
        low, high = uniform.interval
        verdict = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
        return (
            f"{words} On held-out data they are {verdict} uniform weights: {_number(uniform.gain, '+')} "
            f"(90 %: {_number(low, '+')} to {_number(high, '+')})."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "sentence": self.sentence,
            "measurement": self.measurement,
            "of": self.of,
            "slopes": self.slopes,
            "weights": [{"name": name, "weight": float(w)} for name, w in zip(self.names, self.weights, strict=True)],
            "course": list(self.course),
            "measured": None if np.isnan(self.measured) else self.measured,
            "accuracy": self.accuracy,
            "gains": [gain.as_dict() for gain in self.gains],
            "shifts": [shift.as_dict() for shift in self.shifts],
            "warnings": list(self.diagnostics["warnings"]),
            "notes": list(self.diagnostics["notes"]),
        }

    def _rows(self) -> list[dict[str, Any]]:
        column = "group" if self.of == "groups" else "train"
        return [{column: name, "weight": float(w)} for name, w in zip(self.names, self.weights, strict=True)]

    def _listed(self, places: NDArray[np.intp]) -> list[tuple[Id, float]]:
        return [(self.names[place], float(self.weights[place])) for place in places.tolist()]

    def __repr__(self) -> str:
        return f"Reweighted({len(self.weights)} weights of {self.of} by {self.slopes}, {len(self.gains)} comparisons)"


def _number(value: float, sign: str = "") -> str:
    """Four digits, with a true minus."""
    return f"{value:{sign}.4g}".replace("-", "−")
