"""The page of prototypes: for every class its prototypes, and its criticisms, which the prototypes represent worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upweight.applications.prototypes import Prototypes
from upweight.core.examples import Id
from upweight.report.document import rendered
from upweight.report.previews import Album
from upweight.report.wording import cell_text, count, label_text, significant

MAX_CARDS = 60  # of one kind and class
MAX_COLUMNS = 8  # of a row
DATA = "The prototypes together are as near to the data as so few examples can be."
CRITICISMS = (
    "Criticisms are the examples that they represent worst: read them to see what the prototypes leave out. “Denser” "
    "means that there are more examples like this one than the prototypes suggest, “sparser” that there are fewer."
)
QUERIES = "The prototypes, times their weights, come as near to the queries as so few training examples can."


def prototypes_page(result: Prototypes, description: Sequence[str] = ()) -> str:
    """One section per class with its prototypes and criticisms, in the order in which they were chosen."""
    album = Album(result.train, result.train)
    weight = dict(zip(result.ids.tolist(), result.weights.tolist(), strict=True))
    witness = dict(zip(result.criticism_ids.tolist(), result.witness.tolist(), strict=True))
    is_weighted = len(set(weight.values())) > 1
    sections = []
    for label, (ids, criticism_ids) in result.by_class().items():
        rows = [
            ("Prototypes", [(i, f"weight {significant(weight[i], 2, '+')}" if is_weighted else "") for i in ids]),
            ("Criticisms", [(i, _density(witness[i])) for i in criticism_ids]),
        ]
        sections.append(
            {
                "title": "All examples" if label is None else f"Class {label_text(label)}",
                "rows": [
                    {
                        "title": title,
                        "count": len(cards),
                        "left_out": max(0, len(cards) - MAX_CARDS),
                        "cards": [_card(album, identifier, text) for identifier, text in cards[:MAX_CARDS]],
                    }
                    for title, cards in rows
                    if cards
                ],
            }
        )
    return rendered(
        "prototypes.html.j2",
        ("application.css", "prototypes.css"),
        (),
        None,
        description,
        title="Which examples stand for the others?",
        facts=[
            f"{count(len(result.ids), 'prototype')} for {result.stands_for}",
            count(len(result.criticism_ids), "criticism"),
            f"{len(result.train):,} training examples",
            type(result.kernel).__name__,
        ],
        definition=f"{DATA if result.queries is None else QUERIES} {CRITICISMS}",
        warnings=result.diagnostics["warnings"],
        sections=sections,
        about=album.remarks(),
    )


def _density(witness: float) -> str:
    return "denser" if witness > 0 else "sparser"


def _card(album: Album, identifier: Id, text: str) -> dict[str, Any]:
    """What a card shows of one training example."""
    preview = album.sides["train"].preview(identifier)
    card: dict[str, Any] = {"id": str(identifier), "note": text, "kind": preview.kind}
    if preview.kind == "row":
        card["pairs"] = [(str(name), cell_text(value)) for name, value in preview.value[:MAX_COLUMNS]]
        return card
    return {**card, **album.entries[album.add("train", identifier)]}
