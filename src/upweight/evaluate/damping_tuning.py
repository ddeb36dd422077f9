"""Tuning: the damping that agrees best with retraining, judged on removals that had no part in the choice."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from upweight.core.attributor import Attributor
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.progress import Progress, as_progress
from upweight.core.scores import Scores
from upweight.evaluate.agreement import finite_mean, finite_or_none, formatted, rank_correlations
from upweight.evaluate.lds import FEWEST, LDS, lds
from upweight.evaluate.truth import Truth
from upweight.evaluate.verification import Check


@dataclass(frozen=True, eq=False)
class Tuned:
    """The damping chosen.

    Attributes:
        recipe: the method with it.
        scores: its scores of the queries.
        table: (damping, LDS on the removals that chose), NaN for one that could not be used.
        held_out: LDS of the chosen one on the other half of the removals: the figure to report.
        warnings: a choice at the end of the candidates, candidates that could not be used.
    """

    recipe: Attributor
    scores: Scores
    table: tuple[tuple[float, float], ...]
    held_out: LDS
    warnings: tuple[str, ...] = ()

    @property
    def damping(self) -> float:
        """What was chosen."""
        return float(getattr(self.recipe, "damping"))  # noqa: B009 - not every recipe has one; this one does

    def __repr__(self) -> str:
        return f"Tuned(damping {self.damping:g} of {len(self.table)}, held-out LDS {formatted(self.held_out.mean)})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{d:g}</td><td>{formatted(v)}</td></tr>" for d, v in self.table)
        notes = "".join(f"<li>{html.escape(w)}</li>" for w in self.warnings)
        head = "<tr><th>damping</th><th>LDS</th></tr>"
        return f"<p><b>{html.escape(repr(self))}</b></p><ul>{notes}</ul><table>{head}{rows}</table>"

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
    """Fit the recipe with every damping and keep the one whose scores order half of the removals best.

    Of equals the smallest wins: less damping is closer to the question that was asked. The other half of the removals
    has no part in the choice and gives the LDS to report.

    Args:
        recipe: a method with a `damping`, e.g. `Influence(curvature=EKFAC())`.
        dampings: at least two candidates.
        truth: at least ten removals of this model, or a check that holds them.
        progress: called with ("tune", done, of how many dampings).

    Raises:
        TypeError: a recipe without damping.
        ValueError: too few candidates or removals, another model's truth, no candidate that works.
    """
    tell = as_progress(progress, "tune_damping")
    held = truth.truth if isinstance(truth, Check) else truth
    if held is None:
        raise ValueError("expected a check that keeps its truth; call verify again")
    if "damping" not in {field.name for field in fields(recipe)}:
        raise TypeError(f"expected a recipe with a damping, {type(recipe).__name__} has none")
    candidates = sorted(set(map(float, dampings)))
    if len(candidates) < 2:
        raise ValueError(f"expected at least two different dampings to choose from, got {list(dampings)}")
    if len(held.removals) < 2 * FEWEST:
        raise ValueError(
            f"expected at least {2 * FEWEST} removals, half to choose by and half to judge, got {len(held.removals)}"
        )
    held.require(model, train, queries)
    order = sorted(range(len(held.removals)), key=lambda c: len(held.removals[c].ids))  # sizes alike in both halves
    chooses, judges = held.take(order[::2]), held.take(order[1::2])
    table, kept, warnings = [], dict[float, Scores](), []
    for done, damping in enumerate(candidates, start=1):
        try:
            kept[damping] = replace(recipe, damping=damping).fit(model, train).attribute(queries)  # type: ignore[call-arg]
            found = float(finite_mean(rank_correlations(chooses.predicted(kept[damping]), chooses.actual)))
        except ValueError as error:
            found = float("nan")
            warnings.append(f"Damping {damping:g} could not be used: {error}")
        table.append((damping, found))
        tell("tune", done, len(candidates))
    usable = [(value, -damping) for damping, value in table if np.isfinite(value)]
    if not usable:
        raise ValueError(f"no damping could be used: {warnings[0] if warnings else 'no measurement varies'}")
    best = -max(usable)[1]
    if best in (candidates[0], candidates[-1]) and len({value for value, _ in usable}) > 1:
        warnings.append(f"The best damping, {best:g}, is at the end of the candidates; a better one may lie beyond.")
    chosen = replace(recipe, damping=best)  # type: ignore[call-arg]
    return Tuned(chosen, kept[best], tuple(table), lds(kept[best], judges), tuple(warnings))
