"""ModelCase: one model with the data on which the laws of models are tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upweight.core.examples import Examples


@dataclass(frozen=True, eq=False)
class ModelCase:
    """A model with its training set and queries.

    Attributes:
        others: models of the same data that differ from this one: what differs → the model.
        not_weighted: why its training does not treat a weight k as k copies; empty if it does.
    """

    model: Any
    train: Examples
    queries: Examples
    others: Mapping[str, Any] = field(default_factory=dict)
    not_weighted: str = ""

    @property
    def name(self) -> str:
        """The model, as reports name it."""
        return repr(self.model)
