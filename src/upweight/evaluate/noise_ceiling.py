"""Ceiling: how well anything could agree with a truth that is itself noisy."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.evaluate.agreement import finite_mean, finite_or_none, formatted, rank_correlations
from upweight.evaluate.truth import Truth

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The rank correlation that perfect knowledge of the mean effect would reach.

    Attributes:
        value: mean over queries, NaN where it cannot be known (one seed of a training that depends on it).
        per_query: (queries,).
        reliability: correlation of this truth with another of as many seeds, mean over queries; value² on average.
        seeds: how many were averaged.
        note: where it comes from, in a sentence.
    """

    value: float
    per_query: Array
    reliability: float
    seeds: int
    note: str

    def __repr__(self) -> str:
        return f"Ceiling({formatted(self.value)} with {self.seeds} seed{'s' * (self.seeds != 1)}: {self.note})"

    def _repr_html_(self) -> str:
        return f"<p><b>Noise ceiling {formatted(self.value)}</b> {html.escape(self.note)}</p>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is None."""
        return {
            "value": finite_or_none(self.value),
            "reliability": finite_or_none(self.reliability),
            "per_query": [finite_or_none(v) for v in self.per_query],
            "seeds": self.seeds,
            "note": self.note,
        }


def noise_ceiling(truth: Truth, splits: int = 20, seed: int = 0) -> Ceiling:
    """√ of the reliability of the truth: split-half correlation over seeds, stepped up to all seeds.

    Halves of the seeds are averaged, ranked against each other and stepped up by Spearman–Brown; a truth of
    reliability ρ correlates with the true mean by √ρ. Where training does not depend on its seed the ceiling is 1.
    A mean over random halves: with few seeds there are few of them, and the figure is rough.
    """
    m, count = len(truth.query_ids), len(truth.seeds)
    same = truth.deterministic if count == 1 else bool((truth.each == truth.each[:1]).all())
    if same:
        return Ceiling(1.0, np.ones(m), 1.0, count, "training does not depend on its seed, so the truth has no noise")
    if count == 1:
        moved, typical = truth.facts.get("seed_noise"), float(np.median(np.abs(truth.actual).max(axis=0)))
        told = (
            ""
            if moved is None
            else f": another moves the measurement by up to {moved:.2g}, a typical removal by {typical:.2g}"
        )
        note = f"one seed says nothing about noise{told}; retrain with several (seeds=5)"
        return Ceiling(np.nan, np.full(m, np.nan), np.nan, 1, note)
    rng, half = np.random.default_rng(seed), count // 2
    found = []
    for _ in range(splits):
        order = rng.permutation(count)
        one, two = (truth.each[order[part]].mean(axis=0) for part in (slice(0, half), slice(half, 2 * half)))
        found.append(rank_correlations(one, two))
    # Averaged before it is stepped up: the step is not linear, and one bad split would weigh too much.
    reliability = spearman_brown(finite_mean(np.stack(found), axis=0), count / half)
    ceiling = np.sqrt(np.clip(reliability, 0.0, 1.0))
    note = f"split halves of {count} seeds, stepped up by Spearman–Brown"
    return Ceiling(float(finite_mean(ceiling)), ceiling, float(finite_mean(reliability)), count, note)


def spearman_brown(correlation: Array | float, times: float) -> Any:
    """Reliability of a measurement that is `times` as long, k ρ / (1 + (k − 1) ρ) (Spearman 1910; Brown 1910)."""
    rho = np.asarray(correlation, dtype=np.float64)
    return (times * rho / (1.0 + (times - 1.0) * rho))[()]
