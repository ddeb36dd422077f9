"""Writing of files: a file is written whole or not at all, and nothing else is lost by it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from upweight.core.partial_files import create_partial_file

RENAMES_OPEN_FILES = os.name == "posix"
HEAD = 4096  # bytes of an existing file by which its contents are recognised
STANDARD_STREAMS = (0, 1, 2)  # file descriptors


class Contents(NamedTuple):
    """What a call writes, and so which existing files it may replace.

    Attributes:
        name: in words.
        suffixes: of names that such files usually have, in lower case.
        mark: bytes near the beginning of every such file.
        foreign: bytes at the beginning of files that have such a suffix; without `mark` they hold something else.
    """

    name: str
    suffixes: tuple[str, ...]
    mark: bytes = b""
    foreign: tuple[bytes, ...] = ()

    def may_replace(self, path: Path) -> bool:
        """Whether an existing file is empty, holds such contents, or has their suffix and holds nothing known."""
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if not head or (self.mark and self.mark in head.lower()):
            return True
        return path.suffix.lower() in self.suffixes and not head.lstrip().startswith(self.foreign)


PAGE = Contents("a page", (".html", ".htm"), b"<!doctype html")
ARCHIVE = Contents("a file of upweight", (".npz", ""), b"_header.npy", (b"PK",))
CERTIFICATE = Contents("a certificate", (".json", ""), b'"upweight certificate"', (b"{", b"["))
PATCH = Contents("a patch", (".json", ""), b'"upweight patch"', (b"{", b"["))


def destination(path: str | Path, contents: Contents | None = None, inputs: Iterable[Path] = ()) -> Path:
    """The file that is written for this path: the target of a symbolic link, else the path itself.

    Args:
        path: where to write.
        contents: what is written; None if only this package chooses such names.
        inputs: files that are read, which must not be replaced.

    Raises:
        ValueError: the path is a device, a pipe, a stream of this process, one of the inputs, or an existing file with
            other contents.
        OSError: it is a folder, or a file that must not be written.
    """
    target = Path(os.path.realpath(path))
    try:
        existing = os.stat(path)
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no folder around it; make it first", str(path)) from None
        return target
    if stat.S_ISDIR(existing.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder: give the name of a file", str(path))
    if not stat.S_ISREG(existing.st_mode):
        raise ValueError(f"{path} is a device or a pipe, which cannot be written whole or not at all: name a file")
    if any(_is_stream(descriptor, existing) for descriptor in STANDARD_STREAMS):
        raise ValueError(f"{path} is the file that this process prints to or reads from: name another file")
    if any(os.path.exists(file) and os.path.samefile(path, file) for file in inputs):
        raise ValueError(f"{path} is an input, which would be lost: name another file")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it must not be written", str(path))
    if contents is not None and not contents.may_replace(target):
        raise ValueError(
            f"{path} exists and is not {contents.name}: what it holds would be lost; name another file, or delete it"
        )
    return target


@contextmanager
def open_atomically(path: str | Path, contents: Contents | None = None) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once everything is written and flushed to disk.

    A reader finds the old file or the whole new one; if writing fails, no trace is left. A process that is killed
    leaves its partial file behind, until `remove_partial_files` removes it. Through a symbolic link its target is
    written. A file that is replaced keeps its permissions.

    Raises ValueError or OSError as `destination`, before anything is written.
    """
    target = destination(path, contents)
    partial, file = create_partial_file(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if target.exists():
                os.chmod(partial, stat.S_IMODE(target.stat().st_mode))
            if RENAMES_OPEN_FILES:
                os.replace(partial, target)  # while it is locked, so that nobody takes it for abandoned
        if not RENAMES_OPEN_FILES:
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def open_regular(path: str | Path) -> BinaryIO:
    """Open an existing file for reading.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, a device or a pipe, which might never end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"expected {path} to be a file, got a folder, a device or a pipe")
    return open(path, "rb")


def _is_stream(descriptor: int, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:  # a stream that is closed
        return False
