"""The page of shared inputs: what decides each query beside what decides the training examples behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.shared_inputs_result import SharedExample, SharedInputs
from upweight.core.erasing import WORD, has_texts
from upweight.core.examples import Id
from upweight.core.input_attributions import InputAttributions
from upweight.core.marked_picture import picture_sides
from upweight.report.document import rendered
from upweight.report.effect_tables import signed
from upweight.report.heatmap import coloured, per_pixel, picture_uri
from upweight.report.previews import Album
from upweight.report.wording import cell_text, count, label_text, significant

MAX_QUERIES = 20
MAX_COLUMNS = 8  # of one example
MAX_WORDS = 300  # of one text
SHARED_NAMED = 6  # parts that are named
LEVELS = 4  # of colour behind a word
FAINT = 0.1  # share of the largest attribution below which a word has no colour
SIGNED = "Blue raises the output, orange lowers it; colours and bars are relative to the largest of each example."
UNSIGNED = "The stronger the colour, the more it matters, for or against; relative to the largest of each example."
SAME_OUTPUT = (
    "The parts of training examples are attributed for the output that was chosen for the query. “In common” is the "
    "share of the attributions that both have at the same parts, with the same sign."
)


def inputs_section(result: SharedInputs, positions: Mapping[Id, int]) -> dict[str, Any]:
    """The part of a report of the queries with these positions on its page."""
    queries = result.queries
    album = Album(next(iter(result.train.values())).examples, queries.examples)
    ids = [i for i in queries.examples.ids.tolist() if i in positions]
    sections = [{**_section(result, album, i), "position": positions[i]} for i in ids]
    what = f"{type(queries.recipe).__name__} of the {queries.described}, by {queries.parts}."
    return {"definition": f"{what} {_colours(queries)} {SAME_OUTPUT}", "sections": sections}


def inputs_page(result: SharedInputs, description: Sequence[str] = ()) -> str:
    """One section per query, with its training examples beside it."""
    queries = result.queries
    train = next(iter(result.train.values()))
    album = Album(train.examples, queries.examples)
    ids = queries.examples.ids.tolist()
    return rendered(
        "inputs.html.j2",
        ("application.css", "inputs.css"),
        (),
        None,
        description,
        title="Which parts of the input decide, in the queries and in the training examples behind them?",
        facts=[
            count(len(ids), "query"),
            f"{type(queries.recipe).__name__} of the {queries.described}",
            f"by {queries.parts}",
            *_criteria(result),
        ],
        definition=f"{_colours(queries)} The number of a training example is its score for "
        f"{result.measurement} of the query: positive if it raises it.",
        warnings=result.diagnostics["warnings"],
        sections=[_section(result, album, i) for i in ids[:MAX_QUERIES]],
        left_out=max(0, len(ids) - MAX_QUERIES),
        about=[
            f"Training examples have the largest |score| for the query. {SAME_OUTPUT}",
            *album.remarks(),
        ],
    )


def _colours(attributions: InputAttributions) -> str:
    return SIGNED if attributions.is_signed else UNSIGNED


def _criteria(result: SharedInputs) -> list[str]:
    if result.necessity is None or result.sufficiency is None:
        return []
    need, enough = result.necessity, result.sufficiency
    facts = []
    for ordering, good in ((need, "low is good"), (enough, "high is good")):
        area, random = (significant(float(a.mean()), 2) for a in (ordering.areas, ordering.random_areas))
        facts.append(f"{ordering.criterion} {area} (random {random}; {good})")
    return facts


def _section(result: SharedInputs, album: Album, query: Id) -> dict[str, Any]:
    queries, train = result.queries, result.train[query]
    position = int(queries.examples.positions([query])[0])
    target = queries.targets[position]
    order = _order(queries, position)
    examples = result.examples[query]
    return {
        "query": str(query),
        "target": label_text(target),
        "label": label_text(queries.examples.label(query)),
        "card": _card(queries, position, album, "query", order),
        "examples": [
            {
                "id": str(example.id),
                "score": signed(example.score),
                "side": "pro" if example.score > 0 else "opp",
                "label": label_text(train.examples.label(example.id)),
                "overlap": f"{example.overlap:.0%}",
                "shared": _named(example, queries),
                "card": _card(train, j, _album(train, result, album), "train", order),
            }
            for j, example in enumerate(examples)
        ],
    }


def _album(train: InputAttributions, result: SharedInputs, album: Album) -> Album:
    """The album of the training examples of one query; pictures keep the scale of the page."""
    own = Album(train.examples, result.queries.examples)
    own.scale = album.scale
    return own


def _named(example: SharedExample, queries: InputAttributions) -> str:
    """The parts that decide both, by name; pixels have none."""
    if queries.parts == "numbers" or not example.parts:
        return ""
    return ", ".join(part.name for part in example.parts[:SHARED_NAMED])


def _order(attributions: InputAttributions, position: int) -> list[str]:
    """The names of the query's parts, largest attribution first."""
    order = np.argsort(-np.abs(attributions.values[position].ravel()), kind="stable")
    return [attributions.names[position][j] for j in order.tolist()]


