"""Archives: one file with named arrays and JSON facts, in numpy's zip format and without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive_members import read_members, require_stored
from upweight.core.files import ARCHIVE, Contents, open_atomically, open_regular
from upweight.core.identity import checksum

HEADER = "_header"  # name of the member with everything that is not an array
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


def write_archive(
    path: str | Path,
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
    schema: int = 1,
    contents: Contents | None = ARCHIVE,
) -> None:
    """Write arrays and facts to a file, whole or not at all.

    Args:
        path: the file.
        kind: the kind of contents, checked by `read_archive`.
        arrays: name → array of numbers or str.
        facts: anything that JSON can hold.
        schema: version of the format of this kind of file.
        contents: decides which existing files may be replaced; None if only this package chooses such names.

    Raises:
        TypeError: an array holds Python objects.
        ValueError, OSError: the path is not one to write to (see `core.files.destination`).
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects, which have no safe form on disk; use str or numbers")
    header = {"kind": kind, "version": schema, "arrays": sorted(arrays), "facts": as_plain(facts)}
    header["checksum"] = _checksum(header, arrays)
    with open_atomically(path, contents) as file:
        np.savez(file, **{HEADER: np.array(json.dumps(header))}, **arrays)  # type: ignore[arg-type]


def read_archive(
    path: str | Path, kind: str, schema: int = 1, mapped: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and facts of a file of this kind and schema. With `mapped`, large arrays stay on disk and are read-only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, was changed, is of another kind, or was written by another version of upweight
            or by another program.
    """
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as members:
                require_stored(members)
                arrays = read_members(members, file if mapped else None)
        except MemoryError:
            raise
        except Exception as error:  # zipfile raises many types of error for damaged files
            raise ValueError(f"{path} is damaged or was not written by upweight: {error}") from error
    with well_formed(path):
        header = _header(arrays.pop(HEADER))
    _require_kind(path, header, kind, schema)
    if sorted(arrays) != header["arrays"]:
        raise ValueError(f"{path} is damaged: expected the arrays {header['arrays']}, got {sorted(arrays)}")
    stored = header.pop("checksum", None)  # files of earlier versions have none
    if stored is not None and stored != _checksum(header, arrays):
        raise ValueError(f"{path} is damaged: what it holds was changed and does not fit its checksum; write it again")
    return arrays, header["facts"]


@contextmanager
def well_formed(path: str | Path) -> Iterator[None]:
    """Turn what goes wrong with the contents of a file into a ValueError that names the file."""
    try:
        yield
    except MALFORMED as error:
        words = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is damaged or was not written by upweight ({words})") from error


def stored_array(
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    shape: tuple[int | None, ...],
    kinds: str = "f",
    finite: bool = True,
) -> NDArray[Any]:
    """The array of this name from a file, if it is as it was written.

    Args:
        arrays: those of the file.
        name: of the array.
        shape: the expected shape; None for an axis of any size.
        kinds: the accepted kinds of dtype, as numpy's letters.
        finite: whether NaN and infinite numbers are refused.

    Raises:
        ValueError: it is missing, or has another shape, dtype or other numbers.
    """
    if name not in arrays:
        raise ValueError(f"expected an array {name!r}, got {sorted(arrays)}")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in kinds:
        raise ValueError(f"expected {name!r} of shape {shape}, got {array.shape} in {array.dtype}")
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers in {name!r}")
    return array


def as_plain(value: Any) -> Any:
    """The value as it would come back from JSON: tuples and arrays as lists, numpy numbers as Python numbers."""
    return json.loads(json.dumps(value, default=_plain))


def _header(stored: NDArray[Any]) -> dict[str, Any]:
    """The header, with every part of the type that it is written with."""
    if stored.dtype.kind != "U" or stored.ndim:
        raise ValueError("its header is not a text")
    header = json.loads(str(stored))
    if not isinstance(header, dict):
        raise ValueError("its header is not an object of JSON")
    types = {"kind": str, "version": int, "arrays": list, "facts": dict}
    for name, expected in types.items():
        if type(header[name]) is not expected:
            raise ValueError(f"expected {name!r} to be {expected.__name__}, got {type(header[name]).__name__}")
    return header


def _require_kind(path: str | Path, header: Mapping[str, Any], kind: str, schema: int) -> None:
    if header["kind"] != kind:
        raise ValueError(f"expected {path} to hold {kind}, got {header['kind']}")
    if header["version"] != schema:
        age = "an older" if header["version"] < schema else "a newer"
        raise ValueError(
            f"{path} was written by {age} version of upweight (form {header['version']} of {kind}, this version reads "
            f"form {schema}): make it again, or read it with that version"
        )


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> int:
    """The checksum of everything in the file."""
    return checksum(json.dumps(header, sort_keys=True), {name: arrays[name] for name in sorted(arrays)})


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return getattr(value, "__qualname__", None) or str(value)
