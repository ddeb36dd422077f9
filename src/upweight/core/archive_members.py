"""The members of an archive as arrays: each is exactly as large as its header says, and none is decompressed."""

from __future__ import annotations

import functools
import io
import mmap
import operator
import os
import zipfile
import zlib
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

SUFFIX = ".npy"
MIN_MAPPED = 2**20  # bytes; a smaller member is read
LOCAL_HEADER = 30  # bytes in front of the name of a member
MAX_HEADER = 2**17  # bytes of a member before its numbers, of which numpy reads 10,000 characters at most


def require_stored(members: zipfile.ZipFile) -> None:
    """Raise ValueError if a member is compressed, occurs twice or is not an array; nothing is read.

    Together the members are then as large as the file.
    """
    infos = members.infolist()
    names = [info.filename for info in infos]
    assert members.fp is not None
    file_size = members.fp.seek(0, os.SEEK_END)
    if len(set(names)) < len(names) or not all(name.endswith(SUFFIX) for name in names):
        raise ValueError(f"expected arrays with names of their own, got {names[:5]}")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or sum(i.file_size for i in infos) > file_size:
        raise ValueError("its members are compressed or overlap")


def read_members(members: zipfile.ZipFile, mapped: BinaryIO | None = None) -> dict[str, NDArray[Any]]:
    """Every member by its name without suffix. Raises ValueError for what is not a whole array of numbers or texts.

    `mapped` is the open file of the archive: its large members then stay on disk, and are read-only.
    """
    arrays = {}
    whole = None if mapped is None else mmap.mmap(mapped.fileno(), 0, access=mmap.ACCESS_READ)
    for info in members.infolist():
        try:
            content: bytearray | memoryview
            if whole is None or info.file_size < MIN_MAPPED:
                content = bytearray(members.read(info))
            else:
                content = _mapped(whole, info)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{info.filename} does not fit its checksum; write it again") from error
        arrays[info.filename.removesuffix(SUFFIX)] = _read_array(content)
    return arrays


def _mapped(whole: mmap.mmap, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of a member, in the file itself. Raises BadZipFile if they do not fit its checksum."""
    header = whole[info.header_offset : info.header_offset + LOCAL_HEADER]
    lengths = [int.from_bytes(header[i : i + 2], "little") for i in (26, 28)]  # of its name and its further fields
    start = info.header_offset + LOCAL_HEADER + sum(lengths)
    content = memoryview(whole)[start : start + info.file_size]
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(info.filename)
    return content


def _read_array(content: bytearray | memoryview) -> NDArray[Any]:
    stream = io.BytesIO(memoryview(content)[:MAX_HEADER])
    try:
        shape, is_fortran, dtype = _read_header(stream)
    except Exception as error:  # numpy and the parser inside of it raise many types of error for damaged headers
        raise ValueError(f"a member is not an array ({error})") from error
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError("an array of Python objects or records, which upweight does not write")
    count: int = functools.reduce(operator.mul, shape, 1)  # in Python's integers, which do not overflow
    expected = count * dtype.itemsize
    if any(length < 0 for length in shape) or (dtype.itemsize == 0 and count):
        raise ValueError(f"an array of shape {shape} in {dtype}")
    start = stream.tell()
    if expected != len(content) - start:
        raise ValueError(f"expected {expected} bytes for shape {shape} in {dtype}, got {len(content) - start}")
    array = np.frombuffer(content, dtype=dtype, offset=start) if count else np.empty(0, dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(member)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"numpy's format {version} is not known")
    # Format 3.0 differs from 2.0 by UTF-8 in the names of fields, which no array of ours has.
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read_header(member)
