"""The file of scores: what it holds, and the refusal of values that scores cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import read_archive, stored_array, well_formed, write_archive
from upweight.core.model import Predictions

KIND = "scores"
ID_KINDS = "biufU"  # kinds of dtype that ids have, as numpy's letters
SCALARS = (type(None), bool, int, float, str)
PREFIXES = {"predictions": "", "at_optimum": "at_optimum_"}  # of the names of their arrays


def write_scores(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write the fields of scores, by name, to one file."""
    arrays = {name: fields[name] for name in ("values", "query_ids", "train_ids")}
    if fields["measured"] is not None:
        arrays["measured"] = fields["measured"]
    if fields["half_widths"] is not None:
        arrays["half_widths"] = fields["half_widths"]
    facts = {name: fields[name] for name in ("measurement", "recipe", "diagnostics", "contents", "train_contents")}
    facts["unit"] = str(fields["unit"])
    for name, prefix in PREFIXES.items():
        predictions: Predictions | None = fields[name]
        facts[name] = predictions and {"predicted": predictions.predicted, "classes": predictions.classes}
        if predictions is not None and predictions.probabilities is not None:
            arrays[f"{prefix}probabilities"] = predictions.probabilities
    write_archive(path, KIND, arrays, facts)


def read_scores(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """The fields of the scores in a file, by name; `unit` is still a text. With `mapped`, values stay on disk.

    Raises ValueError for a file that no scores were written to.
    """
    arrays, facts = read_archive(path, KIND, mapped=mapped)
    with well_formed(path):
        query_ids, train_ids = (stored_array(arrays, name, (None,), ID_KINDS) for name in ("query_ids", "train_ids"))
        rows = len(query_ids)
        diagnostics = _object(facts, "diagnostics")
        _require_texts(diagnostics.get("warnings", []))
        if not isinstance(facts["measurement"], str):
            raise TypeError(f"expected the measurement in words, got {facts['measurement']!r}")
        shape = (rows, len(train_ids))
        return {
            "values": stored_array(arrays, "values", shape, finite=False),
            "half_widths": stored_array(arrays, "half_widths", shape, finite=False)
            if "half_widths" in arrays
            else None,
            "query_ids": query_ids,
            "train_ids": train_ids,
            "unit": facts["unit"],
            "measurement": facts["measurement"],
            "recipe": _object(facts, "recipe"),
            "diagnostics": diagnostics,
            "measured": stored_array(arrays, "measured", (rows,), finite=False) if "measured" in arrays else None,
            **{name: _contents(facts.get(name)) for name in ("contents", "train_contents")},
            **{name: _predictions(facts.get(name), arrays, prefix, rows) for name, prefix in PREFIXES.items()},
        }


def _object(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(facts[name], dict):
        raise TypeError(f"expected {name} to be an object of JSON, got {facts[name]!r:.40}")
    return dict(facts[name])


def _require_texts(texts: Any) -> None:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"expected a list of sentences, got {texts!r:.40}")


def _contents(stored: Any) -> tuple[int, int | None] | None:
    """The checksums of the ids and contents of examples."""
    if stored is None:
        return None
    if not isinstance(stored, list) or len(stored) != 2 or type(stored[0]) is not int:
        raise TypeError(f"expected two checksums of examples, got {stored!r:.40}")
    if stored[1] is not None and type(stored[1]) is not int:
        raise TypeError(f"expected two checksums of examples, got {stored!r:.40}")
    return stored[0], stored[1]


def _is_list_of_scalars(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, SCALARS) for part in value)


def _predictions(stored: Any, arrays: Mapping[str, NDArray[np.generic]], prefix: str, rows: int) -> Predictions | None:
    name = f"{prefix}probabilities"
    if stored is None:
        if name in arrays:
            raise ValueError(f"it has {name!r} without predictions")
        return None
    predicted, classes = stored["predicted"], stored["classes"]
    if not isinstance(predicted, list):
        raise TypeError(f"expected a list of predictions, got {predicted!r:.40}")
    predicted = [tuple(value) if _is_list_of_scalars(value) else value for value in predicted]  # of several targets
    one_each = [part for value in predicted for part in (value if isinstance(value, tuple) else (value,))]
    for values in (one_each, classes):
        if not isinstance(values, list) or not all(isinstance(value, SCALARS) for value in values):
            raise TypeError(f"expected a list of predictions or classes, got {values!r:.40}")
    if len(predicted) != rows:
        raise ValueError(f"expected a prediction for each of {rows} queries, got {len(predicted)}")
    probabilities = stored_array(arrays, name, (rows, len(classes)), finite=False) if name in arrays else None
    return Predictions(tuple(predicted), tuple(classes), probabilities)
