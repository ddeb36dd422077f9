"""The temporary folder of a run, which is removed with everything that its workers left in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from upweight.core.partial_files import lock

PREFIX = "upweight-workers-"
LOCK = "in-use.lock"


@contextmanager
def run_folder() -> Iterator[Path]:
    """A new temporary folder, removed at the end."""
    folder, file = _create_locked()
    try:
        yield folder
    finally:
        file.close()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_folders() -> None:
    """Remove the folders of runs whose process was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):  # another user's, or in use
            with open(path, "rb+") as file:
                is_abandoned = lock(file)
            if is_abandoned:
                path.unlink()
                shutil.rmtree(path.parent, ignore_errors=True)


def _create_locked() -> tuple[Path, BinaryIO]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        file = open(folder / LOCK, "wb")  # noqa: SIM115 - the caller closes it
        lock(file)
        if (folder / LOCK).exists():  # otherwise another process took it for abandoned before it was locked
            return folder, file
        file.close()
