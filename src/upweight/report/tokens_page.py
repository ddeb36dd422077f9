"""The page of token scores: each query beside the training texts with the strongest effect on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from upweight.applications.common_spans import common_spans
from upweight.applications.token_scores_result import SequenceTokens, TokenScores
from upweight.core.examples import Id
from upweight.core.scores import Unit
from upweight.report.document import rendered
from upweight.report.effect_tables import signed
from upweight.report.token_markup import LEVELS, MarkedText, level_edge
from upweight.report.wording import count, label_text

MAX_QUERIES = 20
NOTABLE_REST = 0.01  # share of a score that belongs to no token, above which it is mentioned
DEFINITION = (
    "Blue tokens raise the measurement of the query, orange ones lower it; the darker, the more. What both texts have "
    "in common, word for word, is underlined."
)
KINDS = {
    "target": (
        "Scores by target token",
        "The score of a token is the effect of having learned to predict it. A prompt is not predicted and has none. "
        "By position of the computation the same scores are divided among other tokens.",
    ),
    "position": (
        "Scores by position of the computation",
        "The score of a token is what its position contributes to the gradient of the whole text. Position t reads "
        "token t and serves all later predictions: it is not the effect of having learned token t, which scores by "
        "target token show.",
    ),
}


def tokens_page(result: TokenScores, description: Sequence[str] = ()) -> str:
    """One section per query, with its training texts beside it."""
    queries = list(result.queries)
    title, kind = KINDS[result.by]
    unit = "effects, in the unit of the measurement" if result.unit is Unit.EFFECT else "a ranking; sizes mean nothing"
    return rendered(
        "tokens.html.j2",
        ("application.css", "tokens.css"),
        ("tokens.js",),
        None,
        description,
        title="Which tokens of the training texts?",
        facts=[
            count(len(queries), "query"),
            str(result.recipe.get("method", "")),
            f"measured: {result.measurement}",
            f"{result.unit} ({unit})",
        ],
        kind={"title": title, "text": kind},
        definition=DEFINITION,
        warnings=result.diagnostics["warnings"],
        sections=[_section(result, query) for query in queries[:MAX_QUERIES]],
        left_out=max(0, len(queries) - MAX_QUERIES),
        about=[
            "Tokens and what is beside them add up to the score of the text. Training texts are those with the largest "
            "|score|. Long texts are folded where nothing is strong or in common.",
        ],
    )


def _section(result: TokenScores, query: Id) -> dict[str, Any]:
    """The query with its training texts, coloured on one scale."""
    text, sequences = result.queries[query], result.sequences[query]
    largest = max((float(np.abs(s.values).max(initial=0.0)) for s in sequences), default=0.0)
    in_query = np.zeros(len(text), dtype=np.intp)
    shown = [_shown(result, query, s, largest, in_query) for s in sequences]
    measured = np.zeros(len(text), dtype=bool)
    if result.span is not None:
        measured[slice(*result.span)] = True
    values = np.zeros(len(text)) if text.values is None else text.values
    strongest = float(np.abs(values).max(initial=0.0))
    return {
        "query": str(query),
        "label": label_text(result.query_examples.label(query)),
        "text": MarkedText(text.tokens, values, text.targets, in_query, measured).html(strongest),
        "is_split": bool(strongest),
        "scale": _scale(largest),
        "texts": shown,
    }


def _shown(result: TokenScores, query: Id, sequence: SequenceTokens, largest: float, in_query: Any) -> dict[str, Any]:
    """One training text; the spans that it shares with the query are entered into `in_query`."""
    underlined = np.zeros(len(sequence.text), dtype=np.intp)
    spans = common_spans(result.queries[query].tokens, sequence.text.tokens)
    for span in reversed(spans):  # so that a longer one wins
        place = slice(span.first, span.first + span.length)
        number = int(in_query[place].max(initial=0)) or int(in_query.max(initial=0)) + 1
        in_query[place] = np.where(in_query[place] > 0, in_query[place], number)
        underlined[span.second : span.second + span.length] = number
    text = MarkedText(
        sequence.text.tokens,
        sequence.values,
        sequence.text.targets,
        underlined,
        np.zeros(len(sequence.text), dtype=bool),
    )
    rest = abs(sequence.rest) > NOTABLE_REST * abs(sequence.score)
    return {
        "id": str(sequence.id),
        "score": signed(sequence.score),
        "side": "pro" if sequence.score > 0 else "opp",
        "label": label_text(result.train.label(sequence.id)),
        "length": len(sequence.text),
        "rest": signed(sequence.rest) if rest else "",
        "common": sum(span.length for span in spans),
        "text": text.html(largest),
    }


def _scale(largest: float) -> list[dict[str, str]]:
    """The colours with the largest score of each, from orange to blue."""
    if not largest:
        return []
    edges = [
        (f"{side}{level}", sign * level_edge(level, largest))
        for side, sign in (("n", -1), ("p", 1))
        for level in range(1, LEVELS + 1)
    ]
    ordered = sorted(edges, key=lambda edge: edge[1])
    named = {f"n{LEVELS}", "n3", "p3", f"p{LEVELS}"}
    return [{"style": style, "value": signed(value) if style in named else ""} for style, value in ordered]
