"""The page of growing spheres: what would have to be different, and the nearest training examples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from upweight.applications.growing_spheres import ColumnChange, NearestEnemy, space_of
from upweight.core.examples import Examples
from upweight.report.document import rendered
from upweight.report.previews import Album
from upweight.report.wording import cell_text, count, label_text, significant

MAX_CHANGES = 40
MAX_ROWS = 60  # columns that are shown of the training examples
MAX_PICTURES = 5  # of training examples
DIFFERS = 0.1  # standard deviations
DEFINITION = (
    "An enemy is a row for which the model predicts another label than for the query. Distances are Euclidean, "
    "in standard deviations of the training set; another category counts 1. Rings around the query were searched from "
    "the inside, and changes that are not needed were undone."
)


def growing_spheres_page(result: NearestEnemy, description: Sequence[str] = ()) -> str:
    """The changes as a table, and the query beside the nearest training enemies."""
    pictures, about = _pictures(result)
    return rendered(
        "growing_spheres.html.j2",
        ("application.css", "local_model.css"),
        (),
        None,
        description,
        title="What would have to be different?",
        facts=[
            f"query {result.query.ids[0].item()}",
            f"{label_text(result.predicted)} → {label_text(result.enemy_predicted)}",
            f"distance {significant(result.distance, 3)}",
            f"{result.diagnostics['predictions']:,} predictions",
        ],
        definition=DEFINITION,
        warnings=result.diagnostics["warnings"],
        pictures=pictures,
        changes=_changes(result),
        training=None if pictures else _training(result),
        about=about,
    )


def _changes(result: NearestEnemy) -> dict[str, Any]:
    number, before = len(result.changes), result.changed_before
    text = f"With {count(number, 'change')} the model predicts {label_text(result.enemy_predicted)}."
    if before > number:
        text += f" {before - number} of {before} were not needed."
    rows = [
        {"name": c.name, "before": _cell(c.before), "after": _cell(c.after), "by": _size(c)}
        for c in result.changes[:MAX_CHANGES]
    ]
    return {"text": text, "rows": rows, "left_out": max(0, number - MAX_CHANGES)}


def _size(change: ColumnChange) -> str:
    is_number = isinstance(change.before, int | float) and not isinstance(change.before, bool)
    return f"{significant(change.size, 2)} sd" if is_number else "category"


def _cell(value: Any) -> str:
    return significant(value, 4) if isinstance(value, float) else cell_text(value)


def _training(result: NearestEnemy) -> dict[str, Any] | None:
    """Columns of the query and of the nearest training enemies, those that differ first; None without enemies."""
    if not result.training:
        return None
    space = space_of(result.train, result.query, result.spheres)
    columns = space.columns
    codes = columns.codes[result.train.positions([enemy.id for enemy in result.training])]
    sizes = space.moves(codes)
    order = np.argsort(-(sizes > DIFFERS).sum(axis=0), kind="stable")[:MAX_ROWS].tolist()
    rows = [
        {
            "name": columns.names[j],
            "query": _cell(columns.value(j, columns.codes[-1, j])),
            "cells": [
                {"text": _cell(columns.value(j, row[j])), "differs": bool(size[j] > DIFFERS)}
                for row, size in zip(codes, sizes, strict=True)
            ],
        }
        for j in order
    ]
    heads = [
        f"{enemy.id}: {label_text(enemy.predicted)}, {significant(enemy.distance, 3)} away" for enemy in result.training
    ]
    return {"heads": heads, "rows": rows, "left_out": max(0, len(columns.names) - MAX_ROWS)}


def _pictures(result: NearestEnemy) -> tuple[list[dict[str, str]], list[str]]:
    """(the query, the enemy and the training enemies as pictures, none if they are not pictures; remarks)."""
    query, enemy = result.query, result.enemy
    if query.preview(query.ids[0].item()).kind != "image":
        return [], []
    shown = enemy if query.shown is None else _as_shown(enemy, query)
    if shown is None:
        return [], []
    of_query, of_enemy = Album(result.train, query), Album(result.train, shown)
    labels = f"query: {label_text(result.predicted)}", f"changed: {label_text(result.enemy_predicted)}"
    entries = [(of_query.entries[of_query.add("query", query.ids[0].item())], labels[0])]
    entries.append((of_enemy.entries[of_enemy.add("query", shown.ids[0].item())], labels[1]))
    for one in result.training[:MAX_PICTURES]:
        text = f"{one.id}: {label_text(one.predicted)}, {significant(one.distance, 3)} away"
        entries.append((of_query.entries[of_query.add("train", one.id)], text))
    return [{"uri": e["uri"], "text": text} for e, text in entries if e["kind"] == "image"], of_query.remarks()


def _as_shown(enemy: Examples, query: Examples) -> Examples | None:
    """The enemy with its numbers as a picture, on the scale of the pictures that are shown; None if they are others."""
    x, shown, given = (np.asarray(part, dtype=np.float64) for part in (enemy.x, query.shown, query.x))
    if x.size != shown.size:
        return None
    factor = float(np.abs(shown).max()) / (float(np.abs(given).max()) or 1.0)
    if not np.allclose(given.reshape(shown.shape) * factor, shown):
        return None
    return enemy.replaced(shown=(x * factor).reshape(shown.shape))
