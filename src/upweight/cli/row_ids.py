"""The ids of the rows of a data frame, and what they are, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upweight.cli.column_names import alternatives

if TYPE_CHECKING:
    import pandas

    from upweight.cli.table_files.read import Table


def with_ids(
    frame: pandas.DataFrame, target: str, identifier: str | None, name: str, is_numbered: bool = False
) -> pandas.DataFrame:
    """The frame indexed by the identifier column; without one, by the numbers of its rows, or by its own index.

    Args:
        frame: the rows.
        target: the column to predict.
        identifier: the column with the ids.
        name: of the file, for messages.
        is_numbered: without an identifier, rows are numbered from 1; else the frame's index is kept.

    Raises:
        KeyError: the target or identifier column does not exist.
        ValueError: ids are missing or repeated.
    """
    from pandas.api import types

    for column in filter(None, (target, identifier)):
        if column not in frame.columns:
            raise KeyError(f"{name} has no column {column!r}; {alternatives(column, list(frame.columns))}")
    if identifier is None:
        return frame.set_axis(range(1, len(frame) + 1), axis=0) if is_numbered else frame
    ids = frame[identifier]
    if ids.isna().any() or ids.duplicated().any():
        raise ValueError(f"expected one id per row in column {identifier!r}, got ids that are missing or repeated")
    is_whole = types.is_integer_dtype(ids)
    return frame.drop(columns=identifier).set_index(ids.astype(int if is_whole else str).to_numpy())


def ids_in_words(table: Table, identifier: str | None, name: str) -> str:
    """What the ids of the rows of the file `name` are: the end of a sentence that begins with "Rows are named by"."""
    import pandas as pd

    if identifier is not None:
        return f"column {identifier} of {name}"
    if table.last_lines is not None:
        return f"their number in {name}: the first row below the header is 1"
    is_numbered = table.frame.index.equals(pd.RangeIndex(len(table.frame)))
    return f"their number in {name}, from 0" if is_numbered else f"the index of {name}"
