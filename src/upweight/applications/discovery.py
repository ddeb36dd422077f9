"""`Discovery`: groups of training examples without which queries do better, in words, confirmed by retraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.printable import printable
from upweight.core.scores import Unit
from upweight.core.tabular import Tabular

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DiscoveredGroup:
    """One group of training examples.

    Attributes:
        conditions: what its examples have in common, in words; all of them together define it.
        ids: of the examples.
        labels: label → how many of them have it; empty for numeric targets.
        typical: ids of the members that harm the queries most, by the scores.
        predicted: the rise of the mean measurement without the group, estimated by the method on the queries that were
            not searched.
        effect: the same by retraining; NaN if nothing was retrained.
        interval: 90 % interval of the effect on other queries of this kind.
        p: probability of such an effect on the queries that were not searched if the group had none: of a group that
            stands out in training a bound, one over the likelihood ratio of the models without and with it; of another
            one that of a t-test.
        helped: ids of the queries that rise most without it.
        confirmed: whether retraining confirms that the queries do better without it.
    """

    conditions: tuple[str, ...]
    ids: tuple[Id, ...]
    labels: Mapping[Any, int]
    typical: tuple[Id, ...]
    predicted: float
    effect: float
    interval: tuple[float, float]
    p: float
    helped: tuple[Id, ...]
    confirmed: bool

    @property
    def name(self) -> str:
        """The conditions as one text."""
        return " and ".join(self.conditions)

    def row(self) -> dict[str, Any]:
        """The group in a table."""
        low, high = self.interval
        return {
            "group": self.name,
            "size": len(self.ids),
            "effect": self.effect,
            "low": low,
            "high": high,
            "predicted": self.predicted,
            "p": self.p,
            "confirmed": self.confirmed,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "conditions": list(self.conditions),
            "size": len(self.ids),
            "ids": list(self.ids),
            "labels": {str(label): count for label, count in self.labels.items()},
            "typical": list(self.typical),
            "predicted": self.predicted,
            "effect": _number(self.effect),
            "interval": [_number(end) for end in self.interval],
            "p": _number(self.p),
            "helped": list(self.helped),
            "confirmed": self.confirmed,
        }


@dataclass(frozen=True, eq=False)
class UnsupportedRegion:
    """Queries around which training examples are sparser than around nearly all training examples.

    Attributes:
        ids: of the queries.
        condition: what they have in common, in words; empty if no condition fits them.
        expected: how many such queries there would be if queries were like training examples.
        p: the probability of at least this many such queries by chance.
    """

    ids: tuple[Id, ...]
    condition: str
    expected: float
    p: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"ids": list(self.ids), "condition": self.condition, "expected": self.expected, "p": self.p}


@dataclass(frozen=True, eq=False)
class Discovery(Tabular):
    """What `discover` returns.

    Attributes:
        groups: confirmed groups in the order in which they were removed; the effect of each is that of its removal
            after those before it. Without a model that can be retrained, groups by scores, not confirmed.
        rejected: groups that the search proposed and retraining did not confirm.
        unsupported: queries that few training examples are near to; None if there are none, or no features.
        outlier_factor: (m,) how much sparser the training examples are around each query than around its neighbours,
            or how many more unknown words a text has than is usual; None without features.
        before: mean measurement of the queries that were not searched, with all training examples.
        after: the same without all groups.
        searched, confirming: ids of the queries of the search, and of those that it did not see.
        unit: of the predicted effects.
        trainings: how many models were trained.
        measurement: in words.
        model: the model without all groups; the given one if there are none.
        train, queries: the examples.
        diagnostics: `warnings`, `notes` and the method.
    """

    groups: tuple[DiscoveredGroup, ...]
    rejected: tuple[DiscoveredGroup, ...]
    unsupported: UnsupportedRegion | None
    outlier_factor: Array | None
    before: float
    after: float
    searched: tuple[Id, ...]
    confirming: tuple[Id, ...]
    unit: Unit
    trainings: int
    measurement: str
    model: Any
    train: Examples
    queries: Examples
    diagnostics: Mapping[str, Any]

    def _rows(self) -> list[dict[str, Any]]:
        """The confirmed and the rejected groups; their ids are in `groups`."""
        return [group.row() for group in (*self.groups, *self.rejected)]

    @property
    def sentence(self) -> str:
        """The result for a reader."""
        missing = ""
        if self.unsupported is not None:
            common = f" ({printable(self.unsupported.condition)})" if self.unsupported.condition else ""
            missing = f" {len(self.unsupported.ids):,} queries{common} have few training examples near them."
        if not self.groups:
            return f"No group of training examples is behind these queries.{missing}"
        named = "; ".join(f"{printable(group.name)} ({len(group.ids):,})" for group in self.groups)
        if not self.groups[0].confirmed:
            return f"By the scores alone, these groups harm the queries: {named}.{missing}"
        return (
            f"Without {len(self.groups):,} group{'s'[: len(self.groups) > 1]} of training examples the queries do "
            f"better: {named}. Mean {self.measurement} {self.before:.3g} before, {self.after:.3g} without.{missing}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "sentence": self.sentence,
            "measurement": self.measurement,
            "unit": str(self.unit),
            "before": self.before,
            "after": self.after,
            "groups": [group.as_dict() for group in self.groups],
            "rejected": [group.as_dict() for group in self.rejected],
            "unsupported": None if self.unsupported is None else self.unsupported.as_dict(),
            "searched": list(self.searched),
            "confirming": list(self.confirming),
            "trainings": self.trainings,
            "warnings": list(self.diagnostics["warnings"]),
            "notes": list(self.diagnostics["notes"]),
            "method": self.diagnostics["method"],
        }

    def __repr__(self) -> str:
        return f"Discovery({len(self.groups)} groups, {len(self.rejected)} rejected, {self.trainings} trainings)"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
