"""The result of `shared_inputs`: input attributions of queries and of their training examples, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from upweight.core.examples import Id
from upweight.core.input_attributions import InputAttributions
from upweight.evaluate.part_ordering import PartOrdering


class SharedPart(NamedTuple):
    """A word, column or number that decides both: its share of the attributions of the query and of the example."""

    name: str
    query: float
    example: float


@dataclass(frozen=True, eq=False)
class SharedExample:
    """One training example beside a query.

    Attributes:
        id: of the training example.
        score: its effect on the query.
        overlap: the share of the attributions that both have in common, from 0 to 1.
        parts: the parts that decide both in the same direction, those with the largest common share first.
    """

    id: Id
    score: float
    overlap: float
    parts: tuple[SharedPart, ...]


@dataclass(frozen=True, eq=False)
class SharedInputs:
    """Input attributions of queries and of the training examples with the strongest effect on them, side by side.

    Attributes:
        queries: the attributions of the queries.
        train: query id → the attributions of its training examples, for the output that was chosen for the query.
        examples: query id → its training examples, strongest first.
        necessity, sufficiency: of the parts of the queries; None if their parts cannot be erased.
        measurement: of the scores.
        diagnostics: `warnings`.
    """

    queries: InputAttributions
    train: Mapping[Id, InputAttributions]
    examples: Mapping[Id, tuple[SharedExample, ...]]
    necessity: PartOrdering | None
    sufficiency: PartOrdering | None
    measurement: str
    diagnostics: Mapping[str, Any]

    def as_dict(self, k: int = 10) -> dict[str, Any]:
        """Plain values for JSON: the k largest attributions of every query and of its training examples."""
        described = self.queries.as_dict(k)
        for entry in described["examples"]:
            beside = self.train[entry["id"]].as_dict(k)["examples"]
            entry["train"] = [
                {
                    **attributed,
                    "score": example.score,
                    "overlap": example.overlap,
                    "shared": [part._asdict() for part in example.parts[:k]],
                }
                for example, attributed in zip(self.examples[entry["id"]], beside, strict=True)
            ]
        criteria: dict[str, Any] = {
            ordering.criterion: ordering.as_dict() for ordering in (self.necessity, self.sufficiency) if ordering
        }
        return {
            **described,
            **criteria,
            "measurement": self.measurement,
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        each, recipe = max(map(len, self.examples.values())), type(self.queries.recipe).__name__
        return (
            f"SharedInputs({len(self.examples)} queries × {each} training examples, {recipe} of the "
            f"{self.queries.described}, by {self.queries.parts})"
        )
