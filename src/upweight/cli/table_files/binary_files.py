"""Excel, Parquet and Feather files → data frames with types of their own."""

from __future__ import annotations

import importlib
import io
from typing import TYPE_CHECKING, Any

from upweight.cli.table_files.header import unique_names
from upweight.cli.table_files.table_format import Kind

if TYPE_CHECKING:
    import pandas

LIBRARIES = {"excel": ("openpyxl", "excel"), "parquet": ("pyarrow", "tables"), "feather": ("pyarrow", "tables")}


def read_binary(data: bytes, kind: Kind, name: str) -> tuple[pandas.DataFrame, list[str]]:
    """(frame with the index of the file, notes).

    Raises:
        ModuleNotFoundError: the library for the kind is not installed; the message names the extra.
        ValueError: the file is damaged, or has no table.
    """
    require_library(kind, name)
    import pandas as pd

    try:
        if kind == "excel":
            return _read_excel(data, name)
        read: Any = pd.read_parquet if kind == "parquet" else pd.read_feather
        frame = read(io.BytesIO(data))
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"expected {name} to be a whole {kind} file, got: {error}") from error
    frame.columns, notes = unique_names([str(column) for column in frame.columns], frame.shape[1])
    return frame, notes


def require_library(kind: Kind, name: str) -> None:
    """Raise ModuleNotFoundError if the library that reads this kind is not installed; the message names the extra."""
    module, extra = LIBRARIES.get(kind, ("pandas", "tables"))
    for each in ("pandas", module):
        try:
            importlib.import_module(each)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"reading {name} needs {error.name}; install it with: pip install 'upweight[{extra}]'"
            ) from error


def _read_excel(data: bytes, name: str) -> tuple[pandas.DataFrame, list[str]]:
    """The first sheet that has cells."""
    import pandas as pd

    sheets = pd.read_excel(
        io.BytesIO(data), sheet_name=None, header=None, dtype=object, keep_default_na=False, na_values=[""]
    )
    filled = {title: sheet for title, sheet in sheets.items() if not sheet.empty}
    if not filled:
        raise ValueError("its sheets are empty")
    title, sheet = next(iter(filled.items()))
    notes = []
    if len(filled) > 1:
        notes.append(f"Only the first of {len(filled)} sheets of {name} was read: {title}.")
    names, name_notes = unique_names(["" if pd.isna(cell) else str(cell) for cell in sheet.iloc[0]], sheet.shape[1])
    frame = sheet.iloc[1:].reset_index(drop=True)
    frame.columns = names
    return frame.infer_objects(), [*notes, *name_notes]
