"""The section of a report on all its queries: which training examples matter, and for which mistakes."""

from __future__ import annotations

from typing import Any, get_args

from upweight.applications.overview import Mistakes, Order, Overview, overview
from upweight.core.examples import Examples, Id
from upweight.core.scores import Scores
from upweight.report.previews import Album
from upweight.report.wording import count, label_text, number

EXAMPLES_SHOWN = 10  # in each order
OPPONENTS_SHOWN = 5  # of one kind of mistakes
KINDS_SHOWN = 12


def overview_data(scores: Scores, queries: Examples, on_page: dict[Id, int], album: Album) -> dict[str, Any] | None:
    """Values for the script of the page; None for a single query. `on_page` maps a query to its position there."""
    if len(scores.query_ids) < 2:
        return None
    return summary_data(overview(scores, queries), on_page, album)


def summary_data(summary: Overview, on_page: dict[Id, int], album: Album) -> dict[str, Any]:
    """An overview for the script of the page.

    `rows` are training examples, `orders` lists rows by name of the order, and `groups` are the kinds of mistakes.
    """
    orders = {by: summary.strongest(EXAMPLES_SHOWN, by) for by in get_args(Order)}
    ids = list(dict.fromkeys(identifier for listed in orders.values() for identifier in listed))
    row_of = {identifier: row for row, identifier in enumerate(ids)}
    notes = list(summary.notes)
    if len(summary.groups) > KINDS_SHOWN:
        notes.append(f"The {KINDS_SHOWN} most frequent of {count(len(summary.groups), 'kind')} of mistakes are listed.")
    return {
        "count": summary.queries,
        "mistakes": sum(len(group.query_ids) for group in summary.groups),
        "rows": _rows(summary, ids, album),
        "orders": {by: [row_of[i] for i in listed] for by, listed in orders.items() if listed},
        "groups": [_group(group, on_page, album) for group in summary.groups[:KINDS_SHOWN]],
        "notes": notes,
    }


def _rows(summary: Overview, ids: list[Id], album: Album) -> list[dict[str, Any]]:
    place = {identifier: i for i, identifier in enumerate(summary.train_ids.tolist())}
    return [
        {
            **_example(identifier, album),
            "preview": album.add("train", identifier),
            "mean": number(summary.mean[place[identifier]]),
            "strength": number(summary.strength[place[identifier]]),
            "helped": int(summary.helped[place[identifier]]),
            "harmed": int(summary.harmed[place[identifier]]),
            "mistakes": int(summary.mistakes[place[identifier]]),
        }
        for identifier in ids
    ]


def _group(group: Mistakes, on_page: dict[Id, int], album: Album) -> dict[str, Any]:
    return {
        "name": group.name,
        "count": len(group.query_ids),
        "queries": [on_page[i] for i in group.query_ids if i in on_page],
        "opponents": [{**_example(i, album), "mean": number(mean)} for i, mean in group.opponents[:OPPONENTS_SHOWN]],
    }


def _example(identifier: Id, album: Album) -> dict[str, Any]:
    return {"id": str(identifier), "label": label_text(album.sides["train"].label(identifier))}
