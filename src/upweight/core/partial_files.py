"""Files that are not yet whole: locked while they are written, and removed if their process was killed."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

PARTIAL = ".tmp"  # the ending of a file that is not yet whole


def create_partial_file(path: Path) -> tuple[Path, BinaryIO]:
    """A new locked file beside `path`, and that file open for writing."""
    while True:
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        file = open(partial, "wb")  # noqa: SIM115 - the caller closes it
        lock(file)
        if partial.exists():  # otherwise another process took it for abandoned before it was locked
            return partial, file
        file.close()


def remove_partial_files(folder: Path, pattern: str) -> None:
    """Remove the partial files of killed processes whose whole files would match. Files being written stay."""
    for partial in folder.glob(f"{pattern}.{'[0-9a-f]' * 8}{PARTIAL}"):
        with suppress(OSError), open(partial, "rb+") as file:
            if lock(file):
                partial.unlink()


def lock(file: Any) -> bool:
    """Mark an open file as in use, until it is closed or its process ends; False if it is in use already.

    True on Windows, where a file that is open cannot be removed.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or a file system without locks
        return False
    return True
