"""LOO: agreement of scores with leave-one-out retraining, in order and in size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from upweight.core.notebook_table import notebook_table
from upweight.core.scores import Scores, Unit
from upweight.core.tabular import Tabular
from upweight.evaluate.agreement import Agreement, agreement, formatted
from upweight.evaluate.truth import Truth

SHOWN = ("pearson", "spearman", "slope", "r2")  # fields of an Agreement, in the order of the table


@dataclass(frozen=True, eq=False)
class LOO(Tabular):
    """Agreement with leave-one-out retraining: pooled over all pairs, and for every query.

    Slope and R² compare sizes. They are NaN for RANK scores, whose size has no meaning.
    """

    pooled: Agreement
    per_query: tuple[Agreement, ...]
    query_ids: NDArray[Any]
    unit: Unit

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        pairs = zip(self.query_ids.tolist(), self.per_query, strict=True)
        return [{"query": query, **agreement.as_dict()} for query, agreement in pairs]

    def __repr__(self) -> str:
        pooled = self.pooled
        numbers = {"Pearson": pooled.pearson, "Spearman": pooled.spearman, "slope": pooled.slope, "R²": pooled.r2}
        text = ", ".join(f"{name} {formatted(value)}" for name, value in numbers.items())
        return f"LOO({len(self.per_query)} queries, {pooled.count} pairs, {self.unit}: {text})"

    def _repr_html_(self) -> str:
        each = [("all", self.pooled), *zip(self.query_ids[:20].tolist(), self.per_query, strict=False)]
        rows = ((query, *(formatted(getattr(agreed, name)) for name in SHOWN)) for query, agreed in each)
        return notebook_table(repr(self), rows, ("query", "Pearson", "Spearman", "slope", "R²"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN is None."""
        by_query = {str(q): a.as_dict() for q, a in zip(self.query_ids.tolist(), self.per_query, strict=True)}
        return {"unit": str(self.unit), "pooled": self.pooled.as_dict(), "queries": by_query}


def loo(scores: Scores, truth: Truth) -> LOO:
    """Compare scores with the removals of single examples in a truth.

    Raises:
        ValueError: scores of other queries or training examples, or fewer than three single removals.
    """
    single = truth.take([column for column, removal in enumerate(truth.removals) if removal.kind == "one"])
    count = len(single.removals)
    if count < 3:
        raise ValueError(
            f"expected a truth of at least three removals of one example, got {count}; see `singles(train)`"
        )
    predicted, actual = single.predicted(scores), single.actual
    pooled, *per_query = (agreement(p, a) for p, a in [(predicted, actual), *zip(predicted, actual, strict=True)])
    if scores.unit != Unit.EFFECT:
        pooled, *per_query = (agreed.without_sizes() for agreed in (pooled, *per_query))
    return LOO(pooled, tuple(per_query), truth.query_ids, scores.unit)
