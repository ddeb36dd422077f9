"""Previews: how a report shows one example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from upweight.core.input_kinds import columns_of, is_sparse


@dataclass(frozen=True)
class Preview:
    """One example as a report shows it.

    Attributes:
        kind: image, text or table row.
        value: an image array (height, width[, 3 or 4]), a text, or a tuple of (column, value) pairs.
    """

    kind: Literal["image", "text", "row"]
    value: Any


def preview_of(single: Any, names: list[str] | None, most: int = 24) -> Preview:
    """The preview of inputs that hold a single example; of a table row, at most `most` columns."""
    if columns_of(single) is not None:
        values = next(single.itertuples(index=False, name=None)) if hasattr(single, "iloc") else single.row(0)
        return Preview("row", tuple(zip(names or [], values, strict=True))[:most])
    if is_sparse(single):
        row = single.tocsr()
        largest = np.argsort(-np.abs(row.data), kind="stable")[:most]
        pairs = ((row.indices[j], row.data[j].item()) for j in largest)
        return Preview("row", tuple((names[i] if names else f"x{i}", v) for i, v in pairs))
    value = next(iter(single))
    if isinstance(value, str):
        return Preview("text", value)
    array = np.asarray(value)
    if array.ndim >= 2:
        return Preview("image", array)
    columns = names or [f"x{i}" for i in range(array.size)]
    return Preview("row", tuple(zip(columns, array.reshape(-1).tolist(), strict=True))[:most])
