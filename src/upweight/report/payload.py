"""The data inside the page: queries, training examples and scores as compact JSON of limited size."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.model import Predictions
from upweight.core.scores import Scores
from upweight.report.follow import course_data
from upweight.report.overview_section import overview_data
from upweight.report.page_limits import PageLimits
from upweight.report.previews import Album
from upweight.report.verification import check_data, intervals
from upweight.report.wording import count, label_text, number, regression_text, wording

if TYPE_CHECKING:
    from upweight.applications.follow import Course
    from upweight.evaluate.verify import Check

STRONGEST_SHOWN = 10  # per query and side
MAX_CLASSES = 12  # with more, only the most probable are shown
PROBABLE_CLASSES_SHOWN = 5


def payload(
    scores: Scores,
    train: Examples,
    queries: Examples,
    check: Check | None,
    course: Course | None = None,
    limits: PageLimits | None = None,
) -> dict[str, Any]:
    """All data that the script of the page reads."""
    limits = limits or PageLimits()
    m = min(len(scores.query_ids), limits.queries)
    album = Album(train, queries, limits)
    positions, embedded, notes = _embedded(scores.values[:m], limits.scores)
    position_of = {identifier: position for position, identifier in enumerate(scores.train_ids[positions].tolist())}
    tops = [_top(scores, query, position_of) for query in scores.query_ids[:m].tolist()]
    ranges, interval_notes = intervals(check, scores, [_strongest_first(top) for top in tops])
    entries = []
    for index in range(m):
        entry = query_entry(scores, queries, index)
        entry["preview"] = album.add("query", scores.query_ids[index].item())
        entry["top"] = {
            side: [[position_of[i], score, ranges.get((index, i))] for i, score in attributions]
            for side, attributions in tops[index].items()
        }
        entries.append({**entry, **embedded[index]})
    shown = sorted({i for top in tops for side in top.values() for i, _ in side}, key=position_of.__getitem__)
    data = {
        "words": words_data(scores),
        "classes": has_classes(scores, train),
        "queries": entries,
        "train": _train(scores, train, positions, album)
        | {"previews": {str(position_of[i]): album.add("train", i) for i in shown}, "total": len(scores.train_ids)},
        "check": None if check is None else check_data(check, scores.query_ids[:m].tolist()),
    }
    if course is not None:
        ids = [[i for side in top.values() for i, _ in side] for top in tops]
        data["course"] = course_data(course, scores.query_ids[:m].tolist(), ids, position_of)
    if m < len(scores.query_ids):
        data["queriesLeftOut"] = (
            f"The first {m} of {count(len(scores.query_ids), 'query')} are on this page; "
            "write the others to a second page."
        )
    on_page = {identifier: position for position, identifier in enumerate(scores.query_ids[:m].tolist())}
    data["overview"] = overview_data(scores, queries, on_page, album)
    data["table"] = album.table()
    data["tableNotes"] = notes
    data["notes"] = interval_notes + album.remarks()
    data["previews"] = album.entries
    return data


def words_data(scores: Scores) -> dict[str, Any]:
    """The words for the measurement, for the script of the page."""
    words = wording(scores)
    return {
        "measurement": words.measurement,
        "quantity": words.quantity,
        "unit": words.unit,
        "loss": words.is_loss,
        "effect": words.calibrated,
        "refuted": words.refuted,
    }


def has_classes(scores: Scores, train: Examples) -> bool:
    """Whether labels are classes, which are equal or different; else they are regression targets."""
    if scores.predictions is not None:
        return bool(scores.predictions.classes)
    return train.y is not None and train.y.ndim == 1 and train.y.dtype.kind != "f"


def _embedded(values: NDArray[np.float64], limit: int) -> tuple[NDArray[np.intp], list[dict[str, Any]], list[str]]:
    """The positions of the training examples on the page, the scores of each query, and notes on what was left out.

    All scores are on the page if there are at most `limit`; otherwise the highest and the lowest scores of each query.
    """
    m, n = values.shape
    if m * n <= limit:
        return np.arange(n), [{"scores": _base64(row, "<f4")} for row in values], []
    per_end = max(STRONGEST_SHOWN, limit // (4 * m))  # a position and a score, at two ends
    chosen = [_ends(row, per_end) for row in values]
    positions = np.unique(np.concatenate(chosen))
    rows = [
        {"places": _base64(np.searchsorted(positions, columns), "<u4"), "scores": _base64(values[q, columns], "<f4")}
        for q, columns in enumerate(chosen)
    ]
    note = (
        f"{count(m * n, 'score')} would make this page too large ({limit:,} fit). It holds, for each query, the "
        f"{per_end:,} highest and the {per_end:,} lowest scores of {count(n, 'training example')}; the others are in "
        "the scores themselves, or in a report of fewer queries."
    )
    return positions, rows, [note]


def _ends(row: NDArray[np.float64], per_end: int) -> NDArray[np.intp]:
    if len(row) <= 2 * per_end:
        return np.arange(len(row))
    # A stable order breaks ties as Scores.proponents and Scores.opponents do.
    return np.union1d(np.argsort(-row, kind="stable")[:per_end], np.argsort(row, kind="stable")[:per_end])


def _top(scores: Scores, query: Id, position_of: dict[Id, int]) -> dict[str, list[tuple[Id, float | None]]]:
    sides = {
        "proponents": scores.proponents(query, STRONGEST_SHOWN),
        "opponents": scores.opponents(query, STRONGEST_SHOWN),
    }
    return {
        side: [(a.id, number(a.score)) for a in strongest if a.id in position_of] for side, strongest in sides.items()
    }


def _strongest_first(top: dict[str, list[tuple[Id, float | None]]]) -> list[Id]:
    return [i for i, _ in sorted(top["proponents"] + top["opponents"], key=lambda pair: -abs(pair[1] or 0.0))]


def query_entry(scores: Scores, queries: Examples, index: int) -> dict[str, Any]:
    """The id, the labels, the measurement and the probabilities of one query."""
    identifier = scores.query_ids[index].item()
    label = label_text(queries.label(identifier))
    entry: dict[str, Any] = {"id": str(identifier), "label": label, "predicted": None, "wrong": False}
    if scores.measured is not None:
        entry["measured"] = number(scores.measured[index])
    predictions = scores.predictions
    if predictions is None:
        return entry
    if not predictions.classes:
        entry["predicted"] = _predicted_number(scores, index)
        if scores.at_optimum is not None:
            entry["atOptimum"] = regression_text(scores.at_optimum.predicted[index])
        return entry
    entry["predicted"] = _named(predictions.predicted[index], queries)
    entry["wrong"] = label is not None and entry["predicted"] != label
    if scores.at_optimum is not None:
        entry["atOptimum"] = _with_probability(scores.at_optimum, index, queries)
    if predictions.probabilities is None:
        return entry
    names = [_named(label, queries) for label in predictions.classes]
    chances = np.asarray(predictions.probabilities[index], dtype=np.float64)
    order = list(range(len(names)))
    if len(names) > MAX_CLASSES:
        order = np.argsort(-chances, kind="stable")[:PROBABLE_CLASSES_SHOWN].tolist()
        order += [c for c, name in enumerate(names) if name == label and c not in order]
    entry["probabilities"] = [[names[c], number(chances[c])] for c in order]
    entry["classes"] = len(names)
    return entry


def _predicted_number(scores: Scores, index: int) -> str | None:
    """A predicted target; None if the model has no prediction and gives −loss, which is not one, in its place."""
    value = None if scores.predictions is None else scores.predictions.predicted[index]
    if value is None or (
        wording(scores).is_loss
        and scores.measured is not None
        and np.ndim(value) == 0
        and np.isclose(float(value), float(scores.measured[index]), rtol=1e-6, atol=0.0)
    ):
        return None
    return regression_text(value)


def _with_probability(predictions: Predictions, index: int, queries: Examples) -> str:
    """A predicted class with its probability."""
    name = _named(predictions.predicted[index], queries)
    if predictions.probabilities is None:
        return str(name)
    return f"{name} with probability {100 * float(predictions.probabilities[index].max()):.1f}%"


def _named(value: Any, examples: Examples) -> str | None:
    """A predicted class as a readable label of the data set."""
    value = value.item() if isinstance(value, np.generic) else value
    readable = examples.labels.get(value, value) if isinstance(value, int | float | str) else value
    return label_text(readable)


def _train(scores: Scores, train: Examples, positions: NDArray[np.intp], album: Album) -> dict[str, Any]:
    ids = scores.train_ids[positions].tolist()
    is_range = all(isinstance(i, int) for i in ids) and ids == list(range(len(ids)))
    names, codes = label_codes(train, ids)
    width = 1 if len(names) <= 256 else 4
    return {
        "ids": {"count": len(ids)} if is_range else [str(i) for i in ids],
        "labels": {"names": names, "codes": _base64(codes, f"<u{width}"), "width": width},
        "sheet": album.sheet(ids),
        "excerpts": album.excerpts(ids),
    }


def label_codes(train: Examples, ids: list[Id]) -> tuple[list[str | None], NDArray[np.intp]]:
    """The distinct label texts, and the index of the one that each of these training examples has."""
    y = None if train.y is None else train.y[train.positions(ids)]
    if y is None or y.ndim != 1 or y.dtype.hasobject:
        texts = [label_text(train.label(i)) for i in ids]
        code = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        return list(code), np.array([code[text] for text in texts], dtype=np.intp)
    _, first, codes = np.unique(y, return_index=True, return_inverse=True)
    return [label_text(train.label(ids[position])) for position in first.tolist()], codes


def _base64(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()
