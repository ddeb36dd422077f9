"""Linear datamodelling score (LDS): whether summed scores put retrained subsets in the right order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.notebook_table import notebook_table
from upweight.core.scores import Scores
from upweight.core.tabular import Tabular
from upweight.evaluate.agreement import (
    finite_mean,
    finite_or_none,
    formatted,
    rank_correlations,
    resampled_correlations,
)
from upweight.evaluate.noise_ceiling import Ceiling, noise_ceiling
from upweight.evaluate.truth import Truth

Array = NDArray[np.float64]
MIN_REMOVALS = 5  # with fewer, a rank correlation has too few possible values


@dataclass(frozen=True, eq=False)
class LDS(Tabular):
    """Linear datamodelling score.

    Attributes:
        mean: over queries; NaN if no query's measurement varies.
        low, high: bootstrap interval of the mean over subsets, at `level`.
        per_query: Spearman over subsets, (queries,); NaN for a query whose measurement or prediction is constant.
        ceiling: the highest LDS that any scores could reach with this truth.
        subsets: number of subsets.
        share: mean share of the training set that a subset keeps.
    """

    mean: float
    low: float
    high: float
    level: float
    per_query: Array
    query_ids: NDArray[Any]
    ceiling: Ceiling
    subsets: int
    share: float

    @property
    def relative(self) -> float:
        """LDS divided by its noise ceiling; NaN if the ceiling is not known."""
        return self.mean / self.ceiling.value if self.ceiling.value > 0 else float("nan")

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return [{"query": q, "lds": v} for q, v in zip(self.query_ids.tolist(), self.per_query.tolist(), strict=True)]

    def __repr__(self) -> str:
        return (
            f"LDS({formatted(self.mean)} [{formatted(self.low)}, {formatted(self.high)}], {self.subsets} subsets of "
            f"{self.share:.0%} × {len(self.per_query)} queries × {self.ceiling.seeds} seeds, "
            f"ceiling {formatted(self.ceiling.value)})"
        )

    def _repr_html_(self) -> str:
        each = zip(self.query_ids[:20].tolist(), self.per_query, strict=False)
        rows = [(query, formatted(correlation)) for query, correlation in each]
        return notebook_table(repr(self), rows, ("query", "Spearman"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; unknown values are None."""
        return {
            "mean": finite_or_none(self.mean),
            "interval": [finite_or_none(self.low), finite_or_none(self.high)],
            "level": self.level,
            "per_query": [finite_or_none(v) for v in self.per_query],
            "ceiling": self.ceiling.as_dict(),
            "relative": finite_or_none(self.relative),
            "subsets": self.subsets,
            "share": self.share,
        }


def lds(scores: Scores, truth: Truth, level: float = 0.95, draws: int = 1000, seed: int = 0) -> LDS:
    """Rank correlation over subsets of the sum of scores with the measurement after training on the subset.

    Scores and effects are summed over the examples that a subset leaves out, which gives the same order of subsets as
    sums over those that it keeps. Source: Park et al. (2023), TRAK, eq. 4. The interval resamples subsets (`draws`
    times), not queries.

    Raises:
        ValueError: scores of other queries or training examples, fewer than five removals, a level outside (0, 1).
    """
    count = len(truth.removals)
    if count < MIN_REMOVALS:
        raise ValueError(
            f"expected a truth of at least {MIN_REMOVALS} removals to put in order, got {count}; draw more subsets"
        )
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    predicted, actual = truth.predicted(scores), truth.actual
    per_query = rank_correlations(predicted, actual)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
    means = finite_mean(resampled_correlations(predicted, actual, drawn), axis=1)
    means, mean = means[np.isfinite(means)], float(finite_mean(per_query))
    low, high = np.nan, np.nan
    if len(means):
        # A subset that is drawn twice is tied with itself, which lowers the correlation of every sample a little.
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]) + (mean - means.mean())
    share = 1.0 - float(np.mean([len(removal.ids) for removal in truth.removals])) / len(truth.train_ids)
    return LDS(
        mean,
        max(float(low), -1.0),
        min(float(high), 1.0),
        level,
        per_query,
        truth.query_ids,
        noise_ceiling(truth),
        count,
        share,
    )
