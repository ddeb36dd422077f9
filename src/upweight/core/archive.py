"""Archives: one file with named arrays and JSON facts, in numpy's zip format and without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.files import open_atomically


def write_archive(
    path: str | Path, kind: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], schema: int = 1
) -> None:
    """Write arrays and facts to a file, whole or not at all.

    Args:
        path: the file.
        kind: the kind of contents, checked by `read_archive`.
        arrays: name → array of numbers or str.
        facts: anything that JSON can hold.
        schema: version of the format of this kind of file.

    Raises:
        TypeError: an array holds Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects, which have no safe form on disk; use str or numbers")
    header = {"kind": kind, "version": schema, "arrays": sorted(arrays), "facts": as_plain(facts)}
    with open_atomically(path) as file:
        np.savez(file, _header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]


def read_archive(path: str | Path, kind: str, schema: int = 1) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and facts of a file of this kind and schema.

    Raises ValueError if the file is damaged, of another kind, or written by another version of upweight.
    """
    # Verify the checksums of whole members first: numpy reads only as far as the stored shape says, so it would not
    # notice a damaged shape.
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as members:
                broken = members.testzip()
        except Exception as error:  # zipfile raises many types of error for damaged files
            raise ValueError(f"{path} is damaged or was not written by upweight ({error})") from error
        if broken is not None:
            raise ValueError(f"{path} is damaged: {broken} does not fit its checksum; write it again")
    try:
        with np.load(path, allow_pickle=False) as members:
            arrays = {name: members[name] for name in members.files}
        header = json.loads(str(arrays.pop("_header")))
        stored_kind, version, names, facts = (header[name] for name in ("kind", "version", "arrays", "facts"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not written by upweight ({error})") from error
    if stored_kind != kind:
        raise ValueError(f"expected {path} to hold {kind}, got {stored_kind}")
    if version != schema:
        age = "an older" if isinstance(version, int) and version < schema else "a newer"
        raise ValueError(
            f"{path} was written by {age} version of upweight (form {version} of {kind}, this version reads form "
            f"{schema}): make it again, or read it with that version"
        )
    if sorted(arrays) != names:
        raise ValueError(f"{path} is damaged: expected the arrays {names}, got {sorted(arrays)}")
    return arrays, facts


def as_plain(value: Any) -> Any:
    """The value as it would come back from JSON: tuples and arrays as lists, numpy numbers as Python numbers."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return getattr(value, "__qualname__", None) or str(value)
