"""Noise ceiling: how well perfect scores could agree with a truth that is itself noisy."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.evaluate.agreement import finite_mean, finite_or_none, formatted, rank_correlations
from upweight.evaluate.truth import Truth

Array = NDArray[np.float64]
LOW = 0.5  # a ceiling below which a failed check may be due to noise


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The rank correlation that perfect knowledge of the mean effect would reach.

    Attributes:
        value: mean over queries; NaN if it cannot be known (one seed of a training that depends on its seed).
        per_query: the ceiling of every query, (queries,).
        reliability: correlation of this truth with another one of as many seeds, mean over queries; value² on average.
        seeds: number of seeds that the truth averages.
        note: how it was estimated, in a sentence.
    """

    value: float
    per_query: Array
    reliability: float
    seeds: int
    note: str

    @property
    def clause(self) -> str:
        """A clause for the end of a warning, if the noise of the training may be the reason for it; else empty."""
        if not self.value < LOW:
            return ""
        return (
            f". The training is noisy: even perfect scores would reach a rank correlation of only {self.value:.2f}; "
            "verify with more seeds"
        )

    def __repr__(self) -> str:
        return f"Ceiling({formatted(self.value)} with {self.seeds} seed{'s' * (self.seeds != 1)}: {self.note})"

    def _repr_html_(self) -> str:
        return f"<p><b>Noise ceiling {formatted(self.value)}</b> {html.escape(self.note)}</p>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; unknown values are None."""
        return {
            "value": finite_or_none(self.value),
            "reliability": finite_or_none(self.reliability),
            "per_query": [finite_or_none(v) for v in self.per_query],
            "seeds": self.seeds,
            "note": self.note,
        }


def noise_ceiling(truth: Truth, splits: int = 20, seed: int = 0) -> Ceiling:
    """Square root of the reliability of the truth: split-half correlation over seeds, stepped up to all seeds.

    The effects are averaged over random halves of the seeds, the two halves are rank-correlated, and the correlation is
    stepped up by Spearman–Brown. A truth of reliability ρ correlates with the true mean at √ρ. If training does not
    depend on its seed, the ceiling is 1. With few seeds there are few halves, and the estimate is rough.
    """
    m, count = len(truth.query_ids), len(truth.seeds)
    is_deterministic = truth.deterministic if count == 1 else bool((truth.each == truth.each[:1]).all())
    if is_deterministic:
        return Ceiling(1.0, np.ones(m), 1.0, count, "training does not depend on its seed, so the truth has no noise")
    if count == 1:
        seed_noise, typical = truth.facts.get("seed_noise"), float(np.median(np.abs(truth.actual).max(axis=0)))
        sizes = ""
        if seed_noise is not None:
            sizes = f": another moves the measurement by up to {seed_noise:.2g}, a typical removal by {typical:.2g}"
        note = f"one seed says nothing about noise{sizes}; retrain with several (seeds=5)"
        return Ceiling(np.nan, np.full(m, np.nan), np.nan, 1, note)
    rng, half = np.random.default_rng(seed), count // 2
    correlations = []
    for _ in range(splits):
        order = rng.permutation(count)
        first, second = (truth.each[order[part]].mean(axis=0) for part in (slice(0, half), slice(half, 2 * half)))
        correlations.append(rank_correlations(first, second))
    # Averaged before the step up, which is not linear: otherwise one bad split would weigh too much.
    reliability = spearman_brown(finite_mean(np.stack(correlations), axis=0), count / half)
    ceiling = np.sqrt(np.clip(reliability, 0.0, 1.0))
    note = f"split halves of {count} seeds, stepped up by Spearman–Brown"
    return Ceiling(float(finite_mean(ceiling)), ceiling, float(finite_mean(reliability)), count, note)


def spearman_brown(correlation: Array | float, times: float) -> Any:
    """Reliability of a mean over k = `times` as many seeds, k ρ / (1 + (k − 1) ρ) (Spearman 1910; Brown 1910)."""
    rho = np.asarray(correlation, dtype=np.float64)
    return (times * rho / (1.0 + (times - 1.0) * rho))[()]
