"""The ids of the rows of a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def with_ids(frame: pandas.DataFrame, target: str, identifier: str | None, name: str) -> pandas.DataFrame:
    """The frame indexed by the identifier column; without one, by its own index, or by row number from 0.

    Raises:
        KeyError: the target or identifier column does not exist. `name` is that of the file, for the message.
        ValueError: ids are missing or repeated.
    """
    from pandas.api import types

    for column in filter(None, (target, identifier)):
        if column not in frame.columns:
            raise KeyError(f"{name} has no column {column!r}; it has {', '.join(frame.columns[:20])}")
    if identifier is None:
        return frame
    ids = frame[identifier]
    if ids.isna().any() or ids.duplicated().any():
        raise ValueError(f"expected one id per row in column {identifier!r}, got ids that are missing or repeated")
    is_whole = types.is_integer_dtype(ids)
    return frame.drop(columns=identifier).set_index(ids.astype(int if is_whole else str).to_numpy())
