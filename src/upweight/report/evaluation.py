"""The evaluation page: scores compared with retraining, for one method (a check) or several (a comparison)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from upweight.core.scores import Scores, Unit
from upweight.evaluate.agreement import finite_or_none, formatted
from upweight.evaluate.brittleness import Brittleness
from upweight.evaluate.compare import HEAD, Comparison, Entry
from upweight.evaluate.example_criteria import ExampleCriteria
from upweight.evaluate.influence_gap import HEAD as GAP_HEAD
from upweight.evaluate.influence_gap import InfluenceGap
from upweight.evaluate.removal_curve import RemovalCurve
from upweight.evaluate.verification import Check
from upweight.report.document import rendered, written
from upweight.report.removal_curves import criteria_table, curve_plots, flip_table
from upweight.report.svg_plots import Dot, against_cost, scatter
from upweight.report.wording import count, settings, wording

LEVEL = 0.9
MAX_POINTS = 600  # of one plot; more would hide each other
STYLES = ("evaluation.css",)


def write_evaluation(
    path: str | Path,
    result: Check | Comparison,
    *,
    curves: Mapping[str, RemovalCurve] | None = None,
    flips: Brittleness | None = None,
    criteria: ExampleCriteria | None = None,
    gap: InfluenceGap | None = None,
    description: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML page that shows how far scores agree with retraining.

    For a check, it plots predicted against actual effects, each with an interval computed from the other half of the
    removals. For a comparison, it shows the table of methods and baselines, accuracy against cost, and the same plot
    for every method. The page has no script; it works from `file://` and can be printed.

    Args:
        curves: method → its removal curve (`upweight.removal_curve`).
        flips: how few removed examples flip predictions (`upweight.brittleness`).
        criteria: how necessary and how sufficient the strongest examples are (`upweight.example_criteria`).
        gap: why influence and retraining differ (`upweight.influence_gap`).
        description: sentences about the model, for the head of the page.

    Returns:
        The path written to; an existing file is replaced in one step or not at all.
    """
    facts = _check_facts(result) if isinstance(result, Check) else _comparison_facts(result)
    facts["curves"] = curve_plots(curves or {})
    facts["flips"] = None if flips is None else flip_table(flips)
    facts["criteria"] = None if criteria is None else criteria_table(criteria)
    facts["gap"] = gap and {"head": GAP_HEAD, "rows": gap.cells(), "summary": f"{gap.sentence}."}
    more = [w for curve in (curves or {}).values() for w in curve.warnings]
    more += [*(criteria.warnings if criteria else ()), *(gap.warnings if gap else ())]
    facts["warnings"] = [*facts["warnings"], *dict.fromkeys(more)]
    return written(Path(path), rendered("evaluation.html.j2", STYLES, (), None, description, **facts))


def _check_facts(check: Check) -> dict[str, Any]:
    method = str(check.scores.recipe.get("method", "These scores"))
    kinds = [(kind, name) for kind, name in (("one", "single examples"), ("group", "groups")) if _has(check, kind)]
    cells = [_agreement_cell(name, check.of(kind).slope, check.of(kind).spearman) for kind, name in kinds]  # type: ignore[arg-type]
    return {
        "question": f"Does {method} agree with retraining?",
        "facts": [
            f"{wording(check.scores).measurement} measured",
            str(check.judged.unit),
            f"{count(len(check.removals), 'removal')} × {count(len(check.query_ids), 'query')}",
            count(_seeds(check), "seed"),
        ],
        "warnings": [str(w) for source in (check.judged, check) for w in source.diagnostics.get("warnings", ())],
        "cells": [_verdict_cell(check), *cells, *_noise_cell(check)],
        "table": None,
        "cost": None,
        "plots": [_plot(check, kind, f"Without {name}") for kind, name in kinds],
        "about": _about(check.scores),
        "settings": [
            ("Method", list(settings(check.scores.recipe))),
            ("Verification", list(settings(check.diagnostics, skip=("warnings",)))),
        ],
    }


def _comparison_facts(comparison: Comparison) -> dict[str, Any]:
    truth = comparison.truth
    scored = [e for e in comparison.entries if e.scores is not None and e.lds is not None]
    best = next((e for e in scored if finite_or_none(e.lds.mean) is not None), None)  # type: ignore[union-attr]
    ceiling = None if not scored else finite_or_none(scored[0].lds.ceiling.value)  # type: ignore[union-attr]
    dots = [
        Dot(e.name, e.seconds, e.lds.mean, e.lds.low, e.lds.high, e.kind)
        for e in scored
        if e.lds is not None and math.isfinite(e.lds.mean)
    ]
    share = 1 - np.mean([len(r.ids) for r in truth.removals]) / len(truth.train_ids)
    models = count(len(truth.removals), "retrained model")
    return {
        "question": "Which method agrees with retraining, and at what cost?",
        "facts": [
            f"{truth.facts['measurement']} measured",
            f"{models} on {share:.0%} of {count(len(truth.train_ids), 'example')}",
            count(len(truth.query_ids), "query"),
            count(len(truth.seeds), "seed"),
        ],
        "warnings": comparison.warnings,
        "cells": [] if best is None else _best_cells(best),
        "table": _table(comparison),
        "cost": against_cost(dots, ceiling, "LDS of every method against its cost") if dots else None,
        "plots": [_plot(_as_check(e, comparison), None, e.name) for e in scored if e.kind == "method"],
        "about": _about(best.scores if best else None),
        "settings": [(e.name, list(settings(e.scores.recipe))) for e in scored if e.kind == "method" and e.scores],
    }


