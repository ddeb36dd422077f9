"""Examples over the rows of a data set, with their ids, labels and decoded texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from upweight.core.dataset_rows import as_rows, is_dataset
from upweight.core.examples import Examples
from upweight.core.input_kinds import split_labels
from upweight.models.huggingface.collation import LABELS, tokenizer_of
from upweight.models.huggingface.dataset_rows import column_names, rows_of
from upweight.models.huggingface.decoded_texts import DecodedTexts


def examples(
    dataset: Any, collator: Any = None, *, ids: str | Sequence[int | str] | None = None, labels: Any = None
) -> Examples:
    """The rows of a data set as examples, training set and queries alike.

    A `datasets.Dataset` is not copied: its rows are read from Arrow batch by batch. Labels that are one number per row
    become `y`, so that they can be changed and shown; labels of tokens stay in the rows.

    Args:
        dataset: a `datasets.Dataset`, a list of dicts, a mapping of columns such as a `BatchEncoding`, or sequences of
            token ids (lists of any lengths, an array or memory map). An `Examples` is returned as it is.
        collator: a tokenizer, or a data collator with one, which decodes the texts that reports show.
        ids: the name of a column with one id per row, or the ids; None for positions.
        labels: readable names of the labels, by label; None for those of the data set's `ClassLabel`.

    Raises:
        TypeError: a data set that is streamed, several splits, or texts that are not tokenised.
        ValueError: no rows; columns of different lengths; a column of ids that does not exist or repeats an id.
    """
    if isinstance(dataset, Examples):
        return dataset
    rows = _rows_of_columns(dataset) if isinstance(dataset, Mapping) else as_rows(dataset)
    names = _label_names(rows) if labels is None else labels
    ids, rows = _ids(rows, ids)
    if not len(rows):
        raise ValueError("expected at least one example, got an empty data set; check the filter that made it")
    if not is_dataset(rows) and isinstance(rows[0], str):
        raise TypeError(
            "expected tokenised rows, got texts; tokenise them first: uw.hf.examples(tokenizer(texts), tokenizer)"
        )
    rows, y = _split(rows)
    shown = None
    tokenizer = tokenizer_of(collator)
    if tokenizer is not None and "input_ids" in column_names(rows):
        shown = DecodedTexts(rows, tokenizer, has_own_targets=_targets_are_texts(collator, rows))
    return Examples(rows, y, ids, labels=names, shown=shown)


def _rows_of_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    if any(hasattr(column, "features") for column in columns.values()):
        as_rows(columns)  # says that these are several splits
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected columns of one length, got {lengths}")
    return [{name: column[i] for name, column in columns.items()} for i in range(next(iter(lengths.values()), 0))]


def _ids(rows: Any, ids: Any) -> tuple[Any, Any]:
    """(The ids or None, the rows without the column of ids)."""
    if not isinstance(ids, str) or not len(rows):
        return ids, rows
    if ids not in column_names(rows):
        known = sorted(column_names(rows))
        raise ValueError(f"expected a column {ids!r} with one id per row, got the columns {known}; pass ids=None")
    if is_dataset(rows):
        return rows.with_format(None)[ids][:], rows.remove_columns(ids)
    plain = rows_of(rows)
    return [row[ids] for row in plain], [{k: v for k, v in row.items() if k != ids} for row in plain]


def _split(rows: Any) -> tuple[Any, Any]:
    """(The rows without labels, the labels) for labels that are one number per row; else (rows, None)."""
    if is_dataset(rows):
        return split_labels(rows)
    if not isinstance(rows[0], Mapping):
        return rows, None
    name = next((name for name in LABELS if name in rows[0]), None)
    if name is None or np.ndim(rows[0][name]) > 0:
        return rows, None
    y = [row[name].item() if hasattr(row[name], "item") else row[name] for row in rows]
    return [{k: v for k, v in row.items() if k != name} for row in rows], y


def _label_names(rows: Any) -> dict[Any, str] | None:
    features = rows.features if is_dataset(rows) else {}
    for name in LABELS:
        names = getattr(features.get(name), "names", None)
        if names:
            return dict(enumerate(names))
    return None


def _targets_are_texts(collator: Any, rows: Any) -> bool:
    return getattr(collator, "model", None) is not None and "labels" in column_names(rows)
