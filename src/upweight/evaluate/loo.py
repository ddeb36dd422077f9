"""LOO: agreement with true leave-one-out, in order and in size."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.scores import Scores, Unit
from upweight.evaluate.agreement import Agreement, agreement, formatted
from upweight.evaluate.truth import Truth

NAMES = ("pearson", "spearman", "slope", "r2")


@dataclass(frozen=True, eq=False)
class LOO:
    """Agreement with leave-one-out: pooled over all pairs, and for every query.

    Slope and R² speak of sizes: for RANK scores, which promise none, they are NaN.
    """

    pooled: Agreement
    per_query: tuple[Agreement, ...]
    query_ids: NDArray[Any]
    unit: Unit

    def __repr__(self) -> str:
        pooled = self.pooled
        numbers = {"Pearson": pooled.pearson, "Spearman": pooled.spearman, "slope": pooled.slope, "R²": pooled.r2}
        text = ", ".join(f"{name} {formatted(value)}" for name, value in numbers.items())
        return f"LOO({len(self.per_query)} queries, {pooled.count} pairs, {self.unit}: {text})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(str(q))}</td>{''.join(f'<td>{formatted(getattr(a, n))}</td>' for n in NAMES)}</tr>"
            for q, a in [("all", self.pooled), *zip(self.query_ids[:20].tolist(), self.per_query, strict=False)]
        )
        head = "<tr><th>query</th><th>Pearson</th><th>Spearman</th><th>slope</th><th>R²</th></tr>"
        return f"<p><b>{html.escape(repr(self))}</b></p><table>{head}{rows}</table>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what there is no number for is None."""
        each = {str(q): a.as_dict() for q, a in zip(self.query_ids.tolist(), self.per_query, strict=True)}
        return {"unit": str(self.unit), "pooled": self.pooled.as_dict(), "queries": each}


def loo(scores: Scores, truth: Truth) -> LOO:
    """Hold scores against the removals of single examples in a truth.

    Raises:
        ValueError: scores of other queries or training examples, or fewer than three single removals.
    """
    single = truth.take([place for place, one in enumerate(truth.removals) if one.kind == "one"])
    count = len(single.removals)
    if count < 3:
        raise ValueError(
            f"expected a truth of at least three removals of one example, got {count}; see `singles(train)`"
        )
    predicted, actual = single.predicted(scores), single.actual
    sized = scores.unit == Unit.EFFECT
    pooled, *each = (
        agreed if sized else Agreement(np.nan, agreed.pearson, agreed.spearman, agreed.count)
        for agreed in (agreement(p, a) for p, a in [(predicted, actual), *zip(predicted, actual, strict=True)])
    )
    return LOO(pooled, tuple(each), truth.query_ids, scores.unit)
