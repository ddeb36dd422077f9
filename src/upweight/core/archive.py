"""One file of named arrays and facts: numpy's zip format with JSON beside the arrays, never a pickle."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1


def write_archive(path: str | Path, kind: str, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write to a neighbour, flush to disk, rename: a reader finds the old file or the whole new one."""
    path = Path(path)
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects, which have no safe form on disk; use str or numbers")
    plain = json.dumps({"kind": kind, "version": VERSION, **facts}, default=_plain, ensure_ascii=False)
    partial = path.with_name(path.name + ".tmp")
    with open(partial, "wb") as file:
        np.savez(file, _facts=np.array(plain), **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_archive(path: str | Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and facts of a file of this kind; its checksums are verified on the way."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(str(arrays.pop("_facts")))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged or was not written by upweight ({error})") from error
    if facts.get("kind") != kind or facts.get("version", 0) > VERSION:
        raise ValueError(
            f"expected {path} to hold {kind} (format ≤ {VERSION}), got {facts.get('kind')} {facts.get('version')}"
        )
    return arrays, facts


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
