"""What an audit returns: the support of every prediction, the checks of it, and the groups that were compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.applications.nearest_copies import NearestExample
from upweight.core.examples import Examples, Id
from upweight.core.lookup import entry_of
from upweight.core.scores import Attribution
from upweight.core.tabular import Tabular

UNKNOWN = -1  # the group of a query that has none


@dataclass(frozen=True, eq=False)
class GroupColumn:
    """Groups of one column.

    Attributes:
        column: its name.
        names: of the groups.
        train: (n,), the group of every training example, a position in `names`.
        queries: (m,), of every query; −1 if it is not known.
    """

    column: str
    names: tuple[str, ...]
    train: NDArray[np.intp]
    queries: NDArray[np.intp]

    @property
    def knows_queries(self) -> bool:
        """Whether the groups of the queries are known."""
        return bool((self.queries != UNKNOWN).any())

    def named(self, group: int) -> str:
        """`source clinic` for a group of this column."""
        return f"{self.column} {self.names[group].removeprefix('= ')}"


@dataclass(frozen=True)
class SupportCheck:
    """One check of one prediction.

    Attributes:
        name: `copy`, `label`, `distance`, or the column of groups.
        by_chance: the probability, by chance, of support at least as far from what is expected.
        tail: the same beside training examples and the other predictions of the class; never less than `by_chance`.
        sentence: what was found, without a full stop.
        surprising: whether it is significant, corrected for the number of checks.
        usual: what is usual in the predictions of the class, if that is far from chance; else "".
    """

    name: str
    by_chance: float
    tail: float
    sentence: str
    surprising: bool = False
    usual: str = ""


@dataclass(frozen=True, eq=False)
class AuditedPrediction:
    """The support of one prediction: the training examples that speak for it, and what is unusual about them.

    Attributes:
        id, label, predicted: of the query; None if not known.
        supported: the label whose support this is: the predicted one; None for regression and other measurements.
        proponents: the strongest proponents of the prediction, at most k, with their scores for it. Of a mistake they
            are the opponents of the label.
        shares: the share of the positive support from the supported label (key `label`) and, by column, from the
            query's own group; None if not known.
        effective: exp of the entropy of the shares of the positive support: the effective number of proponents.
        inverse_simpson: 1 / Σ shares², which counts strong ones more.
        distance: the share of training examples of their labels that are nearer to the query than the proponents, on
            average; ½ by chance; None without features.
        nearest: the nearest training example; None without features.
        nearest_id: its id.
        checks: what was checked, most surprising first.
        p: the smallest tail probability of the checks times their number, at most 1.
        flagged: whether p is at most the level of the audit.
    """

    id: Id
    label: Any
    predicted: Any
    supported: Any
    proponents: tuple[Attribution, ...]
    shares: Mapping[str, float | None]
    effective: float
    inverse_simpson: float
    distance: float | None
    nearest: NearestExample | None
    nearest_id: Id | None
    checks: tuple[SupportCheck, ...]
    p: float
    flagged: bool

    @property
    def sentence(self) -> str:
        """A sentence about what is unusual in the support, or that nothing is."""
        if not self.proponents:
            return "No training example supports this prediction."
        if not self.flagged:
            return "Nothing unusual."
        return " ".join(f"{check.sentence}." for check in self.checks if check.surprising)

    def summary(self) -> dict[str, Any]:
        """The flag, p and the sentence."""
        return {"flagged": self.flagged, "p": self.p, "sentence": self.sentence}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        nearest = self.nearest
        return {
            "id": self.id,
            "label": _plain(self.label),
            "predicted": _plain(self.predicted),
            "supported": _plain(self.supported),
            **self.summary(),
            "proponents": [{"id": a.id, "score": a.score} for a in self.proponents],
            "shares": dict(self.shares),
            "effective": self.effective,
            "inverse_simpson": self.inverse_simpson,
            "distance": self.distance,
            "nearest": None
            if nearest is None
            else {"id": self.nearest_id, "equal": nearest.is_equal, "distance": nearest.distance},
            "checks": [{"name": c.name, "p": c.tail, "surprising": c.surprising} for c in self.checks],
        }


@dataclass(frozen=True, eq=False)
class Audit(Tabular):
    """Predictions in the order in which their support should be looked at, most surprising first.

    Attributes:
        predictions: one per query.
        train, queries: the examples.
        columns: the groups of training examples and queries, by column.
        measurement: of the scores.
        k: how many of the strongest proponents were compared with chance.
        level: the share of honest predictions that may be flagged.
        diagnostics: `warnings`, and `notes` on what is usual in this set.
    """

    _table: ClassVar = "predictions"
    _examples: ClassVar = {"id": "queries"}
    predictions: tuple[AuditedPrediction, ...]
    train: Examples
    queries: Examples
    columns: tuple[GroupColumn, ...]
    measurement: str
    k: int
    level: float
    diagnostics: Mapping[str, Any]

    @property
    def flagged(self) -> list[Id]:
        """The ids of the queries whose support looks wrong, most surprising first."""
        return [prediction.id for prediction in self.predictions if prediction.flagged]

    def of(self, query: Id) -> AuditedPrediction:
        """The audit of one prediction. Raises KeyError for an unknown query id."""
        return entry_of({prediction.id: prediction for prediction in self.predictions}, query, self.queries.ids)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: one entry per prediction, most surprising first."""
        return {
            "measurement": self.measurement,
            "k": self.k,
            "level": self.level,
            "groups": [column.column for column in self.columns],
            "flagged": self.flagged,
            "predictions": [prediction.as_dict() for prediction in self.predictions],
            "warnings": list(self.diagnostics["warnings"]),
            "usual": list(self.diagnostics["notes"]),
        }

    def __repr__(self) -> str:
        return f"Audit({len(self.flagged):,} of {len(self.predictions):,} predictions flagged, level {self.level:g})"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
