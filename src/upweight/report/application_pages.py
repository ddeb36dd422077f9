"""The pages of slices, perturb, attack and what_if: tables of effects with their intervals and what really happened."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from upweight.applications.attack import Attack
from upweight.applications.perturb import Perturbation
from upweight.applications.slices import Slices
from upweight.applications.what_if import WhatIf
from upweight.core.examples import Id
from upweight.core.scores import Unit
from upweight.report.document import rendered
from upweight.report.heatmap import heat_pictures
from upweight.report.wording import MINUS, count, label_text

MOST_ROWS = 200  # of one table
MOST_TABLES = 20  # of one page
FEATURES = 12  # of one training example


def slices_page(found: Slices) -> str:
    """One table per slice, the most harmful groups first."""
    sections = []
    for s, (name, ids) in enumerate(found.slices.items()):
        rows = []
        for g in np.argsort(found.effects[:, s], kind="stable")[:MOST_ROWS].tolist():
            effect, actual = float(found.effects[g, s]), float(found.actual[g, s])
            turned = f"{found.turned[g, s]} of {len(ids)}" if math.isfinite(actual) else "–"
            cells = [f"{len(found.groups.members[g]):,}", _signed(effect), _signed(actual), turned]
            span = (float(found.low[g, s]), float(found.high[g, s]))
            rows.append({"name": found.groups.names[g], "cells": cells, "values": (effect, span, actual)})
        sections.append(
            _section(
                f"{name}: {count(len(ids), 'query')}",
                "training group",
                ["examples", "effect", "by retraining", "predictions turned"],
                "effect, interval, retraining",
                rows,
            )
        )
    return _page(
        "Which training groups caused these failures?",
        [
            count(len(found.groups.names), "group"),
            count(len(found.slices), "slice"),
            found.measurement,
            _unit(found.unit),
        ],
        "An effect is the mean measurement of the slice with the group minus without it. Negative: the slice would do "
        "better had the group not been there.",
        sections,
        found.diagnostics["warnings"],
        ["Intervals are 90 % bootstrap intervals over the queries of the slice. Groups of different columns overlap."],
    )


def what_if_page(found: WhatIf) -> str:
    """One table per change; with one query per change, one table of all changes."""
    queries, sections = found.queries.ids.tolist(), []
    for j, (name, change) in enumerate(found.changes.items()):
        if j == MOST_TABLES:
            break
        rows = []
        for q in np.argsort(-np.abs(found.predicted[:, j]), kind="stable")[:MOST_ROWS].tolist():
            actual = math.nan if found.actual is None else float(found.actual[q, j])
            span = (
                None if found.low is None or found.high is None else (float(found.low[q, j]), float(found.high[q, j]))
            )
            then = "–" if not found.after else str(label_text(found.after[j].predicted[q]))
            now = str(label_text(found.before.predicted[q]))
            turn = now if then in (now, "–") else f"{now} → {then}"
            cells = [turn, _signed(float(found.predicted[q, j])), _signed(actual)]
            values = (float(found.predicted[q, j]), span, actual)
            rows.append({"name": f"query {queries[q]}", "cells": cells, "values": values})
        turned = found.flipped(name)
        text = f"{count(change.size, 'training example')} changed" + (
            f", {count(len(turned), 'prediction')} turned" if found.after else ""
        )
        columns = ["prediction", "predicted effect", "by retraining"]
        sections.append(_section(name, "query", columns, "predicted, interval, retraining", rows, text))
    method = "followed to the new optimum" if found.form == "newton" else "first order"
    return _page(
        "What if the training set were another one?",
        [
            count(len(found.changes), "change"),
            count(len(queries), "query"),
            found.measurement,
            _unit(found.unit),
            method,
        ],
        "An effect is the measurement of the query with the change minus without it.",
        sections,
        found.diagnostics["warnings"],
        ["Intervals hold the actual effect with 90 % probability, if the change is like random ones of its size."],
    )


def perturb_page(found: Perturbation) -> str:
    """One table of features per training example, for the query that it reaches farthest."""
    sections = []
    for i, example in enumerate(found.example_ids.tolist()[:MOST_TABLES]):
        sizes = np.abs(found.contributions[:, i]).reshape(len(found.query_ids), -1).sum(axis=1)
        q = int(sizes.argmax())
        query = found.query_ids[q].item()
        rows = [
            {
                "name": feature.name,
                "cells": [
                    f"{feature.value:.4g}".replace("-", MINUS),
                    _signed(feature.contribution),
                    _signed(feature.gradient),
                ],
                "values": (feature.contribution, None, math.nan),
            }
            for feature in found.features(query, example, FEATURES)
        ]
        section = _section(
            f"Training example {example} ({_label(found, example)}) and query {query}",
            "feature",
            ["value", "contribution", "per unit"],
            "contribution",
            rows,
            f"A move of every number by one unit, in the worst direction, would do {found.reach[q, i]:.3g}.",
        )
        sections.append({**section, "pictures": heat_pictures(found, q, i)})
    return _page(
        "Which features of which training examples would move these predictions?",
        [
            count(len(found.query_ids), "query"),
            f"{len(found.example_ids)} of {len(found.train):,} training examples",
            found.measurement,
            _unit(found.unit),
        ],
        "A contribution is, to first order, the measurement of the query with this number in the training example "
        "minus with the baseline in its place, after training again.",
        sections,
        found.diagnostics["warnings"],
        [f"Numbers are {found.described}. “Per unit” is the gradient, also of numbers that the example does not have."],
    )


def attack_page(found: Attack) -> str:
    """What became of every query, and how little each training example was moved."""
    ids, (before, after) = found.queries.ids.tolist(), found.predicted
    queries = [
        {
            "name": f"{ids[q]}",
            "cells": [f"{found.measured[end, q]:.4g}".replace("-", MINUS) for end in (0, -1)]
            + [label_text(before[q]) if before[q] == after[q] else f"{label_text(before[q])} → {label_text(after[q])}"],
            "values": (float(found.measured[-1, q] - found.measured[0, q]), None, math.nan),
        }
        for q in range(len(ids))
    ][:MOST_ROWS]
    moves = np.abs(found.moves).reshape(len(found.moved), -1)
    moved = [
        {
            "name": f"{identifier} (label {label_text(found.train.label(identifier))})",
            "cells": [f"{move.max():.3g}", f"{move.mean():.3g}"],
            "values": (float(move.max()), None, math.nan),
        }
        for identifier, move in zip(found.moved.tolist(), moves, strict=True)
    ][:MOST_ROWS]
    steps = len(found.measured) - 1
    return _page(
        "What can unseen changes of training examples do to these predictions?",
        [f"{len(found.turned)} of {count(len(ids), 'prediction')} turned", count(steps, "step"), found.measurement],
        "Training examples were moved a little, and the model really trained again after every step.",
        [
            _section("Queries", "query", ["before", "after", "prediction"], "change", queries),
            _section("Moved training examples", "example", ["largest move", "mean move"], "grey levels", moved),
        ],
        found.diagnostics["warnings"],
        ["Moves are in grey levels: below a half, a picture rounded to its grey levels is the same picture."],
    )


def _label(found: Perturbation, example: Id) -> str:
    return f"label {label_text(found.train.label(example))}"


def _section(title: str, noun: str, columns: list[str], drawn: str, rows: list[Any], text: str = "") -> dict[str, Any]:
    """Rows with bars, ranges and points on one scale of 200."""
    ends = [0.0]
    for row in rows:
        effect, span, actual = row["values"]
        ends += [effect, *(span or ()), *([actual] if math.isfinite(actual) else [])]
    low, high = min(ends), max(ends)
    room = (high - low) or 1.0

    def x(value: float) -> float:
        return round(4 + 192 * (value - low) / room, 2)

    made = []
    for row in rows:
        effect, span, actual = row["values"]
        made.append(
            {
                "name": row["name"],
                "cells": row["cells"],
                "said": f"effect {_signed(effect)}"
                + (f", by retraining {_signed(actual)}" if math.isfinite(actual) else ""),
                "bar": {"x": min(x(0.0), x(effect)), "width": abs(x(effect) - x(0.0)), "positive": effect > 0},
                "range": None if span is None else (x(span[0]), x(span[1])),
                "point": x(actual) if math.isfinite(actual) else None,
            }
        )
    return {
        "title": title,
        "noun": noun,
        "columns": columns,
        "drawn": drawn,
        "rows": made,
        "text": text,
        "zero": x(0.0),
        "pictures": [],
    }


def _page(
    title: str, facts: list[str], definition: str, sections: list[Any], warnings: list[str], about: list[str]
) -> str:
    return rendered(
        "use.html.j2",
        ("page.css", "use.css"),
        (),
        None,
        title=title,
        facts=facts,
        definition=definition,
        sections=sections,
        warnings=warnings,
        about=about,
    )


def _unit(unit: Unit) -> str:
    return "sizes in the measurement’s own unit" if unit == Unit.EFFECT else "sign and order, not size"


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", MINUS) if math.isfinite(value) else "–"