def _card(
    attributions: InputAttributions, position: int, album: Album, side: str, order: Sequence[str]
) -> dict[str, Any]:
    """What is shown of one example: a picture with its heat map, a text with coloured words, or columns with bars."""
    identifier = attributions.examples.ids[position].item()
    values, preview = attributions.values[position], attributions.examples.preview(identifier)
    if attributions.parts == "words":
        return {"kind": "text", "pieces": _pieces(attributions, position)}
    if preview.kind == "image":
        heat = per_pixel(values, picture_sides(preview.value))
        entry = album.entries[album.add(side, identifier)]
        if heat is not None and entry["kind"] == "image":
            return {"kind": "image", "uri": entry["uri"], "heat": picture_uri(coloured(heat))}
    return {"kind": "row", "columns": _columns(attributions, position, order)}


def _columns(attributions: InputAttributions, position: int, order: Sequence[str]) -> list[dict[str, Any]]:
    """The columns that matter most in the query, with their values and attributions in this example."""
    place = {name: j for j, name in enumerate(attributions.names[position])}
    flat, contents = attributions.values[position].ravel(), attributions.contents[position]
    largest = float(np.abs(flat).max()) or 1.0
    return [
        {
            "name": name,
            "value": _value(contents[place[name]]),
            "attribution": signed(float(flat[place[name]])),
            "up": bool(flat[place[name]] > 0),
            "width": round(50 * abs(float(flat[place[name]])) / largest, 2),
        }
        for name in order[:MAX_COLUMNS]
        if name in place
    ]


def _value(value: Any) -> str:
    return significant(value, 4) if isinstance(value, float) and math.isfinite(value) else cell_text(value)


def _pieces(attributions: InputAttributions, position: int) -> list[dict[str, str]]:
    """The text in pieces, each with the class of its colour."""
    styles = _styles(attributions.values[position])[:MAX_WORDS]
    if not has_texts(attributions.examples):
        return [
            {"text": f"{word} ", "style": style}
            for word, style in zip(attributions.names[position], styles, strict=False)
        ]
    text, end, pieces = attributions.examples.x[position], 0, []
    for match, style in zip(WORD.finditer(text), styles, strict=False):
        pieces += [{"text": text[end : match.start()], "style": ""}, {"text": match.group(), "style": style}]
        end = match.end()
    is_cut = len(styles) == MAX_WORDS
    return [*pieces, {"text": " …" if is_cut else text[end:], "style": ""}]


def _styles(values: NDArray[np.float64]) -> list[str]:
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    styles = []
    for value in values.ravel().tolist():
        level = math.ceil(LEVELS * abs(value) / largest) if abs(value) >= FAINT * largest else 0
        styles.append(f"{'up' if value > 0 else 'down'}{level}" if level else "")
    return styles
