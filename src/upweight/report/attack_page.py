"""The page of attack: the queries before and after, and how far each training example was moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from upweight.applications.attack import Attack
from upweight.report.effect_tables import MAX_ROWS, EffectRow, application_page, effect_table
from upweight.report.wording import count, label_text, significant


def attack_page(attack: Attack, description: Sequence[str] = ()) -> str:
    """One table of queries and one of moved training examples."""
    queries, steps = attack.queries.ids.tolist()[:MAX_ROWS], len(attack.measured) - 1
    moves = np.abs(attack.moves).reshape(len(attack.moved), -1)
    moved = [
        EffectRow(
            f"{identifier} (label {label_text(attack.train.label(identifier))})",
            [significant(move.max(), 3), significant(move.mean(), 3)],
            float(move.max()),
        )
        for identifier, move in zip(attack.moved.tolist(), moves, strict=True)
    ][:MAX_ROWS]
    return application_page(
        "What can invisible changes of training examples do to these predictions?",
        [
            f"{len(attack.flipped)} of {count(len(attack.queries), 'prediction')} flipped",
            count(steps, "step"),
            attack.measurement,
        ],
        "Training examples were moved a little, and the model was retrained after every step.",
        [
            effect_table(
                "Queries",
                "query",
                ["before", "after", "prediction"],
                "change",
                [_query_row(attack, q, f"{identifier}") for q, identifier in enumerate(queries)],
            ),
            effect_table("Moved training examples", "example", ["largest move", "mean move"], "grey levels", moved),
        ],
        attack.diagnostics["warnings"],
        ["Moves are in grey levels. With moves below one half, a picture rounded to whole grey levels is unchanged."],
        description,
    )


def _query_row(attack: Attack, q: int, name: str) -> EffectRow:
    before, after = (label_text(predicted[q]) for predicted in attack.predicted)
    measured = [significant(attack.measured[end, q], 4) for end in (0, -1)]
    prediction = str(before) if before == after else f"{before} → {after}"
    return EffectRow(name, [*measured, prediction], float(attack.measured[-1, q] - attack.measured[0, q]))
