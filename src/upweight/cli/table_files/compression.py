"""What a file holds, by its first bytes: compression, and the kind of table."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from typing import NamedTuple

from upweight.cli.table_files.table_format import Compression, Kind

ZIP = b"PK\x03\x04"
COMPRESSIONS: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", ZIP: "zip"}
KINDS: dict[bytes, Kind] = {b"PAR1": "parquet", b"ARROW1": "feather", b"FEA1": "feather"}
FOREIGN = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
    b"%PDF": "a PDF document",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an array of numpy",
    b"{\\rtf": "a document of a word processor",
    **dict.fromkeys((b"<html", b"<HTML", b"<!doctype", b"<!DOCTYPE", b"<table", b"<TABLE"), "a web page"),
    **dict.fromkeys((b'{"', b'[{"', b"[\n"), "JSON"),
}
EXCEL_MEMBER = "xl/workbook.xml"


class Contents(NamedTuple):
    """The uncompressed bytes of a file, the kind of table that they are, and how they were compressed."""

    data: bytes
    kind: Kind
    compression: Compression | None


def contents_of(data: bytes, name: str) -> Contents:
    """What the bytes of a file hold. Raises ValueError for what is not a table, or is damaged."""
    compression = next((each for mark, each in COMPRESSIONS.items() if data.startswith(mark)), None)
    if compression == "zip" and _is_excel(data, name):
        compression = None
    if compression is not None:
        data = _decompressed(data, compression, name)
    if data.startswith(ZIP) and _is_excel(data, name):
        return Contents(data, "excel", compression)
    foreign = next((what for mark, what in FOREIGN.items() if data.startswith(mark)), None)
    if foreign is not None:
        raise ValueError(f"expected {name} to be a table, got {foreign}; save it as .csv, .xlsx or .parquet")
    kinds = (each for mark, each in KINDS.items() if data.startswith(mark))
    return Contents(data, next(kinds, "text"), compression)


def _is_excel(data: bytes, name: str) -> bool:
    try:
        return EXCEL_MEMBER in zipfile.ZipFile(io.BytesIO(data)).namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{name} is a damaged zip archive ({error})") from None


def _decompressed(data: bytes, compression: Compression, name: str) -> bytes:
    try:
        if compression == "gzip":
            return gzip.decompress(data)
        if compression == "bz2":
            return bz2.decompress(data)
        if compression == "xz":
            return lzma.decompress(data)
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            names = ", ".join(member.filename for member in members[:5])
            raise ValueError(f"expected one table in {name}, got {len(members)} files ({names}); unpack it")
        return archive.read(members[0])
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise ValueError(f"{name} is {compression} data that cannot be unpacked ({error}); is it complete?") from None