def _as_check(entry: Entry, comparison: Comparison) -> Check:
    truth = comparison.truth
    assert entry.scores is not None
    return Check(truth.predicted(entry.scores), truth.actual, truth.query_ids, truth.removals, entry.scores, {}, truth)


def _plot(check: Check, kind: Any, title: str) -> dict[str, Any]:
    calibrated = check.scores.unit == Unit.EFFECT
    columns = [c for c, r in enumerate(check.removals) if kind in (None, r.kind)]
    coverage = check.coverage(level=LEVEL) if calibrated else None
    pairs = [(q, c) for q in range(len(check.query_ids)) for c in columns]
    step = max(1, math.ceil(len(pairs) / MAX_POINTS))
    points = [_point(check, coverage, q, c) for q, c in pairs[::step]]
    unit = wording(check.scores).unit
    labels = (
        "predicted" + (f" ({unit})" if unit and calibrated else "" if calibrated else " (RANK, no unit)"),
        "actual",
    )
    notes = [] if step == 1 else [f"{len(points):,} of {len(pairs):,} pairs are drawn."]
    if coverage is not None and np.isfinite(coverage.low[:, columns]).any():
        inside = coverage.inside[:, columns][np.isfinite(coverage.low[:, columns])]
        share = f"{int(inside.sum()):,} of {inside.size:,}"  # as a percentage, 199 of 200 would be rounded to 100%
        notes.insert(0, f"{share} actual effects lie inside their {LEVEL:.0%} intervals.")
    notes.insert(0, f"Verdict: {check.judge(kind)}.")
    agreement = check.of(kind)
    numbers = [("slope", formatted(agreement.slope))] if calibrated else []
    return {
        "title": title,
        "svg": scatter(
            points, labels, calibrated, f"{title}: predicted against actual effects of {len(columns)} removals"
        ),
        "numbers": [*numbers, ("Pearson", formatted(agreement.pearson)), ("Spearman", formatted(agreement.spearman))],
        "notes": notes,
    }


def _point(check: Check, coverage: Any, q: int, c: int) -> dict[str, Any]:
    removal, x, y = check.removals[c], float(check.predicted[q, c]), float(check.actual[q, c])
    point: dict[str, Any] = {"x": x, "y": y, "kind": removal.kind}
    description = f"query {check.query_ids[q]}, without {removal.name}: predicted {x:+.3g}, actual {y:+.3g}"
    if coverage is not None and np.isfinite(coverage.low[q, c]):
        low, high = float(coverage.low[q, c]), float(coverage.high[q, c])
        point |= {"low": low, "high": high, "outside": not bool(coverage.inside[q, c])}
        description += f", expected between {low:+.3g} and {high:+.3g}"
    return {**point, "description": description.replace("-", "−")}


def _table(comparison: Comparison) -> dict[str, Any]:
    planted = any(e.detection for e in comparison.entries)
    columns = [i for i, name in enumerate(HEAD) if name != "AUC" or planted]
    rows = [
        {
            "cells": [e.cells()[i] for i in columns],
            "kind": e.kind,
            "why": e.why,
            "planted": repr(e.detection) if e.detection else "",
        }
        for e in comparison.entries
    ]
    return {"head": [HEAD[i] for i in columns], "rows": rows, "planted": planted}


def _best_cells(best: Entry) -> list[dict[str, str]]:
    assert best.lds is not None
    ceiling = best.lds.ceiling
    return [
        {
            "name": "best LDS",
            "value": formatted(best.lds.mean),
            "means": f"{best.name}; 1 = all subsets in the right order",
        },
        {"name": "noise ceiling", "value": formatted(ceiling.value), "means": ceiling.note},
        {"name": "cost", "value": f"{best.seconds:.2g} s", "means": f"processor time of {best.name}"},
    ]


def _agreement_cell(name: str, slope: float, spearman: float) -> dict[str, str]:
    size = f"; slope {formatted(slope)}" if np.isfinite(slope) else ""
    return {"name": name, "value": formatted(spearman), "means": f"rank correlation{size}"}


def _verdict_cell(check: Check) -> dict[str, str]:
    noun = "single examples" if _has(check, "one") else "groups"
    return {"name": "verdict", "value": str(check.judge()), "means": f"on {noun}, by retraining"}


def _noise_cell(check: Check) -> list[dict[str, str]]:
    if check.ceiling is None:
        return []
    return [{"name": "noise ceiling", "value": formatted(check.ceiling.value), "means": check.ceiling.note}]


def _about(scores: Scores | None) -> Sequence[str]:
    sentences = [
        "The predicted effect is the sum of the scores of the removed examples. The actual effect is the measurement "
        "with them minus without them, after retraining. On the dashed line the two are equal.",
    ]
    if scores is not None and scores.unit == Unit.EFFECT:
        sentences.append(
            f"The bar at each point is its {LEVEL:.0%} split-conformal interval. It is computed from other removals: "
            "removals are split into two halves, and each half gives the intervals of the other."
        )
    return sentences


def _has(check: Check, kind: str) -> bool:
    return any(removal.kind == kind for removal in check.removals)


def _seeds(check: Check) -> int:
    return 1 if check.truth is None else len(check.truth.seeds)
