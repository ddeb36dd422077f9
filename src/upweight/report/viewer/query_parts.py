"""The parts of a viewer about queries: a list of them, one of them, and one beside a training example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from upweight.report.page import method_name
from upweight.report.viewer.contents import Contents, previews
from upweight.report.viewer.parameters import whole_number
from upweight.report.viewer.ranked import agreement
from upweight.report.wording import number

QUERIES_PER_PAGE = 50
LIST_BYTES = 200_000  # of the cells of tables behind a list of queries
LINE = 200  # characters of a text in a list
AFFECTED = 6  # queries that one training example raises or lowers most


def list_queries(contents: Contents, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Queries that have a `text`, a page at a time: the one of this number, or the one with the query `at`."""
    chosen = np.ones(len(contents.entries), dtype=bool)
    if parameters.get("text", "").strip():
        chosen &= contents.in_queries.result().matches(parameters["text"])
    if parameters.get("wrong") == "1":
        chosen &= [entry["wrong"] for entry in contents.entries]
    places = np.flatnonzero(chosen)
    page = whole_number(parameters, "page", 0)
    if "at" in parameters:
        page = int(np.searchsorted(places, contents.place(parameters, "at", len(contents.entries)))) // QUERIES_PER_PAGE
    album = contents.album.without_entries(LIST_BYTES)
    part = places[page * QUERIES_PER_PAGE : (page + 1) * QUERIES_PER_PAGE].tolist()
    rows = [{**contents.brief(q), "preview": album.add("query", contents.query_id(q))} for q in part]
    for entry in album.entries:
        entry.update({"text": entry["text"][:LINE]} if "text" in entry else {})
    return {"rows": rows, "total": len(places), "page": page, "size": QUERIES_PER_PAGE, **previews(album)}


def one_query(contents: Contents, parameters: Mapping[str, str]) -> dict[str, Any]:
    """One query with its strongest training examples, by every method; by its place `at`, or by its `id`."""
    if "id" in parameters:
        ids = {entry["id"]: place for place, entry in enumerate(contents.entries)}
        if parameters["id"] not in ids:
            raise LookupError(f"no query has the id {parameters['id']!r}")
        q = ids[parameters["id"]]
    else:
        q = contents.place(parameters, "at", len(contents.entries))
    album = contents.album.without_entries()
    entry = {**contents.entries[q], "preview": album.add("query", contents.query_id(q))}
    tops = [contents.top(method, q) for method in contents.methods]
    shown = dict.fromkeys(place for top in tops for side in top.values() for place, *_ in side)
    ranges = contents.intervals(q, [place for side in tops[0].values() for place, *_ in side])
    entry["top"] = {side: [[p, s, ranges.get(p)] for p, s, _ in listed] for side, listed in tops[0].items()}
    both = None
    if len(tops) > 1:
        both = {"tops": tops, "agreement": agreement(contents.methods[0], contents.methods[1], q)}
    examples = {place: contents.brief_example(place, album) for place in shown}
    return {"at": q, "entry": entry, "both": both, "examples": examples, **previews(album)}


def one_example(contents: Contents, parameters: Mapping[str, str]) -> dict[str, Any]:
    """One training example beside one query, its scores by every method, and the queries that it affects most."""
    q = contents.place(parameters, "at", len(contents.entries))
    place = contents.place(parameters, "row", len(contents.ids))
    album = contents.album.without_entries()
    entry = {**contents.entries[q], "preview": album.add("query", contents.query_id(q))}
    scores = [
        {"method": method_name(m.scores), "score": number(m.row(q)[place]), "rank": int(m.ranks(q)[place])}
        for m in contents.methods
    ]
    column = contents.methods[0].column(place)
    known = column[np.isfinite(column)]
    sides = {
        side: [
            {**contents.brief(at), "score": number(column[at])}
            for at in np.argsort(-sign * column, kind="stable")[:AFFECTED].tolist()
            if sign * column[at] > 0
        ]
        for side, sign in (("raised", 1), ("lowered", -1))
    }
    return {
        "at": q,
        "row": place,
        "entry": entry,
        "examples": {place: contents.brief_example(place, album)},
        "scores": scores,
        "interval": contents.intervals(q, [place]).get(place),
        "mean": number(known.mean()) if len(known) else None,
        "queries": sides,
        **previews(album),
    }


def whole_set(contents: Contents, _: Mapping[str, str]) -> dict[str, Any]:
    """All queries together. It is requested after the first query, when there is time to prepare the search too."""
    contents.in_train.start()
    contents.in_queries.start()
    album = contents.album.without_entries()
    places = {identifier: place for place, identifier in enumerate(contents.scores.query_ids.tolist())}
    return {**contents.whole.data(places, album), **previews(album)}
