"""Check: predicted against actual effects, and what that says of effects that nobody has retrained for."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Id
from upweight.core.scores import Scores, Unit
from upweight.evaluate.agreement import Agreement, agreement, finite_or_none
from upweight.evaluate.noise_ceiling import Ceiling, noise_ceiling
from upweight.evaluate.removals import Removal, columns_of, predicted_effects
from upweight.evaluate.truth import Truth

Array = NDArray[np.float64]
Kind = Literal["one", "group"]
FEWEST = 4  # removals: a slope's band from fewer says nothing
DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True, eq=False)
class Coverage:
    """How often intervals at `level` held the actual effect; (queries, removals), NaN where there was no interval.

    `rate` is over all pairs; `promised` is what so few removals can promise at most.
    """

    low: Array
    high: Array
    inside: NDArray[np.bool_]
    level: float
    promised: float

    @property
    def rate(self) -> float:
        """Share of pairs inside."""
        there = np.isfinite(self.low)
        return float(self.inside[there].mean()) if there.any() else float("nan")

    def __repr__(self) -> str:
        return f"Coverage({self.rate:.3f} of {int(np.isfinite(self.low).sum())} pairs at level {self.level:g})"


@dataclass(frozen=True, eq=False)
class Check:
    """Predicted against actual effects, both (queries, removals): the measurement with the examples minus without.

    Attributes:
        scores: what was verified.
        removals: what was removed, one entry per column.
        diagnostics: number of `trainings`, seconds, how far the model handed in was from its optimum, `warnings`.
        truth: the retrained measurements behind it.
    """

    predicted: Array
    actual: Array
    query_ids: NDArray[Any]
    removals: tuple[Removal, ...]
    scores: Scores
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    truth: Truth | None = None

    @property
    def slope(self) -> float:
        """Least-squares slope of actual on predicted, all removals and queries; 1 = the predicted size is right."""
        return self.of().slope

    @property
    def pearson(self) -> float:
        """Linear correlation over all removals and queries."""
        return self.of().pearson

    @property
    def spearman(self) -> float:
        """Rank correlation over all removals and queries."""
        return self.of().spearman

    @cached_property
    def ceiling(self) -> Ceiling | None:
        """The rank correlation that perfect scores would reach against so noisy a truth; None without the truth."""
        return None if self.truth is None else noise_ceiling(self.truth)

    def of(self, kind: Kind | None = None) -> Agreement:
        """Agreement over all removals, or over single examples or groups alone."""
        columns = self._columns(kind)
        return agreement(self.predicted[:, columns], self.actual[:, columns])

    def interval(self, ids: Sequence[Id], level: float = 0.9) -> tuple[Array, Array]:
        """(low, high), each (queries,): where the effect of removing these examples lies with this probability.

        Split-conformal (Vovk et al. 2005; Lei et al. 2018): residuals of removals, in units of √Σ score² of what was
        removed (plus that of the query's usual removal), bound the residual of a removal of the same kind: one
        example, or a group of similar size. Residuals of all queries stand together, in as many groups as there were
        removals (Lee, Barber & Willett 2023). k removals cannot promise more than k/(k+1), whatever the level.
        """
        kind: Kind = "one" if len(set(ids)) == 1 else "group"
        columns = np.flatnonzero(self._columns(kind))
        if not 0 < level < 1:
            raise ValueError(f"expected a level between 0 and 1, got {level}")
        if len(columns) == 0:
            raise ValueError(f"no removal of kind {kind!r} was verified; pass removals= that include some")
        places = columns_of(self.scores, tuple(ids))
        middle = self.scores.values[:, places].sum(axis=1)
        own = np.sqrt((self.scores.values[:, places] ** 2).sum(axis=1))
        width = self._widths(columns, own[:, None], level)[:, 0]
        if np.isnan(width).any():
            raise ValueError("expected scores that are not all zero: around those an interval has no size")
        return middle - width, middle + width

    def coverage(self, fresh: Truth | None = None, level: float = 0.9) -> Coverage:
        """How often intervals hold effects that they have not seen.

        With a truth of fresh removals: intervals from all removals of this check. Without: removals are dealt into two
        halves, and the intervals of each come from the other; half as many removals make them a little wide.
        """
        if not 0 < level < 1:
            raise ValueError(f"expected a level between 0 and 1, got {level}")
        sources: list[tuple[Sequence[int], Sequence[int]]]
        if fresh is not None:
            theirs, actual, kinds = fresh.predicted(self.scores), fresh.actual, [r.kind for r in fresh.removals]
            sizes, sources = self._sizes_of(fresh.removals), [(range(len(kinds)), range(len(self.removals)))]
        else:
            theirs, actual, kinds, sizes = self.predicted, self.actual, [r.kind for r in self.removals], self._sizes
            even, odd = self._dealt()
            sources = [(even, odd), (odd, even)]
        width, counts = np.full(theirs.shape, np.nan), list[int]()
        for asked, source in sources:
            for kind in ("one", "group"):
                wanted = np.array([c for c in asked if kinds[c] == kind], dtype=np.intp)
                behind = np.array([c for c in source if self.removals[c].kind == kind], dtype=np.intp)
                if len(wanted) and len(behind):
                    width[:, wanted] = self._widths(behind, sizes[:, wanted], level)
                    counts.append(len(behind))
        low, high = theirs - width, theirs + width
        promised = min((level, *(k / (k + 1) for k in counts)))
        return Coverage(low, high, (low <= actual) & (actual <= high), level, promised)

    def band(self, kind: Kind | None = None, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval of the slope over removals. Raises ValueError for fewer than four of the kind.

        What training on everything owes to its seed is in all removals alike, so it is not in the band: use seeds.
        """
        columns = np.flatnonzero(self._columns(kind))
        if len(columns) < FEWEST:
            raise ValueError(f"expected at least {FEWEST} removals for a band of the slope, got {len(columns)}")
        cross, power = ((self.predicted * other)[:, columns].sum(axis=0) for other in (self.actual, self.predicted))
        drawn = np.random.default_rng(seed).integers(len(columns), size=(DRAWS, len(columns)))
        over = power[drawn].sum(axis=1)
        slopes = cross[drawn].sum(axis=1)[over > 0] / over[over > 0]
        if len(slopes) == 0:
            return float("nan"), float("nan")
        low, high = np.quantile(slopes, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def calibrated(self, level: float = 0.95) -> Scores:
        """The scores in the size that retraining found: times the slope, where its band leaves out 1.

        The slope is that of single examples where they were verified, else of groups. One factor serves all queries:
        it mends a common scale, not an order. It is fitted to these removals, so this check is no evidence for it:
        verify the result with another seed. Where the band holds 1 the scores come back as they are.

        Raises:
            ValueError: RANK scores, whose sizes need not be on one scale; a slope that is not positive; too few
                removals for a band.
        """
        if self.scores.unit != Unit.EFFECT:
            raise ValueError("expected EFFECT scores; RANK scores promise no size that one factor could mend")
        kind: Kind = "one" if any(self._columns("one")) else "group"
        low, high = self.band(kind, level)
        slope, count = self.of(kind).slope, int(self._columns(kind).sum())
        if low <= 1.0 <= high:
            return self.scores
        if not (slope > 0 and low > 0):
            raise ValueError(
                f"expected a slope above 0, got {slope:.3g} in [{low:.3g}, {high:.3g}]: no factor mends it"
            )
        fact = {"factor": slope, "band": [low, high], "level": level, "removals": count, "kind": kind}
        told = (
            f"Sizes were multiplied by {slope:.3g} (band {low:.3g} to {high:.3g}), the slope of {count} removals. "
            "These removals are no evidence for the result; verify it with another seed."
        )
        news = {**self.scores.diagnostics, "warnings": [*self.scores.diagnostics.get("warnings", ()), told]}
        recipe = {**self.scores.recipe, "calibrated": fact}
        return replace(self.scores, values=slope * self.scores.values, recipe=recipe, diagnostics=news)

    def as_dict(self, level: float = 0.9) -> dict[str, Any]:
        """Plain values for JSON, with every pair of predicted and actual effects; what is not known is None.

        RANK scores have no coverage: intervals around them are in no unit.
        """
        inside = self.coverage(level=level) if self.scores.unit == Unit.EFFECT else None
        pairs = {
            name: [[finite_or_none(v) for v in row] for row in getattr(self, name)] for name in ("predicted", "actual")
        }
        return {
            "unit": str(self.scores.unit),
            "all": self.of().as_dict(),
            "single": self.of("one").as_dict(),
            "groups": self.of("group").as_dict(),
            "ceiling": None if self.ceiling is None else self.ceiling.as_dict(),
            "coverage": inside and {"level": level, "rate": finite_or_none(inside.rate), "promised": inside.promised},
            "queries": self.query_ids.tolist(),
            "removals": [{"name": r.name, "kind": r.kind, "size": len(r.ids)} for r in self.removals],
            **pairs,
            "trainings": self.diagnostics.get("trainings"),
            "refits": self.diagnostics.get("trainings"),  # the older name
            "warnings": [str(w) for w in self.diagnostics.get("warnings", ())],
        }

    def _columns(self, kind: Kind | None) -> NDArray[np.bool_]:
        return np.array([kind in (None, r.kind) for r in self.removals], dtype=bool)

    def _dealt(self) -> tuple[Sequence[int], Sequence[int]]:
        """Two halves, in each as many single examples and as many groups of every size."""
        order = sorted(range(len(self.removals)), key=lambda c: len(self.removals[c].ids))
        return order[::2], order[1::2]

    def _widths(self, columns: NDArray[np.intp], own: Array, level: float) -> Array:
        """Half widths (queries, …) for removals of these sizes, from the residuals of these columns."""
        count, sizes = len(columns), self._sizes[:, columns]
        floor = np.sqrt((sizes**2).mean(axis=1, keepdims=True))
        if not floor.any():  # scores that are zero everywhere have no unit for what they missed
            return np.full(own.shape, np.nan)
        floor = np.where(floor > 0, floor, floor[floor > 0].mean())
        residuals = np.abs(self.actual - self.predicted)[:, columns] / np.hypot(sizes, floor)
        share = min(1.0, level * (count + 1) / count)
        bound = float(np.quantile(residuals, share, method="inverted_cdf"))
        return np.asarray(bound * np.hypot(own, floor))

    @cached_property
    def _sizes(self) -> Array:
        """√Σ score² of every removal, (queries, removals): the unit of its residual."""
        return self._sizes_of(self.removals)

    def _sizes_of(self, removals: Sequence[Removal]) -> Array:
        return np.sqrt(predicted_effects(replace(self.scores, values=self.scores.values**2), removals))

    def __repr__(self) -> str:
        return (
            f"Check({len(self.removals)} removals × {len(self.query_ids)} queries: slope {self.slope:.4f}, "
            f"Pearson {self.pearson:.5f}, Spearman {self.spearman:.5f})"
        )

    def _repr_html_(self) -> str:
        kinds = (("single examples", self.of("one")), ("groups", self.of("group")))
        cells = [
            (kind, a.count, f"{a.slope:.4f}", f"{a.pearson:.5f}", f"{a.spearman:.5f}") for kind, a in kinds if a.count
        ]
        rows = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells)
        notes = "".join(f"<li>{html.escape(w)}</li>" for w in self.diagnostics.get("warnings", ()))
        head = "<tr><th></th><th>pairs</th><th>slope</th><th>Pearson</th><th>Spearman</th></tr>"
        return f"<p><b>{html.escape(repr(self))}</b></p><ul>{notes}</ul><table>{head}{rows}</table>"
