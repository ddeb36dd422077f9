"""The page of retrieval: for every query, the strongest training examples by exact scores and what found them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upweight.applications.retrieve import Retrieved, RetrievedExample
from upweight.core.examples import Id
from upweight.report.document import rendered
from upweight.report.effect_tables import signed, unit_text
from upweight.report.previews import Album
from upweight.report.wording import cell_text, count, label_text

MAX_QUERIES = 40
MAX_COLUMNS = 8  # of a row
DEFINITION = (
    "Cheap methods choose candidates for every query, and an exact method scores these alone. A score is the "
    "measurement of the query with the training example minus without it. Below every example are its score and the "
    "methods that found it."
)


def retrieved_page(result: Retrieved, description: Sequence[str] = ()) -> str:
    """One section per query: the query itself, its proponents and its opponents."""
    if result.train is None or result.queries is None:
        raise ValueError("expected a result of uw.retrieve, which holds the training set and the queries")
    album = Album(result.train, result.queries)
    queries = result.query_ids.tolist()
    left_out = len(queries) - MAX_QUERIES
    return rendered(
        "prototypes.html.j2",
        ("application.css", "prototypes.css"),
        (),
        None,
        description,
        title="Which of all training examples matter most?",
        facts=[
            count(len(queries), "query"),
            f"{len(result.train):,} training examples",
            f"scored by {result.recipe['method']}",
            unit_text(result.unit),
        ],
        definition=DEFINITION,
        warnings=list(result.diagnostics.get("warnings", ())),
        sections=[_section(result, album, query) for query in queries[:MAX_QUERIES]],
        about=[
            *audit_sentences(result),
            *([f"and {left_out} more queries, in the result"] if left_out > 0 else []),
            *album.remarks(),
        ],
    )


def audit_sentences(result: Retrieved) -> list[str]:
    """Sentences about the audits, or that there was none."""
    certificate = result.certificate
    sentences = [] if certificate is None else [str(certificate)]
    if result.rows_above:
        most = max(result.rows_above.values())
        sentences.append(
            f"With a confidence of {result.confidence:.0%} for each query, at most {most:,} training examples that are "
            "no candidates score higher than its last proponent."
        )
    return sentences or ["Nothing was audited: candidates that no method found are missing without a trace."]


def _section(result: Retrieved, album: Album, query: Id) -> dict[str, Any]:
    rows = [{**_row("", "", [_card(album, "query", query, "")]), "whole": True}]
    for title, examples in (("Proponents", result.proponents(query)), ("Opponents", result.opponents(query))):
        if examples:
            cards = [_card(album, "train", example.id, _note(example)) for example in examples]
            rows.append(_row(title, str(len(cards)), cards))
    return {"title": f"Query {query}", "rows": rows}


def _row(title: str, text: str, cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "count": text, "left_out": 0, "cards": cards}


def _note(example: RetrievedExample) -> str:
    return f"{signed(example.score)} by {', '.join(example.by)}"


def _card(album: Album, side: str, identifier: Id, note: str) -> dict[str, Any]:
    label = label_text(album.sides[side].label(identifier))
    preview = album.sides[side].preview(identifier)
    text = ": ".join(part for part in (f"labelled {label}" if label else "", note) if part)
    card: dict[str, Any] = {"id": str(identifier), "note": text, "kind": preview.kind}
    if preview.kind == "row":
        card["pairs"] = [(str(name), cell_text(value)) for name, value in preview.value[:MAX_COLUMNS]]
        return card
    return {**card, **album.entries[album.add(side, identifier)]}
