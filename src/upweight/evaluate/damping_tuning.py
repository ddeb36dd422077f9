"""Tuning of the damping: choose the one that agrees best with retraining, and evaluate it on held-out removals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from upweight.core.attributor import Attributor
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.notebook_table import notebook_table
from upweight.core.progress import Progress, as_progress
from upweight.core.scores import Scores
from upweight.core.tabular import Tabular
from upweight.evaluate.agreement import finite_mean, finite_or_none, formatted, rank_correlations
from upweight.evaluate.lds import LDS, MIN_REMOVALS, lds
from upweight.evaluate.truth import Truth
from upweight.evaluate.verification import Check


@dataclass(frozen=True, eq=False)
class Tuned(Tabular):
    """The chosen damping.

    Attributes:
        recipe: the method with the chosen damping.
        scores: its scores of the queries.
        table: (damping, LDS on the half of the removals used for the choice); NaN for a damping that could not be used.
        held_out: LDS of the chosen damping on the other half of the removals, which is the figure to report.
        warnings: on candidates that could not be used, and on a choice at either end of the candidates.
    """

    _table: ClassVar = "table"
    recipe: Attributor
    scores: Scores
    table: tuple[tuple[float, float], ...]
    held_out: LDS
    warnings: tuple[str, ...] = ()

    @property
    def damping(self) -> float:
        """The chosen damping."""
        return float(getattr(self.recipe, "damping"))  # noqa: B009 - not every recipe has a damping; this one does

    def __repr__(self) -> str:
        return f"Tuned(damping {self.damping:g} of {len(self.table)}, held-out LDS {formatted(self.held_out.mean)})"

    def _repr_html_(self) -> str:
        rows = [(f"{damping:g}", formatted(lds)) for damping, lds in self.table]
        return notebook_table(repr(self), rows, ("damping", "LDS"), self.warnings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        table = [{"damping": d, "lds": finite_or_none(v)} for d, v in self.table]
        return {
            "damping": self.damping,
            "table": table,
            "held_out": self.held_out.as_dict(),
            "warnings": list(self.warnings),
        }


def tune_damping(
    recipe: Attributor,
    dampings: Sequence[float],
    model: Measurable,
    train: Examples,
    queries: Examples,
    truth: Truth | Check,
    *,
    progress: Progress | None = None,
) -> Tuned:
    """Fit the recipe with every damping, and choose the one whose scores order half of the removals best.

    Of equally good dampings the smallest is chosen, since damping changes the problem that is solved. The other half of
    the removals is not used for the choice and gives the LDS to report.

    Args:
        recipe: a method with a `damping`, e.g. `Influence(curvature=EKFAC())`.
        dampings: at least two candidates.
        truth: at least ten removals of this model, or a check that has them.
        progress: called with ("tune", dampings done, dampings in total).

    Raises:
        TypeError: a recipe without damping.
        ValueError: too few candidates or removals, the truth of another model, no candidate that works.
    """
    report = as_progress(progress, "tune_damping")
    retrained = truth.truth if isinstance(truth, Check) else truth
    if retrained is None:
        raise ValueError("expected a check that holds the truth of its removals; call verify again")
    if "damping" not in {field.name for field in fields(recipe)}:
        raise TypeError(f"expected a recipe with a damping, {type(recipe).__name__} has none")
    candidates = sorted(set(map(float, dampings)))
    if len(candidates) < 2:
        raise ValueError(f"expected at least two different dampings to choose from, got {list(dampings)}")
    removals = retrained.removals
    if len(removals) < 2 * MIN_REMOVALS:
        raise ValueError(
            f"expected at least {2 * MIN_REMOVALS} removals, half to choose by and half to judge, got {len(removals)}"
        )
    retrained.require(model, train, queries)
    # Both halves get removals of the same sizes.
    by_size = sorted(range(len(removals)), key=lambda column: len(removals[column].ids))
    tuning, held_out = retrained.take(by_size[::2]), retrained.take(by_size[1::2])
    table, scores, warnings = [], dict[float, Scores](), []
    for done, damping in enumerate(candidates, start=1):
        try:
            scores[damping] = replace(recipe, damping=damping).fit(model, train).attribute(queries)  # type: ignore[call-arg]
            score = float(finite_mean(rank_correlations(tuning.predicted(scores[damping]), tuning.actual)))
        except ValueError as error:
            score = float("nan")
            warnings.append(f"Damping {damping:g} could not be used: {error}")
        table.append((damping, score))
        report("tune", done, len(candidates))
    usable = [(value, -damping) for damping, value in table if np.isfinite(value)]
    if not usable:
        raise ValueError(f"no damping could be used: {warnings[0] if warnings else 'no measurement varies'}")
    best = -max(usable)[1]
    if best in (candidates[0], candidates[-1]) and len({value for value, _ in usable}) > 1:
        warnings.append(f"The best damping, {best:g}, is at the end of the candidates; a better one may lie beyond.")
    chosen = replace(recipe, damping=best)  # type: ignore[call-arg]
    return Tuned(chosen, scores[best], tuple(table), lds(scores[best], held_out), tuple(warnings))
