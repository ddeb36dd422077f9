"""Previews: how a report shows one example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from upweight.core.input_kinds import columns_of, is_sparse
from upweight.core.marked_picture import Picture
from upweight.core.signals import Audio, Series

MAX_COLUMNS = 24  # of one table row
SHOWN_NUMBERS = 8  # of a list in a row of named values


@dataclass(frozen=True)
class Preview:
    """One example as a report shows it.

    Attributes:
        kind: image, text or table row.
        value: an image array (height, width[, 3 or 4]), a text, or a tuple of (column, value) pairs.
        signal: the recording or the series that the image shows; None for other images.
        marked: the picture with its mask and boxes; None for pictures without.
    """

    kind: Literal["image", "text", "row"]
    value: Any
    signal: Audio | Series | None = None
    marked: Picture | None = None


def preview_of(single: Any, names: list[str] | None) -> Preview:
    """The preview of inputs that hold a single example.

    A table row shows its first columns, a sparse row its largest values.
    """
    if columns_of(single) is not None:
        shown = list(range(min(single.shape[1], MAX_COLUMNS)))
        part = single.iloc[:, shown] if hasattr(single, "iloc") else single[:, shown]  # most columns cost most time
        values = next(part.itertuples(index=False, name=None)) if hasattr(part, "iloc") else part.row(0)
        return _row(names or [str(name) for name in part.columns], values)
    if is_sparse(single):
        row = single.tocsr()
        largest = np.argsort(-np.abs(row.data), kind="stable")[:MAX_COLUMNS]
        pairs = ((row.indices[j], row.data[j].item()) for j in largest)
        return Preview("row", tuple((names[i] if names else f"x{i}", v) for i, v in pairs))
    value = next(iter(single))
    if isinstance(value, Audio | Series | Picture):
        return _of_wrapped(value)
    if isinstance(value, str | Mapping):
        return Preview("text", value) if isinstance(value, str) else _mapping(value)
    array = np.asarray(value)
    if array.ndim >= 2:
        return Preview("image", array)
    flat = array.reshape(-1)
    return _row(names or [f"x{i}" for i in range(len(flat))], flat[:MAX_COLUMNS].tolist())


def _of_wrapped(value: Audio | Series | Picture) -> Preview:
    if isinstance(value, Picture):
        return Preview("image", value.pixels, marked=value)
    return Preview("image", value.picture(), value)


def _mapping(row: Mapping[str, Any]) -> Preview:
    """The texts of a row of named values, or the values, of long ones their beginning."""
    texts = [value for value in row.values() if isinstance(value, str)]
    if texts:
        return Preview("text", "\n".join(texts))
    return _row(list(row), [_shortened(value) for value in row.values()])


def _shortened(value: Any) -> Any:
    array = np.asarray(value)
    if array.ndim == 0:
        return array.item()
    flat = array.reshape(-1)[:SHOWN_NUMBERS].tolist()
    return ", ".join(map(str, flat)) + (f", … ({array.size} in all)" if array.size > SHOWN_NUMBERS else "")


def _row(names: Sequence[str], values: Sequence[Any]) -> Preview:
    return Preview("row", tuple(zip(names, values, strict=False)))  # of the first columns
