"""A check of scores: predicted beside actual effects, and intervals for effects that were not retrained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Id
from upweight.core.notebook_table import notebook_table
from upweight.core.plottable import Plottable
from upweight.core.scores import Scores, Unit
from upweight.core.tabular import Tabular
from upweight.evaluate.agreement import Agreement, agreement, finite_or_none, formatted
from upweight.evaluate.calibration import multiplied, require_correctable
from upweight.evaluate.intervals import Coverage, half_widths, require_similar, slope_band
from upweight.evaluate.noise_ceiling import Ceiling, noise_ceiling
from upweight.evaluate.removals import Removal, columns_of, predicted_effects
from upweight.evaluate.truth import Truth
from upweight.evaluate.verdict import Judgement, Verdict, judge

Array = NDArray[np.float64]
Kind = Literal["one", "group"]
NOUNS: Mapping[Kind, str] = {"one": "single examples", "group": "groups"}
MIN_REMOVALS = 4  # for a bootstrap band of the slope


@dataclass(frozen=True, eq=False)
class Check(Plottable, Tabular):
    """Predicted and actual effects of removals: the measurement with the examples minus without them.

    Attributes:
        predicted, actual: the effects, both (queries, removals).
        removals: what was removed, one entry per column.
        scores: the scores that were verified.
        diagnostics: number of `trainings`, seconds, how far the model was from its optimum, `warnings`.
        truth: the measurements of the retrained models.
    """

    _display: ClassVar = ("CheckDisplay", "from_check")
    predicted: Array
    actual: Array
    query_ids: NDArray[Any]
    removals: tuple[Removal, ...]
    scores: Scores
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    truth: Truth | None = None

    @property
    def slope(self) -> float:
        """Least-squares slope of actual on predicted over all pairs, NaN for RANK scores; see `Agreement.slope`."""
        return self.of().slope

    @property
    def pearson(self) -> float:
        """Linear correlation over all removals and queries."""
        return self.of().pearson

    @property
    def spearman(self) -> float:
        """Rank correlation over all removals and queries."""
        return self.of().spearman

    @property
    def verdict(self) -> Verdict | None:
        """Whether the scores agree with retraining; None if nothing could be compared.

        It is the verdict on single examples if some were verified, else on groups. `Verdict` has the rule.
        """
        return self.judge().verdict

    def judge(self, kind: Kind | None = None) -> Judgement:
        """The verdict with its numbers, on single examples or groups; None for the kind that decides."""
        return self._judgements[kind or self._deciding]

    @cached_property
    def _judgements(self) -> dict[Kind, Judgement]:
        scale = 0.0 if self.truth is None else float(np.abs(self.truth.base).max(initial=0.0))
        columns: dict[Kind, NDArray[np.bool_]] = {"one": self._is_of("one"), "group": self._is_of("group")}
        return {
            kind: judge(self.predicted[:, chosen], self.actual[:, chosen], self.scores.unit, scale)
            for kind, chosen in columns.items()
        }

    @property
    def _deciding(self) -> Kind:
        """The kind of removals that decides the verdict."""
        return "one" if self._is_of("one").any() else "group"

    @property
    def judged_removals(self) -> str:
        """The removals that the verdict is about, in words, such as "8 removals of single examples"."""
        count = int(self._is_of(self._deciding).sum())
        return f"{count} removal{'' if count == 1 else 's'} of {NOUNS[self._deciding]}"

    @property
    def judged(self) -> Scores:
        """The scores with the verdict in `diagnostics["verdict"]`, and with the unit that it leaves them.

        EFFECT scores that do not agree with retraining become RANK scores, with a warning that says why.
        """
        judgement = self.judge()
        facts = {**self.scores.diagnostics, "verdict": str(judgement)}
        facts["warnings"] = [*self.scores.diagnostics.get("warnings", ()), *self.verdict_warnings]
        return replace(self.scores, unit=judgement.unit_after(self.scores.unit), diagnostics=facts)

    @property
    def verdict_warnings(self) -> list[str]:
        """Sentences that say why the scores do not agree with retraining; none if they do, or were not compared.

        If they predict the effects of single examples, but their sums not those of groups, a sentence says so.
        """
        noun, clause = NOUNS[self._deciding], "" if self.ceiling is None else self.ceiling.clause
        warnings = self.judge().warnings(self.scores.unit, "scores", of=noun, clause=clause)
        if self._deciding == "group" or self.verdict is Verdict.FAILS:
            return warnings
        return [*warnings, *self.judge("group").warnings_of_sums(clause)]

    @cached_property
    def ceiling(self) -> Ceiling | None:
        """The rank correlation that perfect scores would reach with a truth of this noise; None without the truth."""
        return None if self.truth is None else noise_ceiling(self.truth)

    def of(self, kind: Kind | None = None) -> Agreement:
        """Agreement over all removals, or single examples ("one") or groups ("group") alone; of RANK without sizes."""
        columns = self._is_of(kind) & np.isfinite(self.predicted).all(axis=0)
        agreed = agreement(self.predicted[:, columns], self.actual[:, columns])
        return agreed if self.scores.unit == Unit.EFFECT else agreed.without_sizes()

    def interval(self, ids: Sequence[Id], level: float = 0.9) -> tuple[Array, Array]:
        """(low, high), each (queries,): an interval that contains the effect of removing these examples at this level.

        Split-conformal prediction (Vovk et al. 2005; Lei et al. 2018). Residuals of the removals, in units of √Σ score²
        of what was removed (combined with that of the query's typical removal), bound the residual of a removal of the
        same kind: one example, or a group of similar size. Residuals of all queries are pooled, in as many groups as
        there are removals (Lee, Barber & Willett 2023). k removals cannot promise more than k/(k+1), at any level.

        Raises ValueError for a group more than twice as large as the largest one that was retrained, and gives a
        UserWarning for one that is more than a quarter larger, or whose scores are more extreme than those of random
        and retrained groups: their residuals grow faster than their scores.
        """
        kind: Kind = "one" if len(set(ids)) == 1 else "group"
        columns = np.flatnonzero(self._is_of(kind))
        if not 0 < level < 1:
            raise ValueError(f"expected a level between 0 and 1, got {level}")
        if len(columns) == 0:
            raise ValueError(f"no removal of kind {kind!r} was verified; pass removals= that include some")
        score_columns, *retrained = columns_of(self.scores, [tuple(ids), *(self.removals[c].ids for c in columns)])
        require_similar(self.scores.values, score_columns, retrained)
        middle = self.scores.values[:, score_columns].sum(axis=1)
        if np.isnan(middle).any():
            raise ValueError(
                "expected examples that have a score, got one without: the model cannot be trained without it"
            )
        size = np.sqrt((self.scores.values[:, score_columns] ** 2).sum(axis=1))
        width = self._half_widths(columns, size[:, None], level)[:, 0]
        if np.isnan(width).any():
            raise ValueError("expected scores that are not all zero, since intervals scale with the scores")
        return middle - width, middle + width

    def coverage(self, fresh: Truth | None = None, level: float = 0.9) -> Coverage:
        """How often intervals contain effects that they were not made from.

        With a truth of fresh removals, the intervals come from all removals of this check. Without one, the removals
        are split into two halves, and the intervals of each half come from the other; since these are half as many
        removals, the intervals are a little wider.
        """
        if not 0 < level < 1:
            raise ValueError(f"expected a level between 0 and 1, got {level}")
        splits: list[tuple[Sequence[int], Sequence[int]]]  # (columns that get an interval, columns that it comes from)
        if fresh is not None:
            predicted, actual, kinds = fresh.predicted(self.scores), fresh.actual, [r.kind for r in fresh.removals]
            sizes, splits = self._sizes_of(fresh.removals), [(range(len(kinds)), range(len(self.removals)))]
        else:
            predicted, actual, kinds, sizes = self.predicted, self.actual, [r.kind for r in self.removals], self._sizes
            first, second = self._halves()
            splits = [(first, second), (second, first)]
        width, counts = np.full(predicted.shape, np.nan), list[int]()
        for targets, sources in splits:
            for kind in ("one", "group"):
                target = np.array([c for c in targets if kinds[c] == kind], dtype=np.intp)
                source = np.array([c for c in sources if self.removals[c].kind == kind], dtype=np.intp)
                if len(target) and len(source):
                    width[:, target] = self._half_widths(source, sizes[:, target], level)
                    counts.append(len(source))
        low, high = predicted - width, predicted + width
        promised = min((level, *(k / (k + 1) for k in counts)))
        return Coverage(low, high, (low <= actual) & (actual <= high), level, promised)

    def band(self, kind: Kind | None = None, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval of the slope over removals. Raises ValueError for fewer than four removals of the kind.

        The noise of the training on all examples is the same for all removals, so the band does not contain it; average
        it out with several seeds. The band is NaN if the slope is (see `Agreement.slope`).
        """
        columns = np.flatnonzero(self._is_of(kind))
        if len(columns) < MIN_REMOVALS:
            raise ValueError(f"expected at least {MIN_REMOVALS} removals for a band of the slope, got {len(columns)}")
        if math.isnan(self.of(kind).slope):
            return float("nan"), float("nan")
        return slope_band(self.predicted[:, columns], self.actual[:, columns], level, seed)

    def calibrated(self, level: float = 0.95) -> Scores:
        """The scores multiplied by the slope, if its band does not contain 1; otherwise the scores as they are.

        The slope is that of single examples if some were verified, else of groups. One factor serves all queries: it
        corrects a common scale, not an order. It is fitted to these removals, so this check is no evidence for the
        result; verify that with another seed.

        Raises:
            ValueError: RANK scores, whose sizes need not be on one scale; a slope that is not positive; scores that do
                not predict retraining; too few removals for a band.
        """
        if self.scores.unit != Unit.EFFECT:
            raise ValueError("expected EFFECT scores; RANK scores promise no size that one factor could correct")
        kind: Kind = "one" if any(self._is_of("one")) else "group"
        low, high = self.band(kind, level)
        slope, count = self.of(kind).slope, int(self._is_of(kind).sum())
        if low <= 1.0 <= high:
            return self.scores
        require_correctable(slope, (low, high), self.judge(kind))
        return multiplied(self.scores, slope, {"band": [low, high], "level": level, "removals": count, "kind": kind})

    def as_dict(self, level: float = 0.9) -> dict[str, Any]:
        """Plain values for JSON, with every pair of predicted and actual effects; unknown values are None.

        RANK scores have no coverage, since intervals around them would have no unit. `verdict` is the text of the
        verdict, or None if nothing could be compared; `unit` is that of the scores in view of the verdict.
        """
        coverage = self.coverage(level=level) if self.scores.unit == Unit.EFFECT else None
        predicted, actual = ([list(map(finite_or_none, row)) for row in side] for side in (self.predicted, self.actual))
        return {
            "verdict": None if self.verdict is None else str(self.verdict),
            "unit": str(self.judged.unit),
            "all": self.of().as_dict(),
            "single": self.of("one").as_dict(),
            "groups": self.of("group").as_dict(),
            "ceiling": None if self.ceiling is None else self.ceiling.as_dict(),
            "coverage": coverage
            and {"level": level, "rate": finite_or_none(coverage.rate), "promised": coverage.promised},
            "queries": self.query_ids.tolist(),
            "removals": [{"name": r.name, "kind": r.kind, "size": len(r.ids)} for r in self.removals],
            "predicted": predicted,
            "actual": actual,
            "trainings": self.diagnostics.get("trainings"),
            "refits": self.diagnostics.get("trainings"),  # the older name
            "warnings": [str(w) for w in (*self.verdict_warnings, *self.diagnostics.get("warnings", ()))],
        }

    def _is_of(self, kind: Kind | None) -> NDArray[np.bool_]:
        """Which removals are of this kind, (removals,); None for all."""
        return np.array([kind in (None, r.kind) for r in self.removals], dtype=bool)

    def _halves(self) -> tuple[Sequence[int], Sequence[int]]:
        """Columns of two halves with equally many single examples and equally many groups of every size."""
        by_size = sorted(range(len(self.removals)), key=lambda c: len(self.removals[c].ids))
        return by_size[::2], by_size[1::2]

    def _half_widths(self, columns: NDArray[np.intp], target_sizes: Array, level: float) -> Array:
        """Half widths of intervals for removals of these sizes (queries, …), from the residuals of these columns."""
        residuals = (self.actual - self.predicted)[:, columns]
        return half_widths(residuals, self._sizes[:, columns], target_sizes, level)

    @cached_property
    def _sizes(self) -> Array:
        """√Σ score² of every removal, (queries, removals): the unit of its residual."""
        return self._sizes_of(self.removals)

    def _sizes_of(self, removals: Sequence[Removal]) -> Array:
        return np.sqrt(predicted_effects(replace(self.scores, values=self.scores.values**2), removals))

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        predicted, actual = np.asarray(self.predicted), np.asarray(self.actual)
        for row, query in enumerate(np.asarray(self.query_ids).tolist()):
            for column, removal in enumerate(self.removals):
                facts = {"removal": removal.name, "kind": removal.kind, "size": len(removal.ids)}
                effects = {"predicted": float(predicted[row, column]), "actual": float(actual[row, column])}
                yield {"query": query, **facts, **effects}

    def __repr__(self) -> str:
        slope = "" if np.isnan(self.slope) else f"slope {self.slope:.4f}, "
        return (
            f"Check({len(self.removals)} removals × {len(self.query_ids)} queries: {self.judge()}; "
            f"{slope}Pearson {self.pearson:.5f}, Spearman {self.spearman:.5f})"
        )

    def _repr_html_(self) -> str:
        agreements = [(NOUNS[kind], self.of(kind)) for kind in NOUNS]
        rows = [
            (noun, a.count, formatted(a.slope, 4), formatted(a.pearson, 5), formatted(a.spearman, 5))
            for noun, a in agreements
            if a.count
        ]
        warnings = [*self.verdict_warnings, *self.diagnostics.get("warnings", ())]
        return notebook_table(repr(self), rows, ("", "pairs", "slope", "Pearson", "Spearman"), warnings)
