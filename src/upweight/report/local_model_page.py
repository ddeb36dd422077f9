"""The pages of a local model and of a global explanation: features with bars, fidelity, and examples behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.global_explanation import GlobalExplanation
from upweight.applications.interpretable.pictures import PictureFeatures
from upweight.applications.interpretable.texts import TextFeatures
from upweight.applications.local_model import LocalModel
from upweight.applications.surrogate import Surrogate
from upweight.core.examples import Examples, Id
from upweight.report.document import rendered
from upweight.report.effect_tables import EffectRow, effect_table, signed
from upweight.report.heatmap import coloured, picture_uri
from upweight.report.previews import Album
from upweight.report.wording import cell_text, count, label_text, short, significant

MAX_CARDS = {"image": 24, "text": 8, "row": 8}
MAX_COLUMNS = 14  # of a row
MAX_FEATURES = 30  # of the importance
STRENGTHS = 3  # of marked words
TITLES = {"random": "On random neighbours", "influential": "On influential training examples"}
TEXTS = {
    "random": "As in LIME.",
    "influential": "Neighbours are made of, and weighted by, the training examples that influence the prediction.",
}
NEIGHBOURS = {
    "random": "random ones",
    "influential": "made of other influential training examples",
    "training": "the nearest training examples",
}
DEFINITION = (
    "A coefficient is how much the output rises, to a linear model that imitates the model near the query, when the "
    "feature becomes true: blue raises it, orange lowers it."
)


def local_model_page(result: LocalModel, description: Sequence[str] = ()) -> str:
    """The query, both surrogates side by side, their fidelity, and the training examples behind the second."""
    album = Album(result.query if result.train is None else result.train, result.query)
    identifier = result.query.ids[0].item()
    return rendered(
        "local_model.html.j2",
        ("application.css", "local_model.css"),
        (),
        None,
        description,
        title="Which features decided this prediction?",
        facts=[
            f"query {identifier}",
            f"{result.output} {significant(result.value, 3)}",
            *([f"training examples by {result.diagnostics['method']}"] if result.influential else []),
        ],
        definition=DEFINITION,
        warnings=result.diagnostics["warnings"],
        query=_query(result, album),
        groups=[{"title": "What the model looked at", "sides": [_side(result, name) for name in result.surrogates]}],
        fidelity=_fidelity(result),
        examples=_examples(result, album),
        about=album.remarks(),
    )


def global_explanation_page(result: GlobalExplanation, description: Sequence[str] = ()) -> str:
    """The importance of features, then the picked local models."""
    what = "training example" if result.pick.of == "influential" else "query"
    largest = list(result.importance.items())[:MAX_FEATURES]
    importance = effect_table("", "feature", [], "", [EffectRow(n, [significant(v, 3)], v) for n, v in largest])
    side = {"title": "", "text": _shown(len(largest), len(result.importance)), "number": "importance"}
    groups = [{"title": "Which features matter", "sides": [{**side, "pieces": None, "table": importance}]}]
    picked = []
    for local, coverage in zip(result.picked, result.coverage.tolist(), strict=True):
        text = f"{local.output} {significant(local.value, 3)}. Shown so far: {coverage:.0%} of the importance."
        heading = f"{what.capitalize()} {local.query.ids[0].item()}"
        picked.append(_bars(local, result.surrogate_of(local), heading, text))
    groups.append({"title": "Local models that together show most of them", "sides": picked})
    return rendered(
        "local_model.html.j2",
        ("application.css", "local_model.css"),
        (),
        None,
        description,
        title="Which features does this model use?",
        facts=[
            f"{len(result.picked)} of {count(len(result.candidates), 'local model')}",
            "of influential training examples" if result.pick.of == "influential" else "of queries",
            count(len(result.importance), "feature"),
        ],
        definition=f"{DEFINITION} The importance of a feature is the root of the sum of its |coefficients| over all "
        "local models. They are picked one by one, each for the importance of features that those before do not show.",
        warnings=result.diagnostics["warnings"],
        query=None,
        groups=groups,
        fidelity=None,
        examples=None,
        about=[],
    )


def _shown(shown: int, total: int) -> str:
    return "" if shown == total else f"The largest {shown} of {total:,}."


def _query(result: LocalModel, album: Album) -> dict[str, Any] | None:
    """The query as pictures with the superpixels of both surrogates, or as columns and values; None for a text."""
    identifier = result.query.ids[0].item()
    preview, title = result.query.preview(identifier), f"Query {identifier}"
    if isinstance(result.features, PictureFeatures):
        entry = album.entries[album.add("query", identifier)]
        pictures = [{"uri": entry["uri"], "text": "query"}] if entry["kind"] == "image" else []
        for name, surrogate in result.surrogates.items():
            heat = _heat(result.features.segments, surrogate)
            pictures.append({"uri": picture_uri(coloured(heat)), "text": f"{TITLES[name].lower()}: superpixels"})
        return {"title": title, "pictures": pictures, "pairs": None}
    if preview.kind != "row":
        return None
    pairs = [(str(name), cell_text(value)) for name, value in preview.value[:MAX_COLUMNS]]
    return {"title": title, "pictures": None, "pairs": pairs}


def _heat(segments: NDArray[np.intp], surrogate: Surrogate) -> NDArray[np.float64]:
    coefficients = np.zeros(len(surrogate.names))
    coefficients[surrogate.features] = surrogate.coefficients
    return np.asarray(coefficients[segments])


def _side(result: LocalModel, name: str) -> dict[str, Any]:
    local_value = result.surrogates[name].predict(result.neighbourhoods[name].rows[:1])[0]
    own, of_model = significant(local_value, 3), significant(result.value, 3)
    text = f"{TEXTS[name]} It says {own} of the query; the model {of_model}."
    return _bars(result, result.surrogates[name], TITLES[name], text)


def _bars(local: LocalModel, surrogate: Surrogate, title: str, text: str) -> dict[str, Any]:
    rows = [EffectRow(name, [signed(value)], value) for name, value in surrogate.effects.items()]
    return {
        "title": title,
        "text": text,
        "number": "coefficient",
        "pieces": _marked(local.features, surrogate) if isinstance(local.features, TextFeatures) else None,
        "table": effect_table("", "feature", [], "", rows),
    }


def _marked(features: TextFeatures, surrogate: Surrogate) -> list[dict[str, str]]:
    """The text in pieces; words with a coefficient are marked, by three strengths."""
    largest = float(np.abs(surrogate.coefficients).max(initial=0.0)) or 1.0
    pieces = []
    for piece in features.pieces:
        coefficient = surrogate.effects.get(piece, 0.0)
        strength = int(np.ceil(STRENGTHS * abs(coefficient) / largest))
        mark = f"{'pro' if coefficient > 0 else 'opp'}-{strength}" if strength else ""
        pieces.append({"text": piece, "mark": mark})
    return pieces


def _fidelity(result: LocalModel) -> dict[str, Any]:
    rows = []
    for kind in dict.fromkeys(fidelity.neighbours for fidelity in result.fidelity):
        both = [result.fidelity_of(name, kind) for name in result.surrogates]
        cells = [text for fidelity in both for text in (short(fidelity.r2), significant(fidelity.error, 3))]
        rows.append({"name": f"{NEIGHBOURS[kind]} ({both[0].count:,})", "cells": cells})
    return {"columns": [f"{name}: {text}" for name in result.surrogates for text in ("R²", "error")], "rows": rows}


def _examples(result: LocalModel, album: Album) -> dict[str, Any] | None:
    if not result.examples or result.train is None:
        return None
    kind = result.train.preview(result.train.ids[0].item()).kind
    cards = [
        {**_card(album, result.train, a.id, MAX_COLUMNS), "note": _note(result.train, a.id, a.score)}
        for a in result.examples[: MAX_CARDS[kind]]
    ]
    text = f"The largest |scores| of the query ({result.diagnostics['measurement']}); every fourth is held out."
    return {"title": "Influential training examples", "text": text, "cards": cards, "count": len(result.examples)}


def _note(train: Examples, identifier: Id, score: float) -> str:
    label = label_text(train.label(identifier))
    return ", ".join([*([] if label is None else [f"label {label}"]), f"score {signed(score)}"])


def _card(album: Album, train: Examples, identifier: Id, columns: int) -> dict[str, Any]:
    """What a card shows of one training example."""
    preview = train.preview(identifier)
    card: dict[str, Any] = {"id": str(identifier), "kind": preview.kind}
    if preview.kind == "row":
        card["pairs"] = [(str(name), cell_text(value)) for name, value in preview.value[:columns]]
        return card
    return {**card, **album.entries[album.add("train", identifier)]}
