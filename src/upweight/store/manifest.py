"""The manifest of a store: one line for every finished file, appended after the file is on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from upweight.core.archive import MALFORMED
from upweight.core.partial_files import lock, remove_partial_files
from upweight.store.shard_files import Receipt, full_disk, sync_folder


def read_manifests(folder: Path) -> dict[tuple[str, int], Receipt]:
    """(phase, number) → the finished file, from the manifests of all writers.

    A last line that is not whole is what a killed writer left; it does not count.

    Raises ValueError for any other line that is not a receipt, and for two different files of one number.
    """
    receipts: dict[tuple[str, int], Receipt] = {}
    for path in sorted(folder.glob("manifest.*.jsonl")):
        content = path.read_bytes()
        for position, line in enumerate(content[: whole_lines(content)].splitlines()):
            try:
                receipt = Receipt.of(json.loads(line))
            except MALFORMED as error:
                raise ValueError(
                    f"line {position + 1} of {path} is damaged ({error}); restore it, or build the store again in a "
                    "new folder"
                ) from error
            known = receipts.setdefault(receipt.key, receipt)
            if known.sha256 != receipt.sha256:
                raise ValueError(
                    f"{receipt.file} of {folder} was written twice with different contents (sha256 "
                    f"{known.sha256[:12]}… and {receipt.sha256[:12]}…): the passes are not deterministic; delete the "
                    "store and build it on machines of one kind"
                )
    return receipts


def whole_lines(content: bytes) -> int:
    """Bytes of the whole lines: all but what a killed writer left at the end."""
    return content.rfind(b"\n") + 1


@contextmanager
def manifest_writer(folder: Path, writer: str) -> Iterator[ManifestWriter]:
    """A context in which this writer, and no other process under its name, appends to its manifest.

    Raises ValueError if another process is writing under this name.
    """
    path = folder / f"manifest.{writer}.jsonl"
    with _opened(path) as file:
        if not lock(file):
            raise ValueError(
                f"another process is building {folder} (writer {writer!r}): wait for it, or share the work between "
                "processes with torchrun or Ray"
            )
        file.seek(0)
        end = whole_lines(file.read())
        file.truncate(end)
        file.seek(end)
        for sub_folder in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            remove_partial_files(sub_folder, "*")
        sync_folder(folder)
        yield ManifestWriter(file)


def _opened(path: Path) -> BinaryIO:
    """The manifest, open to append to it. Raises OSError that says what to do if the folder cannot be written."""
    try:
        return open(path, "ab+")
    except OSError as error:
        if full_disk(error, path.name):
            raise
        raise type(error)(
            error.errno,
            f"files of the store in {path.parent} are missing, and it cannot be written ({error.strerror}): build it "
            "where you may write, then ask it anywhere",
        ) from error


class ManifestWriter:
    """Appends lines to one manifest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def append(self, receipt: Receipt) -> None:
        """Write the line of a file that is on disk, and flush it to disk."""
        try:
            self._file.write(json.dumps(receipt.as_dict(), sort_keys=True).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise full_disk(error, receipt.file) or error from error
