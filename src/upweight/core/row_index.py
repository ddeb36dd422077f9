"""The index of data frames and series: the ids in it, and whether two of them name the same rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS_SHOWN = 3


def index_of(values: Any) -> Any:
    """The index of a pandas frame or series; None for everything else."""
    return getattr(values, "index", None) if hasattr(values, "iloc") else None


def ids_of(x: Any, n: int) -> NDArray[Any]:
    """The ids in the index of a data frame; 0 … n−1 if it has none.

    Labels that are neither whole numbers nor texts (dates, pairs, decimals) become texts, with a warning.

    Raises:
        ValueError: a label of the index is missing.
    """
    index = index_of(x)
    if index is None:
        return np.arange(n)
    if index.to_frame().isna().any(axis=None):
        raise ValueError(
            "expected an index without missing labels, got one that has some; pass ids=, or reset the index"
        )
    ids, are_labels = labels_as_ids(index)
    if not are_labels:
        warnings.warn(
            f"The labels of the index ({index.dtype}) are neither whole numbers nor texts; as ids they are texts, such "
            f"as {ids[0]!s}. Pass ids= for others.",
            UserWarning,
            stacklevel=3,
        )
    return ids


def labels_as_ids(index: Any) -> tuple[NDArray[Any], bool]:
    """(the labels as ids, whether they are the labels themselves and not texts of them)."""
    values = np.asarray(index)
    if values.dtype.kind in "iuU":
        return values, True
    labels = index.tolist()
    if all(isinstance(label, str) for label in labels):
        return np.array(labels), True
    if all(isinstance(label, int) and not isinstance(label, bool) for label in labels):
        return np.array(labels, dtype=np.int64), True
    texts = index.astype(str).tolist() if index.nlevels == 1 else [f"({', '.join(map(str, pair))})" for pair in labels]
    return np.array(texts), False


def require_index_of_ids(name: str, values: Any, ids: NDArray[Any]) -> None:
    """Raise ValueError if `values` have an index that is neither these ids in this order nor positions from 0."""
    index = index_of(values)
    if index is None or len(index) != len(ids):
        return
    labels = labels_as_ids(index)[0].tolist()
    is_permuted = set(labels) == set(ids.tolist())
    if labels != ids.tolist() and (is_permuted or labels != list(range(len(ids)))):
        got = "the same in another order" if is_permuted else "others"
        raise ValueError(
            f"expected `{name}` to have the ids as its index ({_shown(ids)}), got {got} ({_shown(index)}); pass "
            f"{name}.loc[ids] to pair them by label, or {name}.to_numpy() to pair them by position"
        )


def require_same_index(parts: Mapping[str, Any]) -> None:
    """Raise ValueError if two of these parts have an index, and the labels or their order differ.

    Such parts would be paired by position, whatever their labels say.
    """
    indexes = {name: index for name, part in parts.items() if (index := index_of(part)) is not None}
    if len(indexes) < 2:
        return
    (first_name, first), *others = indexes.items()
    for name, index in others:
        if len(index) == len(first) and not index.equals(first):
            common = first.isin(index).sum()
            got = f"the same labels in another order ({_shown(index)})"
            if common < len(first):
                got = f"one with {common} of these {len(first)} labels ({_shown(index)})"
            raise ValueError(
                f"expected `{name}` to have the index of `{first_name}` ({_shown(first)}), got {got}; pass "
                f"{name}.loc[{first_name}.index] to pair them by label, or {name}.to_numpy() to pair them by position"
            )


def _shown(index: Any) -> str:
    labels = ", ".join(str(label) for label in index[:LABELS_SHOWN].tolist())
    return f"{labels}, …" if len(index) > LABELS_SHOWN else labels
