"""Stdout for one JSON document: what else is printed there, also by C code and child processes, goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

STDOUT, STDERR = 1, 2  # file descriptors
_reserved: list[TextIO] = []  # the stream for the document, while stdout is reserved


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Send everything that is printed on stdout to stderr, except `write_document`."""
    stream = sys.stdout
    if not _is_stdout(stream):  # replaced by a test or a notebook
        with redirect_stdout(sys.stderr):
            yield from _with(stream)
        return
    stream.flush()
    with open(os.dup(STDOUT), "w", encoding="utf-8") as document:
        divert_stdout()
        try:
            yield from _with(document)
        finally:
            stream.flush()
            os.dup2(document.fileno(), STDOUT)


def divert_stdout() -> None:
    """Send what this process and its children print on stdout to stderr from now on."""
    try:
        os.dup2(STDERR, STDOUT)
    except OSError:  # stderr is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STDOUT)
        os.close(nowhere)


def write_document(text: str) -> None:
    """Write a line to the stdout that is reserved, or to stdout itself."""
    print(text, file=_reserved[-1] if _reserved else sys.stdout, flush=True)


def _with(stream: TextIO) -> Iterator[None]:
    _reserved.append(stream)
    try:
        yield
    finally:
        _reserved.pop()


def _is_stdout(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == STDOUT
    except (OSError, ValueError, AttributeError):
        return False
