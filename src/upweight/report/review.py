"""The review page: a person accepts or rejects suggested labels and saves the decisions as a patch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from upweight.applications.patch import KIND, VERSION, checksum
from upweight.applications.suspects import Suspects
from upweight.core.identity import digest
from upweight.report.document import rendered
from upweight.report.previews import Album
from upweight.report.targets_page import targets_page
from upweight.report.wording import count, label_text, number


def review_page(suspects: Suspects, description: Sequence[str] = ()) -> str:
    """The page as text; for regression targets a table of them."""
    if suspects.is_regression:
        return targets_page(suspects, description)
    train = suspects.train
    album = Album(train, train)
    classes: list[Any] = [] if train.y is None else np.unique(train.y).tolist()
    positions = train.positions(suspects.ids)
    entries = []
    for rank, (identifier, position) in enumerate(zip(suspects.ids.tolist(), positions.tolist(), strict=True)):
        assert train.y is not None
        leave_one_out = suspects.loss[position] + suspects.self_influence[position]
        entries.append(
            {
                "id": json.dumps(identifier),  # as text: JavaScript would round large numbers
                "name": str(identifier),
                "label": classes.index(train.y[position].item()),
                "suggested": classes.index(suspects.suggested[rank]),
                "chances": [number(chance) for chance in suspects.chances[rank]],
                "loss": number(suspects.loss[position]),
                "alone": number(leave_one_out),
                "harm": None if suspects.harm is None else number(suspects.harm[rank]),
                "preview": album.add("train", identifier),
            }
        )
    data = {
        "suspects": entries,
        "labels": [{"value": json.dumps(c), "text": label_text(train.labels.get(c, c))} for c in classes],
        "train": {"checksum": checksum(train), "examples": len(train)},
        "patch": {"kind": KIND, "version": VERSION},
        "key": digest(suspects.ids),
        "previews": album.entries,
        "table": album.table(),
    }
    return rendered(
        "review.html.j2",
        ("review.css",),
        ("elements.js", "rows.js", "review.js"),
        data,
        description,
        size=count(len(suspects.ids), "label"),
        total=f"{len(train):,}",
        notes=suspects.notes,
        remarks=album.remarks(),
        harm=suspects.harm is not None,
        unseen=suspects.held_out is not None,
        quantity=suspects.measurement,
    )
