"""The page of fgsm: every query before and after the step, with its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upweight.applications.fgsm import AdversarialQueries
from upweight.report.effect_tables import MAX_ROWS, EffectRow, application_page, effect_table
from upweight.report.previews import Album
from upweight.report.wording import count, label_text, significant

MAX_PICTURES = 6  # queries that are shown before and after; flipped ones first


def fgsm_page(result: AdversarialQueries, description: Sequence[str] = ()) -> str:
    """One table of queries, and pictures of a few before and after."""
    table = effect_table(
        "Queries",
        "query",
        ["before", "after", "prediction"],
        "change",
        [_row(result, q) for q in range(min(len(result.queries), MAX_ROWS))],
    )
    return application_page(
        "What can a small move of every number do to these predictions?",
        [
            f"{len(result.flipped)} of {count(len(result.queries), 'prediction')} flipped",
            f"every number moved by {result.radius:g}",
            result.measurement,
        ],
        "Every number of a query moved by the same amount, in the direction that raises the loss most.",
        [{**table, "pictures": _pictures(result)}],
        result.diagnostics["warnings"],
        ["The training examples and the model are as they were."],
        description,
    )


def _row(result: AdversarialQueries, q: int) -> EffectRow:
    before, after = (label_text(predicted[q]) for predicted in result.predicted)
    measured = [significant(result.measured[end, q], 4) for end in (0, 1)]
    prediction = str(before) if before == after else f"{before} → {after}"
    change = float(result.measured[1, q] - result.measured[0, q])
    return EffectRow(str(result.queries.ids[q].item()), [*measured, prediction], change)


def _pictures(result: AdversarialQueries) -> list[dict[str, Any]]:
    """Pictures before and after; an empty list if the queries are not pictures."""
    queries = result.queries.replaced(shown=None)
    album = Album(result.moved, queries)
    pictures = []
    for identifier in list(dict.fromkeys([*result.flipped, *queries.ids.tolist()]))[:MAX_PICTURES]:
        position = int(queries.positions([identifier])[0])
        for side, place in (("query", 0), ("train", 1)):
            entry = album.entries[album.add(side, identifier)]
            if entry["kind"] == "image":
                text = f"{identifier} {'after' if place else 'before'}: {label_text(result.predicted[place][position])}"
                pictures.append({"uri": entry["uri"], "text": text})
    return pictures
