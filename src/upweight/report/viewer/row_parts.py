"""The training examples of a query in the viewer: search, sort, return one page of them or all as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.report.viewer.contents import Contents, previews
from upweight.report.viewer.parameters import whole_number
from upweight.report.viewer.search import reading_order
from upweight.report.wording import number

ROWS_PER_PAGE = 25


def rows_of(contents: Contents, parameters: Mapping[str, str]) -> dict[str, Any]:
    """One `page` of the training examples that contain `text` and have this `label`, in the order `sort`."""
    q, places = _selected(contents, parameters)
    pages = max(1, -(-len(places) // ROWS_PER_PAGE))
    page = min(whole_number(parameters, "page", 0), pages - 1)
    part = places[page * ROWS_PER_PAGE : (page + 1) * ROWS_PER_PAGE].tolist()
    row, ranks = contents.methods[0].row(q), contents.methods[0].ranks(q)
    other = contents.methods[1] if len(contents.methods) > 1 else None
    album = contents.album.without_entries()
    examples = contents.list_entries(part, album)
    rows = [
        {
            "place": place,
            "score": number(row[place]),
            "rank": int(ranks[place]),
            "other": None if other is None else number(other.row(q)[place]),
            "otherRank": None if other is None else int(other.ranks(q)[place]),
        }
        for place in part
    ]
    return {
        "at": q,
        "rows": rows,
        "page": page,
        "matching": len(places),
        "scale": number(np.nanmax(np.abs(row))) if np.isfinite(row).any() else None,
        "examples": examples,
        **previews(album),
    }


def rows_as_csv(contents: Contents, parameters: Mapping[str, str]) -> dict[str, Any]:
    """All rows that match, as CSV; no cell begins in a way that a spreadsheet would run as a formula."""
    q, places = _selected(contents, parameters)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(
        ["id", "label", *("score" if i == 0 else "other score" for i in range(len(contents.methods))), "rank"]
    )
    rows, ranks = [method.row(q).tolist() for method in contents.methods], contents.methods[0].ranks(q).tolist()
    for place in places.tolist():
        texts = [_plain_cell(str(contents.ids[place])), _plain_cell(contents.names[contents.codes[place]] or "")]
        writer.writerow([*texts, *(row[place] for row in rows), ranks[place]])
    return {"text": out.getvalue()}


def _selected(contents: Contents, parameters: Mapping[str, str]) -> tuple[int, NDArray[Any]]:
    """A query, and the positions of the matching training examples in the requested order."""
    q = contents.place(parameters, "at", len(contents.entries))
    chosen = np.ones(len(contents.ids), dtype=bool)
    if parameters.get("text", "").strip():
        chosen &= contents.in_train.result().matches(parameters["text"])
    if parameters.get("label", ""):
        chosen &= contents.codes == whole_number(parameters, "label", 0)
    places = np.flatnonzero(chosen)
    keys = _keys(contents, q, parameters.get("sort", "score"))[places].astype(np.float64)
    sign = -1 if parameters.get("down", "1") == "1" else 1
    return q, places[np.argsort(sign * keys, kind="stable")]


def _keys(contents: Contents, q: int, by: str) -> NDArray[Any]:
    """The sort keys of the training examples, (train,)."""
    if by == "score":
        return contents.methods[0].row(q)
    if by == "strength":
        return np.abs(contents.methods[0].row(q))
    if by == "rank":
        return contents.methods[0].ranks(q)
    if by == "other" and len(contents.methods) > 1:
        return contents.methods[1].row(q)
    if by not in ("id", "label"):
        raise ValueError(f"expected rows sorted by rank, id, label, score, strength or other, got {by!r}")
    if by not in contents.order_of:
        names = [str(i) for i in contents.ids] if by == "id" else [name or "" for name in contents.names]
        contents.order_of[by] = reading_order(names)
    order = contents.order_of[by]
    return np.asarray(order if by == "id" else order[contents.codes])


def _plain_cell(text: str) -> str:
    """The text, marked as text if a spreadsheet would take it for a formula."""
    is_formula = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not text.lstrip("+-").replace(".", "").isdigit()
    return "'" + text if is_formula else text
